// What photos are limited to: a folder, and values of columns. Many choices are proposed as one types.

import { json } from "./api.js";
import { $, element } from "./dom.js";
import { about } from "./library.js";

// In the place of a column's name, which is never empty.
const FOLDER = "";
// Choices that a list shows; of more some are proposed, a moment after the last key.
const LISTED = 50, PROPOSED = 20, PAUSE = 150;

/** Makes the fields; `changed()` is called when a person changed one. */
export async function build(changed) {
  const [{ columns }, { folders }] = await Promise.all([about(), json(`api/folders?limit=${LISTED + 1}`)]);
  const fields = columns.map(({ name, values }) => values ? choice(name, values.map((value) => [value, value || "(empty)"]))
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

/** What is chosen, as pairs for an address: `where`, each COLUMN=VALUE, and `folder`. */
export function chosen() {
  return all().filter(([, field]) => field.value !== "").map(([column, field]) =>
    column === FOLDER ? ["folder", field.value] : ["where", `${column}=${field.value}`]);
}

/** Shows what an address has chosen. */
export function show(parameters) {
  const values = new Map(parameters.getAll("where").map((pair) => [pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1)]));
  for (const [column, field] of all()) field.value = column === FOLDER ? parameters.get("folder") ?? "" : values.get(column) ?? "";
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
  const field = element("input", { placeholder: "any: type to find", autocomplete: "off" });
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
