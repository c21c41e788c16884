// A search: the query photo with an optional box, its answers, and re-ranking by marks.

import { call, fileName, form, json, picture } from "./api.js";
import { BoxDrawing } from "./box.js";
import { openAnswers } from "./detail.js";
import { $, element, save } from "./dom.js";
import { split } from "./filters.js";
import { about } from "./library.js";
import { Results } from "./results.js";
import { count } from "./words.js";

// `shown` identifies the query and filters of the answers on the page; `taken`: the server has accepted the query photo.
const state = { query: null, chosen: [], shown: "", taken: false, found: null, stop: null };
const box = new BoxDrawing(search);
const results = new Results((place) => openAnswers(results.answers, place, asked), rerank);

/** A query with its own marks: a file, or the id `like` of a photo of the library. */
export function newQuery(key, { file = null, like = null }) {
  return { key, file, like, marks: new Map(), exported: true, size: [] };
}

/** Shows the answers to a query within the filters `chosen`; searches unless they are already shown. */
export async function showAnswers(query, chosen) {
  const shown = JSON.stringify([query.key, chosen]);
  if (shown === state.shown) return;
  const other = query !== state.query;
  Object.assign(state, { query, chosen, shown });
  if (other) {
    state.taken = false;
    clearPreview();
    if (query.file) preview(query);
    $("choose").textContent = "Choose another photo";
    $("query").classList.add("chosen");
    $("search").disabled = false;
  }
  await search();
  if (!other) return;
  reveal();
  // Fetched only after the answers, which matter more.
  if (query.like !== null) await preview(query);
}

/** Removes the query and its answers from the page. */
export function clearAnswers() {
  state.stop?.abort();
  Object.assign(state, { query: null, shown: "", found: null });
  forget();
  $("status").classList.remove("busy");
  clearPreview();
  $("query").classList.remove("chosen");
  $("choose").textContent = "Choose a photo";
  $("error").hidden = true;
}

/** Removes a photo that is no longer in the library from the answers. */
export function dropAnswer(id) {
  results.drop(id);
}

export function fail(error) {
  $("error").textContent = error.message;
  $("error").hidden = false;
}

/** Shows the query's picture if the browser can display it and its file still exists; the search does not depend on it. */
async function preview(query) {
  try {
    const [address, { name, width, height }] = query.file ? [URL.createObjectURL(query.file), { name: "Your photo" }]
      : await Promise.all([picture(`api/photos/${query.like}/image`), json(`api/photos/${query.like}`)]);
    if (query !== state.query) return;
    query.size = [width, height];
    $("photo").src = address;
    $("photo").alt = name;
    await $("photo").decode();
    if (query === state.query) $("preview").hidden = false;
  } catch {
    // Without a picture there is nothing to draw a box on.
  }
}

function clearPreview() {
  URL.revokeObjectURL($("photo").src);
  $("preview").hidden = true;
  box.set(null);
}

/** Scrolls to the first answer, and moves the keyboard focus there if its element has left the page. */
function reveal() {
  if (document.activeElement === document.body) $("found").focus({ preventScroll: true });
  const wide = matchMedia("(min-width: 56rem)").matches;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  if (wide ? $("found").getBoundingClientRect().top < 0 : state.taken) {
    $("found").scrollIntoView({ block: "start", behavior: still || wide ? "auto" : "smooth" });
  }
}

/** Runs a request with a status line; shows its error. A newer call aborts it. `work(signal)` returns the final status. */
async function busy(words, work, failed = () => {}) {
  state.stop?.abort();
  const stop = (state.stop = new AbortController());
  $("error").hidden = true;
  $("status").textContent = words;
  $("status").classList.add("busy");
  try {
    const told = await work(stop.signal);
    if (!stop.signal.aborted) $("status").textContent = told;
  } catch (error) {
    if (stop.signal.aborted) return;
    $("status").textContent = "";
    failed();
    fail(error);
  } finally {
    if (state.stop === stop) {
      $("status").classList.remove("busy");
      stale(false);
    }
  }
}

/** Dims the answers to the previous query, which cannot be marked, until the new ones arrive. */
function stale(is) {
  $("results").inert = is;
  $("results").setAttribute("aria-busy", String(is));
}

function forget() {
  results.start([], new Map());
  state.found = null;
  showMarks();
  stale(false);
}

/** The query as form fields of the API. */
function fields() {
  const { file, like, size } = state.query;
  return { ...(file ? { photo: file } : { like }), box: box.text(...size) };
}

