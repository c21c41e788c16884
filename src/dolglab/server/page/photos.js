// The view "Photos": the library page by page, or the answers to a query.
//
// Parameters of its URL: `like`, the id of a query photo of the library, or `photo`, the key of a file chosen in this
// tab, each with an optional `box`, x1,y1,x2,y2 as in the API; without a query, `page`. The filters `folder` and `where`
// apply to both, see filters.js.

import { startAdding } from "./adding.js";
import { fail } from "./busy.js";
import { $ } from "./dom.js";
import * as filters from "./filters.js";
import { clearPage, showPage, stopPage } from "./grid.js";
import { onChange } from "./library.js";
import { clearAnswers, dropAnswer, newQuery, showAnswers } from "./search.js";
import { address, filtersIn, go } from "./views.js";

// The queries of this tab by key; each keeps its marks.
const queries = new Map();
let shown = new URLSearchParams();
let built;

/** See views.js. */
export async function show(parameters) {
  shown = parameters;
  const query = queryOf(parameters);
  await Promise.all([query ? answer(query) : browse(), showFilters()]);
}

/** Builds the filters if necessary and fills them from the URL, in parallel with loading the photos. */
async function showFilters() {
  built ??= filters.build(() => {
    const kept = [...shown].filter(([key]) => ["like", "photo", "box"].includes(key));
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
  const answered = showAnswers(query, filtersIn(shown), shown.get("box") ?? "", () => {
    $("photos").classList.remove("browsing");
    clearPage();
  });
  stopPage();
  return answered;
}

async function browse() {
  $("photos").classList.add("browsing");
  clearAnswers();
  if (shown.has("photo")) fail(new Error("The query photo was lost when this page was closed or reloaded. Choose it again."));
  const page = Math.max(1, Number.parseInt(shown.get("page"), 10) || 1);
  const chosen = filtersIn(shown);
  const turned = shown.has("page");
  await showPage(chosen, page, (to) => address("photos", [...chosen, ["page", to]]));
  if (turned) $("found").scrollIntoView({ block: "start" });
}

/** The query that the URL names; null for none, or for one of another tab. */
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

/** Searches for one file; offers to add several to the library. */
async function given(files) {
  if ($("photos").hidden || !files.length) return;
  if (files.length === 1) take(files[0]);
  else if (!(await startAdding(files, true))) fail(new Error("Choose a single photo to search for. This server does not accept new photos."));
}

$("file").addEventListener("change", () => {
  given([...$("file").files]);
  // Otherwise choosing the same file again would not fire a change event.
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
// Marks exist in this tab only: warn before they are lost.
addEventListener("beforeunload", (event) => [...queries.values()].some(({ marks, exported }) => marks.size && !exported) && event.preventDefault());
onChange(async ({ detail: removed }) => {
  if (removed) dropAnswer(removed);
  built = undefined;
  if (!$("photos").hidden) await show(shown).catch(fail);
});
// Enabled only now that its change event is handled.
$("file").disabled = false;
