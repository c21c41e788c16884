// A search: the query photo with an optional box, its answers, and re-ranking by marks.

import { call, fileName, form, json } from "./api.js";
import { busy, fail, stale, stop } from "./busy.js";
import { openAnswers } from "./detail.js";
import { $, save } from "./dom.js";
import { split } from "./filters.js";
import { about } from "./library.js";
import { Preview } from "./preview.js";
import { Results } from "./results.js";
import { amend } from "./views.js";
import { count } from "./words.js";

// `part` is the box that is searched for, as text, and `drawn` whether the preview has it; `shown` identifies the query, filters
// and box of the answers on the page; `taken`: the server has accepted the query photo; `found` is null while a search runs;
// `enter` prepares the page for a new query, and is null once it was called.
const state = { query: null, chosen: [], part: "", drawn: false, shown: "", taken: false, found: null, enter: null };
const preview = new Preview(again);
const results = new Results((place) => openAnswers(results.answers, place, asked), rerank);

/** A query with its own marks: a file, or the id `like` of a photo of the library, whose name and size are fetched later. */
export function newQuery(key, { file = null, like = null }) {
  return { key, file, like, marks: new Map(), exported: true, name: file && "Your photo", size: [0, 0] };
}

/**
 * Shows the answers to a query, or to its box `part`, within the filters `chosen`; searches unless they are already shown.
 * Calls `enter()` when they replace what the page shows: for a file at once, for a photo of the library when the answers
 * arrive or take long.
 */
export async function showAnswers(query, chosen, part, enter) {
  const shown = identity(query, chosen, part);
  if (shown === state.shown) return;
  const other = query !== state.query;
  Object.assign(state, { query, chosen, part, drawn: false, shown });
  if (!other) return search();
  Object.assign(state, { taken: false, enter });
  if (preview.part) preview.box.set(null);
  const searched = search();
  if (query.file) entered();
  await searched;
  reveal();
  // Fetched only after the answers, which matter more.
  if (query.like !== null) preview.show(query, () => query === state.query);
}

const identity = (query, chosen, part) => JSON.stringify([query.key, chosen, part]);

/** Prepares the page for the answers to a new query. */
function entered() {
  if (!state.enter) return;
  state.enter();
  state.enter = null;
  const { query } = state;
  preview.clear();
  if (query.file) preview.show(query, () => query === state.query);
  $("choose").textContent = "Choose another photo";
  $("query").classList.add("chosen");
  $("search").disabled = false;
}

/** Removes the query and its answers from the page. */
export function clearAnswers() {
  stop();
  Object.assign(state, { query: null, shown: "", found: null, enter: null });
  forget();
  preview.clear();
  $("query").classList.remove("chosen");
  $("choose").textContent = "Choose a photo";
  $("error").hidden = true;
}

/** Removes a photo that is no longer in the library from the answers. */
export function dropAnswer(id) {
  results.drop(id);
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

function forget() {
  results.start([], new Map());
  showMarks();
}

/** The query as form fields of the API. */
function fields() {
  const { file, like } = state.query;
  return { ...(file ? { photo: file } : { like }), box: state.part };
}

function limits() {
  return {
    where: state.chosen.filter(([key]) => key === "where").map(([, value]) => value),
    folder: state.chosen.find(([key]) => key === "folder")?.[1] ?? "",
  };
}

/** Searches again, for the box as the user has drawn it, which becomes part of the URL. */
function again() {
  if (!state.query) return;
  if (state.drawn) keep(preview.part);
  return search();
}

function keep(part) {
  Object.assign(state, { part, shown: identity(state.query, state.chosen, part) });
  amend("box", part);
}

function search() {
  const { query } = state;
  const waiting = () => {
    entered();
    stale(true);
  };
  const failed = () => {
    entered();
    forget();
  };
  state.found = null;
  return busy("Searching…", async (signal) => {
    if (query.file) await checkSize(query.file);
    if (state.part !== preview.part) await restored(signal);
    state.drawn = true;
    const asked = { ...fields(), ...limits(), top: $("top").value, verify: $("verify").checked };
    const sent = json("api/search", { ...form(asked), signal });
    // Pictures still on their way belong to photos that are about to be replaced.
    results.stopPictures();
    const found = await sent.catch(refused);
    entered();
    Object.assign(state, { found, taken: true });
    results.start(found.answers, query.marks);
    showMarks();
    if (query.marks.size) return ordered(signal);
    const { length } = found.answers;
    if (!length) return state.chosen.length ? "No photo matches these filters." : "There is no other photo in the library.";
    const part = state.part ? " for this part of the photo" : "";
    const approximate = found.exact ? "" : ", approximate (by index)";
    return `${count(length, "answer")}${part}, most similar first${approximate}, in ${found.seconds.toFixed(2)} s.`;
  }, { waiting, failed });
}

/** Draws the box of the URL; drops it there if it is not within the photo. */
async function restored(signal) {
  await preview.restore(state.query, state.part);
  signal.throwIfAborted();
  if (state.part !== preview.part) keep(preview.part);
}

/** Throws an Error for a file that the server would refuse, and cut off, because of its size. */
async function checkSize({ name, size }) {
  const { max_upload_bytes: most } = await about();
  if (size > most) throw new Error(`${name} has ${(size / 1e6).toFixed(1)} MB; the limit is ${most / 1e6} MB. Choose a smaller photo.`);
}

/** Disables the search for a photo that the server has refused. */
function refused(error) {
  if (state.taken || !state.query.file || ![400, 413].includes(error.status)) throw error;
  $("search").disabled = true;
  preview.hide();
  throw new Error(`Cannot search for ${state.query.file.name}: ${error.message}. Choose another photo.`);
}

function rerank() {
  // The answers that are on their way take the marks into account.
  if (!state.found) return;
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
  if (!state.found) return;
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
  return { query: fields(), address: await preview.crop(state.part) };
}

$("query").addEventListener("submit", async (event) => {
  event.preventDefault();
  await again();
  reveal();
});
$("whole").addEventListener("click", () => {
  preview.box.set(null);
  again();
});
for (const id of ["verify", "top"]) $(id).addEventListener("change", again);
$("marks").addEventListener("submit", exported);
$("unmark").addEventListener("click", () => results.clearMarks());
