// Selecting photos in the grid, also across its pages, to remove them together.

import { removeAll } from "./adding.js";
import { $, element } from "./dom.js";
import { count } from "./words.js";

// The selected photos by id.
const selected = new Map();

/** A checkbox that selects a photo; visible while the user selects. */
export function checkbox(photo) {
  const box = element("input", { type: "checkbox", checked: selected.has(photo.id), "aria-label": `Select ${photo.name}` });
  box.onchange = () => {
    if (box.checked) selected.set(photo.id, photo);
    else selected.delete(photo.id);
    tell();
  };
  return element("label", { className: "pick" }, box);
}

function tell() {
  $("selected").textContent = `${count(selected.size)} selected`;
  $("remove").disabled = !selected.size;
}

function selecting(is) {
  $("photos").classList.toggle("selecting", is);
  $("select").setAttribute("aria-pressed", String(is));
  if (is) return tell();
  selected.clear();
  for (const box of $("library").querySelectorAll(".pick input")) box.checked = false;
}

$("select").addEventListener("click", () => selecting($("select").getAttribute("aria-pressed") !== "true"));
$("page-all").addEventListener("click", () => {
  for (const box of $("library").querySelectorAll(".pick input:not(:checked)")) box.click();
});
$("remove").addEventListener("click", async () => {
  for (const { id } of await removeAll([...selected.values()])) selected.delete(id);
  tell();
});
