// The views of the page. One is visible at a time, chosen by the fragment of the URL: `#photos`, `#photos?like=7`, `#map`.
//
// To add a view NAME, add a `<section id="NAME" class="view">` and a link to `#NAME` in the `<nav>` of index.html, a module
// `NAME.js` and styles `NAME.css` in this folder. The module is loaded when the view is first opened. It exports
//
//   show(parameters)  called when the view opens and when its parameters change, with the `URLSearchParams` after the `?`.
//                     The message of an error that it throws is shown on the page.
//   hide()            optional; called when another view opens.
//
// A view may call `go`, `amend` and `searchLike` below, `openPhoto` of detail.js, `about` of library.js, and api.js.

import { noticeable } from "./busy.js";
import { $ } from "./dom.js";
import { position, restore, store } from "./scroll.js";

const views = [...document.querySelectorAll(".view")].map((section) => section.id);
// The modules of views that were opened, by name.
const modules = new Map();
let open = { hide() {} };
let visible;
// The fragment that the page follows, its parameters, and an object of its own each time.
let followed = "";
let given = new URLSearchParams();
let opening;
// Resolves when the history has the entry of the view.
let entered = Promise.resolve();
// A view is on its way: the position on the page belongs to no entry of the history.
let moving = false;
let opened = () => {};

/** The URL fragment of a view; `parameters` is anything that `URLSearchParams` accepts. */
export function address(name, parameters = {}) {
  // Commas need no escape in a fragment.
  const query = new URLSearchParams(parameters).toString().replaceAll("%2C", ",");
  return query ? `#${name}?${query}` : `#${name}`;
}

/** Opens a view, and adds it to the browser's history unless another one is opened at once. */
export function go(name, parameters) {
  const next = address(name, parameters);
  if (next === followed) return;
  const shown = opened(next);
  const turn = opening;
  // As for documents, the address changes when the new view is there: meanwhile, this would only delay it by milliseconds.
  entered = Promise.race([shown, noticeable()]).then(() => turn === opening && history.pushState(position(), "", followed));
  entered.then(() => shown).then(() => settle(turn));
}

/** Changes a parameter of the open view in the URL, and in the parameters that the view has; "" removes it. */
export function amend(key, value) {
  if (value) given.set(key, value);
  else given.delete(key);
  const amended = (followed = address(visible, given));
  entered.then(() => amended === followed && history.replaceState(history.state, "", amended));
}

/** Searches for photos similar to a photo of the library, given by its id. The filters of the photos view stay. */
export function searchLike(id) {
  go("photos", [...(visible === "photos" ? filtersIn(given) : []), ["like", id]]);
}

/** The filters among a view's parameters, as pairs: see filters.js. */
export function filtersIn(parameters) {
  return [...parameters].filter(([key]) => key === "where" || key === "folder");
}

/** Shows the view of the URL, now and whenever it changes; then calls `failed(error)`, with null on success. */
export function start(failed) {
  opened = (hash) => follow(hash).then(() => failed(null), failed);
  addEventListener("hashchange", arrive);
  addEventListener("scrollend", () => moving || store());
  return arrive();
}

async function arrive() {
  const shown = opened(location.hash);
  const turn = opening;
  await shown;
  if (turn === opening) await restore();
  settle(turn);
}

/** From now on, the position on the page belongs to the entry of the history, unless another view is on its way. */
function settle(turn) {
  if (turn === opening) moving = false;
}

/** The view that a fragment names, and its parameters. */
function parse(hash) {
  const [name, query] = hash.slice(1).split("?", 2);
  return { name: name || views[0], parameters: new URLSearchParams(query) };
}

async function follow(hash) {
  const { name, parameters } = parse(hash);
  // Other fragments are anchors on the page, such as that of the skip link.
  if (!views.includes(name)) return;
  followed = hash;
  given = parameters;
  moving = true;
  const turn = (opening = Symbol(name));
  if (name !== visible) uncover(name);
  // A view that was opened before shows without waiting for anything.
  if (!modules.has(name)) modules.set(name, await import(`./${name}.js`));
  if (turn !== opening) return;
  const module = modules.get(name);
  if (module !== open) open.hide?.();
  open = module;
  await module.show(parameters);
}

function uncover(name) {
  visible = name;
  for (const view of views) $(view).hidden = view !== name;
  for (const link of document.querySelectorAll("nav.views a")) {
    if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}
