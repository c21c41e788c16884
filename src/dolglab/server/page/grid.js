// The photos of the library, page by page, in the order of their paths.

import { json } from "./api.js";
import { onceNoticed } from "./busy.js";
import { link, moreLike } from "./cards.js";
import { openPhoto } from "./detail.js";
import { $, element } from "./dom.js";
import { checkbox } from "./selecting.js";
import { Thumbnails } from "./thumbnails.js";
import { searchLike } from "./views.js";
import { count } from "./words.js";

const PAGE = 60;
const thumbnails = new Thumbnails();
let shown = null;
let stop;

/** Shows a page, from 1, of the photos that match the filters `chosen` (see filters.js); `address(page)` is a page's URL. */
export async function showPage(chosen, page, address) {
  stop?.abort();
  stop = new AbortController();
  const { signal } = stop;
  const cancel = onceNoticed(() => $("library").setAttribute("aria-busy", "true"));
  try {
    const query = new URLSearchParams([...chosen, ["offset", (page - 1) * PAGE], ["limit", PAGE]]);
    const { total, photos } = await json(`api/photos?${query}`, { signal });
    thumbnails.clear();
    shown = photos;
    $("library").replaceChildren(...photos.map(card));
    $("status").textContent = told(total, photos.length, page, chosen.length);
    showPager(page, Math.ceil(total / PAGE), address);
  } catch (error) {
    if (signal.aborted) return;
    clearPage();
    throw error;
  } finally {
    cancel();
    if (!signal.aborted) $("library").removeAttribute("aria-busy");
  }
}

/** Stops loading a page and its pictures; what is there stays. */
export function stopPage() {
  stop?.abort();
  thumbnails.clear();
}

/** Removes the photos of the library from the page. */
export function clearPage() {
  stopPage();
  $("library").replaceChildren();
  $("pager").hidden = true;
  $("library").removeAttribute("aria-busy");
}

function told(total, length, page, limited) {
  if (!total) return limited ? "No photo matches these filters." : "The library is empty.";
  if (!length) return `This page is past the last of ${count(total)}.`;
  if (length === total) return `${count(total)}, sorted by path.`;
  const first = (page - 1) * PAGE + 1;
  const [from, to, all] = [first, first + length - 1, total].map((number) => number.toLocaleString("en"));
  return `Photos ${from} to ${to} of ${all}, sorted by path.`;
}

function card(photo) {
  const shot = element("button", { type: "button", className: "shot", "aria-label": photo.name, title: "More like this" }, thumbnails.image(photo));
  shot.onclick = () => searchLike(photo.id);
  const open = link("open", "Open", photo, () => openPhoto(photo.id, shown.map(({ id }) => id)));
  return element("li", { className: "card" }, checkbox(photo), shot, element("div", { className: "facts" },
    element("p", { className: "file", title: photo.name }, photo.name),
    element("div", { className: "links" }, moreLike(photo), open)));
}

function showPager(page, last, address) {
  const link = (to, words) => to < 1 || to > last ? element("span", { className: "soft" }, words)
    : element("a", { href: address(to), rel: to < page ? "prev" : "next" }, words);
  const number = element("input", { type: "number", min: 1, max: last, value: page, inputmode: "numeric", "aria-label": `Page, of ${last}` });
  number.onchange = () => number.reportValidity() && number.value && (location.hash = address(number.value));
  $("pager").hidden = last < 2 && page === 1;
  $("pager").replaceChildren(link(page - 1, "‹ Previous"), element("span", {}, "Page ", number, ` of ${last.toLocaleString("en")}`), link(page + 1, "Next ›"));
}