function limits() {
  return {
    where: state.chosen.filter(([key]) => key === "where").map(([, value]) => value),
    folder: state.chosen.find(([key]) => key === "folder")?.[1] ?? "",
  };
}

export function search() {
  const { query } = state;
  if (!query) return;
  stale(true);
  return busy("Searching…", async (signal) => {
    const most = (await about()).max_upload_bytes;
    if (query.file?.size > most) {
      throw new Error(`${query.file.name} has ${(query.file.size / 1e6).toFixed(1)} MB; the limit is ${most / 1e6} MB. Choose a smaller photo.`);
    }
    const asked = { ...fields(), ...limits(), top: $("top").value, verify: $("verify").checked };
    const found = await json("api/search", { ...form(asked), signal }).catch(refused);
    Object.assign(state, { found, taken: true });
    results.start(found.answers, query.marks);
    showMarks();
    if (query.marks.size) return ordered(signal);
    const { length } = found.answers;
    if (!length) return state.chosen.length ? "No photo matches these filters." : "There is no other photo in the library.";
    const part = box.box ? " for this part of the photo" : "";
    const approximate = found.exact ? "" : ", approximate (by index)";
    return `${count(length, "answer")}${part}, most similar first${approximate}, in ${found.seconds.toFixed(2)} s.`;
  }, forget);
}

/** Disables the search for a photo that the server has refused. */
function refused(error) {
  if (state.taken || !state.query.file || ![400, 413].includes(error.status)) throw error;
  $("search").disabled = true;
  $("preview").hidden = true;
  throw new Error(`Cannot search for ${state.query.file.name}: ${error.message}. Choose another photo.`);
}

function rerank() {
  state.query.exported = false;
  showMarks();
  return busy("Re-ranking…", ordered);
}

async function ordered(signal) {
  const [right, wrong] = [results.marked("right"), results.marked("wrong")];
  const marked = right.length + wrong.length;
  if (!marked) {
    results.show(state.found.answers);
    return "No marks: original order.";
  }
  const { where, folder } = limits();
  const body = JSON.stringify({
    descriptor: state.found.descriptor, right, wrong, top: Number($("top").value),
    where: Object.fromEntries(where.map(split)), folder, like: state.query.like,
  });
  const options = { method: "POST", body, headers: { "Content-Type": "application/json" }, signal };
  const inliers = new Map(state.found.answers.map((answer) => [answer.id, answer.inliers]));
  const { answers } = await json("api/rerank", options);
  results.show(answers.map((answer) => ({ ...answer, inliers: inliers.get(answer.id) ?? null })));
  const verified = $("verify").checked ? ", without geometric verification" : "";
  return `Re-ranked by ${count(marked, "mark")}${verified}: right answers first, wrong ones last. Cosines are with the adjusted query.`;
}

function showMarks() {
  const [right, wrong] = ["right", "wrong"].map((mark) => results.marked(mark).length);
  $("marks").hidden = !(right + wrong);
  $("marked").textContent = `${right} right, ${wrong} wrong.`;
}

function exported(event) {
  event.preventDefault();
  const name = $("name").value.trim();
  if (!name) {
    fail(new Error("Enter what the photos show. It becomes the name of the folder."));
    $("name").focus();
    return;
  }
  const { query } = state;
  return busy("Packing…", async (signal) => {
    const { box: _, ...asked } = fields();
    const marks = { right: results.marked("right"), wrong: results.marked("wrong") };
    const packed = await call("api/marks/export", { ...form({ name, ...asked, ...marks }), signal });
    const file = fileName(packed);
    save(await packed.blob(), file);
    query.exported = true;
    return `Downloaded ${file}. To train, unpack several into one folder: one subfolder per landmark, at least five photos each.`;
  });
}

/** The query as form fields of the API, and the URL of its picture, cropped to the box. */
async function asked() {
  const query = fields();
  if (!box.box) return { query, address: $("preview").hidden ? null : $("photo").src };
  const [x1, y1, x2, y2] = box.box;
  const canvas = element("canvas", { width: x2 - x1, height: y2 - y1 });
  canvas.getContext("2d").drawImage($("photo"), -x1, -y1);
  const part = await new Promise((made) => canvas.toBlob(made, "image/jpeg", 0.9));
  return { query, address: URL.createObjectURL(part) };
}

$("query").addEventListener("submit", async (event) => {
  event.preventDefault();
  await search();
  reveal();
});
$("whole").addEventListener("click", () => {
  box.set(null);
  search();
});
for (const id of ["verify", "top"]) $(id).addEventListener("change", search);
$("marks").addEventListener("submit", exported);
$("unmark").addEventListener("click", () => results.clearMarks());
