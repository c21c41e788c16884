"use strict";
// Sorting and filtering of the tables, which are complete without scripts.
const tables = [...document.querySelectorAll("table.board")];
const form = document.querySelector("form.filters");

const value = (row, column) => row.cells[column].dataset.v ?? row.cells[column].textContent.trim();

function sort(table, header) {
  const down = header.getAttribute("aria-sort") !== "descending" && header.dataset.first !== "up"
    || header.getAttribute("aria-sort") === "ascending";
  const column = header.cellIndex;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  rows.sort((a, b) => {
    const [x, y] = [value(a, column), value(b, column)];
    // Missing values are last in both directions.
    if (!x || !y) return (x ? 0 : 1) - (y ? 0 : 1);
    const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
    return down ? -order : order;
  });
  for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", down ? "descending" : "ascending");
  body.append(...rows);
}

function shown(row, asked) {
  const most = (limit, found) => !limit || (found !== "" && Number(found) <= Number(limit));
  return (!asked.stage || row.dataset.stage === asked.stage)
    && (!asked.training || row.dataset.training === asked.training)
    && most(asked.length, row.dataset.dimensions)
    && most(asked.cost, row.dataset.milliseconds)
    && (!asked.measured || row.dataset.measured === "yes")
    && row.cells[0].textContent.toLowerCase().includes((asked.name || "").trim().toLowerCase());
}

function filter() {
  const asked = Object.fromEntries(new FormData(form));
  let kept = 0;
  let all = 0;
  for (const table of tables) {
    const rows = [...table.tBodies[0].rows];
    for (const row of rows) row.hidden = !shown(row, asked);
    const left = rows.filter((row) => !row.hidden).length;
    table.closest("section").classList.toggle("empty", !left);
    kept += left;
    all += rows.length;
  }
  form.querySelector("output").textContent = kept === all ? `${all} rows` : `${kept} of ${all} rows`;
}

for (const table of tables) {
  for (const header of table.querySelectorAll("th.sortable")) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...header.childNodes);
    header.append(button);
    button.addEventListener("click", () => sort(table, header));
  }
}
form.hidden = false;
form.addEventListener("input", filter);
form.addEventListener("reset", () => setTimeout(filter));
form.addEventListener("submit", (event) => event.preventDefault());
filter();
