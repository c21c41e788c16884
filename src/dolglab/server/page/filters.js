// Filters: a folder, and values of columns. Long lists of choices are suggested as the user types.

import { json } from "./api.js";
import { $, element } from "./dom.js";
import { about } from "./library.js";
import { isRange, range } from "./range.js";

// Stands for the folder where a column's name is expected; those are never empty.
const FOLDER = "";
// Maximum choices of a drop-down list; above that, the number of suggestions and the delay after the last key in ms.
const LISTED = 50, PROPOSED = 20, PAUSE = 150;

/** Creates the fields; calls `changed()` when the user changes one. */
export async function build(changed) {
  const [{ columns }, { folders }] = await Promise.all([about(), json(`api/folders?limit=${LISTED + 1}`)]);
  const fields = columns.map(({ name, values }) => isRange(name) ? range(name) : values ? choice(name, values.map((value) => [value, value || "(empty)"]))
    : proposed(name, async (containing) => (await json(`api/values?${query({ column: name, containing })}`)).values));
  if (folders.length > LISTED) {
    fields.unshift(proposed("Folder", async (containing) => names((await json(`api/folders?${query({ containing })}`)).folders)));
  } else if (folders.length) {
    fields.unshift(choice("Folder", folders.map(({ name, photos }) => [name, `${name} (${photos.toLocaleString("en")})`])));
  }
  if (folders.length) fields[0].querySelector("select, input").dataset.column = FOLDER;
  $("filters").replaceChildren(...fields);
  $("filters").onchange = changed;
}

/** The filters as [key, value] pairs for a URL: `where` with COLUMN=VALUE, and `folder`. */
export function chosen() {
  return all().filter(([, field]) => field.value !== "").map(([column, field]) =>
    column === FOLDER ? ["folder", field.value] : ["where", `${column}=${field.value}`]);
}

/** COLUMN=VALUE as [column, value]. */
export function split(pair) {
  const at = pair.indexOf("=");
  return [pair.slice(0, at), pair.slice(at + 1)];
}

/** Fills the fields from the parameters of a URL. */
export function show(parameters) {
  const values = new Map(parameters.getAll("where").map(split));
  for (const [column, field] of all()) {
    const value = column === FOLDER ? parameters.get("folder") ?? "" : values.get(column) ?? "";
    // Chromium lays the page out for every value that is set, even the same one.
    if (field.value !== value) field.value = value;
  }
}

const names = (folders) => folders.map(({ name }) => name);
const query = (parameters) => new URLSearchParams({ ...parameters, limit: PROPOSED });

function all() {
  return [...$("filters").querySelectorAll("[data-column]")].map((field) => [field.dataset.column, field]);
}

function choice(name, options) {
  const listed = options.map(([value, label]) => element("option", { value }, label));
  return labelled(name, element("select", {}, element("option", { value: "" }, "any"), ...listed));
}

function proposed(name, find) {
  const list = element("datalist", { id: `proposals-${name}` });
  const field = element("input", { placeholder: "any; type to search", autocomplete: "off" });
  field.setAttribute("list", list.id);
  let waiting;
  const propose = () => {
    clearTimeout(waiting);
    waiting = setTimeout(async () => {
      const asked = field.value;
      const values = await find(asked).catch(() => []);
      if (asked === field.value) list.replaceChildren(...values.map((value) => element("option", { value })));
    }, PAUSE);
  };
  field.addEventListener("input", propose);
  field.addEventListener("focus", propose);
  return labelled(name, field, list);
}

function labelled(name, field, ...more) {
  field.dataset.column = name;
  return element("label", { className: "field" }, name, field, ...more);
}
