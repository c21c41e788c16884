// The views of the page, one at a time, and which one the address names: `#photos`, `#photos?like=7`, `#map`.
//
// A view NAME is three things: in index.html a `<section id="NAME" class="view">` and a link to `#NAME` in the header's
// `<nav>`, and beside this file a module `NAME.js` (its styles are in `NAME.css`). The module is loaded when the view is
// first opened. It exports
//
//   show(parameters)  called each time that the view opens, and when its parameters change while it is open:
//                     `URLSearchParams` of what follows the `?`. What it throws is shown to the person.
//   hide()            optional; called when another view opens.
//
// What any view may call: `go` and `searchLike` here, `openPhoto` of detail.js, `about` of library.js, and api.js.

import { $ } from "./dom.js";

const views = [...document.querySelectorAll(".view")].map((section) => section.id);
let open = { hide() {} };
let opening;
let opened = () => {};

/** The address of a view, with parameters as `URLSearchParams` takes them. */
export function address(name, parameters = {}) {
  const query = new URLSearchParams(parameters).toString();
  return query ? `#${name}?${query}` : `#${name}`;
}

/** Opens a view; the browser's back button leads back from it. */
export function go(name, parameters) {
  const next = address(name, parameters);
  if (next === location.hash) return;
  // A browser takes its time to say that the hash was changed.
  history.pushState(null, "", next);
  opened();
}

/** Searches for photos that are like a photo of the library, by its number; from there, within the same filters. */
export function searchLike(id) {
  const { name, parameters } = here();
  go("photos", [...(name === "photos" ? filtersIn(parameters) : []), ["like", id]]);
}

/** Those of a view's parameters that say which photos pass, as pairs: see filters.js. */
export function filtersIn(parameters) {
  return [...parameters].filter(([key]) => key === "where" || key === "folder");
}

/** Shows the view that the address names, now and whenever that changes; calls `failed(error)`, with null where none did. */
export function start(failed) {
  opened = () => follow().then(() => failed(null), failed);
  addEventListener("hashchange", opened);
  return opened();
}

function here() {
  const [name, query] = location.hash.slice(1).split("?", 2);
  return { name: name || views[0], parameters: new URLSearchParams(query) };
}

async function follow() {
  const { name, parameters } = here();
  // Any other fragment is a place on the page, such as that of the link that skips to the answers.
  if (!views.includes(name)) return;
  const turn = (opening = Symbol(name));
  for (const view of views) $(view).hidden = view !== name;
  for (const link of document.querySelectorAll("nav.views a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  const module = await import(`./${name}.js`);
  if (turn !== opening) return;
  if (module !== open) open.hide?.();
  open = module;
  await module.show(parameters);
}
