// The view of photos: those of the library, page by page, or the answers to one of them or to a photo that is given.
//
// Its address says which: `like`, a photo's number, or `photo`, one that was given to this tab; else `page`. All are
// within `folder` and `where`, see filters.js.

import { startAdding } from "./adding.js";
import { $ } from "./dom.js";
import * as filters from "./filters.js";
import { clearPage, showPage } from "./grid.js";
import { onChange } from "./library.js";
import { clearAnswers, dropAnswer, fail, newQuery, showAnswers } from "./search.js";
import { address, filtersIn, go } from "./views.js";

// Queries of this tab by their keys: each keeps its marks.
const queries = new Map();
let shown = new URLSearchParams();
let built;

/** See views.js. */
export async function show(parameters) {
  shown = parameters;
  const query = queryOf(parameters);
  $("photos").classList.toggle("browsing", !query);
  await Promise.all([showFilters(), query ? answer(query) : browse()]);
}

/** Whoever waits for the choices, photos do not. */
async function showFilters() {
  built ??= filters.build(() => {
    const kept = [...shown].filter(([key]) => ["like", "photo"].includes(key));
    go("photos", [...filters.chosen(), ...kept]);
  });
  try {
    await built;
  } catch (error) {
    built = undefined;
    throw error;
  }
  filters.show(shown);
}

function answer(query) {
  clearPage();
  return showAnswers(query, filtersIn(shown));
}

async function browse() {
  clearAnswers();
  if (shown.has("photo")) fail(new Error("The photo that was searched for was known to the page until it was closed or loaded anew: choose it again."));
  const page = Math.max(1, Number.parseInt(shown.get("page"), 10) || 1);
  const chosen = filtersIn(shown);
  const turned = shown.has("page");
  await showPage(chosen, page, (to) => address("photos", [...chosen, ["page", to]]));
  if (turned) $("found").scrollIntoView({ block: "start" });
}

/** What is searched for, of which the address has the key; null where it has none, or one of another tab's. */
function queryOf(parameters) {
  const [like, given] = [parameters.get("like"), parameters.get("photo")];
  if (like === null) return queries.get(given) ?? null;
  const key = `like ${like}`;
  if (!queries.has(key)) queries.set(key, newQuery(key, { like: Number(like) }));
  return queries.get(key);
}

function take(file) {
  const key = `${Date.now()}-${queries.size}`;
  queries.set(key, newQuery(key, { file }));
  go("photos", [...filtersIn(shown), ["photo", key]]);
}

/** One file is searched for; several are photos to add. */
async function given(files) {
  if ($("photos").hidden || !files.length) return;
  if (files.length === 1) take(files[0]);
  else if (!(await startAdding(files, true))) fail(new Error("Give one photo to search for: this server does not take new ones."));
}

$("file").addEventListener("change", () => {
  given([...$("file").files]);
  // So that the same file can be chosen again.
  $("file").value = "";
});
document.addEventListener("paste", (event) => given([...event.clipboardData.files]));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});
document.addEventListener("dragleave", (event) => event.relatedTarget || $("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  given([...event.dataTransfer.files]);
});
// Marks are in this tab alone, so that no other one changes them.
addEventListener("beforeunload", (event) => [...queries.values()].some(({ marks, exported }) => marks.size && !exported) && event.preventDefault());
onChange(async ({ detail: removed }) => {
  if (removed) dropAnswer(removed);
  built = undefined;
  if (!$("photos").hidden) await show(shown).catch(fail);
});
// From here on what is chosen is heard of.
$("file").disabled = false;
