// A search: a photo and a box of it in, answers out, marks that order them anew.

import { call, fileName, form, json, picture } from "./api.js";
import { BoxDrawing } from "./box.js";
import { openAnswers } from "./detail.js";
import { $, element } from "./dom.js";
import { about } from "./library.js";
import { Results } from "./results.js";

// `shown` is what the answers are to: the query, and the filters as pairs; `taken` whether the server took it once.
const state = { query: null, chosen: [], shown: "", taken: false, found: null, stop: null };
const box = new BoxDrawing(search);
const results = new Results((place) => openAnswers(results.answers, place, asked), rerank);

/** What is searched for: a file, or a photo of the library by its number, `like`; its marks stay with it. */
export function newQuery(key, { file = null, like = null }) {
  return { key, file, like, marks: new Map(), exported: true, size: [] };
}

/** Shows the answers to a query within filters, searching unless they are there already. */
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
  // The answers come first.
  if (query.like !== null) await preview(query);
}

/** Shows no answers. */
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

/** Leaves a photo out that is no longer in the library. */
export function dropAnswer(id) {
  results.drop(id);
}

export function fail(error) {
  $("error").textContent = error.message;
  $("error").hidden = false;
}

/** The query's picture. Formats that the browser cannot show, and photos that are gone, are searched for all the same. */
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
    // There is nothing to draw a box on.
  }
}

function clearPreview() {
  URL.revokeObjectURL($("photo").src);
  $("preview").hidden = true;
  box.set(null);
}

/** Who has chosen a photo sees the answers from the first on; so does the keyboard, where its card is gone. */
function reveal() {
  if (document.activeElement === document.body) $("found").focus({ preventScroll: true });
  const wide = matchMedia("(min-width: 56rem)").matches;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  if (wide ? $("found").getBoundingClientRect().top < 0 : state.taken) {
    $("found").scrollIntoView({ block: "start", behavior: still || wide ? "auto" : "smooth" });
  }
}

/** Runs what takes a while: says so, shows what went wrong, and has only the last one count. */
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

/** Answers that are of another query until the new ones come are dimmed, and cannot be marked. */
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

/** The query as the API's forms take it. */
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
      throw new Error(`${query.file.name} has ${(query.file.size / 1e6).toFixed(1)} MB, more than ${most / 1e6}: choose a smaller photo`);
    }
    const asked = { ...fields(), ...limits(), top: $("top").value, verify: $("verify").checked };
    const found = await json("api/search", { ...form(asked), signal }).catch(refused);
    Object.assign(state, { found, taken: true });
    results.start(found.answers, query.marks);
    showMarks();
    if (query.marks.size) return ordered(signal);
    const count = found.answers.length;
    if (!count) return state.chosen.length ? "No photo passes these filters." : "There is no other photo in the library.";
    const part = box.box ? " to this part of the photo" : "";
    const among = found.exact ? "" : ", among those that an index proposed";
    return `${count} ${count === 1 ? "answer" : "answers"}${part}, most alike first${among}, in ${found.seconds.toFixed(2)} s.`;
  }, forget);
}

/** What the server does not take at first is not asked for again. */
function refused(error) {
  if (state.taken || !state.query.file || ![400, 413].includes(error.status)) throw error;
  $("search").disabled = true;
  $("preview").hidden = true;
  throw new Error(`${state.query.file.name} cannot be searched for: ${error.message}. Choose another photo.`);
}

function rerank() {
  state.query.exported = false;
  showMarks();
  return busy("Ordering anew…", ordered);
}

async function ordered(signal) {
  const [right, wrong] = [results.marked("right"), results.marked("wrong")];
  const marked = right.length + wrong.length;
  if (!marked) {
    results.show(state.found.answers);
    return "The first order again.";
  }
  const { where, folder } = limits();
  const pairs = where.map((pair) => [pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1)]);
  const body = JSON.stringify({
    descriptor: state.found.descriptor, right, wrong, top: Number($("top").value), where: Object.fromEntries(pairs), folder,
    like: state.query.like,
  });
  const options = { method: "POST", body, headers: { "Content-Type": "application/json" }, signal };
  const inliers = new Map(state.found.answers.map((answer) => [answer.id, answer.inliers]));
  const { answers } = await json("api/rerank", options);
  results.show(answers.map((answer) => ({ ...answer, inliers: inliers.get(answer.id) ?? null })));
  const details = $("verify").checked ? "; details do not count in this order" : "";
  return `Ordered anew by ${marked} ${marked === 1 ? "mark" : "marks"}, right ones first, wrong ones last: `
    + `cosines are to the query as the marks moved it${details}.`;
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
    fail(new Error("Say what the photos show: it becomes the folder's name."));
    $("name").focus();
    return;
  }
  const { query } = state;
  return busy("Packing…", async (signal) => {
    const { box: _, ...asked } = fields();
    const marks = { right: results.marked("right"), wrong: results.marked("wrong") };
    const packed = await call("api/marks/export", { ...form({ name, ...asked, ...marks }), signal });
    const address = URL.createObjectURL(await packed.blob());
    const file = fileName(packed);
    element("a", { href: address, download: file }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
    query.exported = true;
    return `${file} is downloaded: unpack several into one folder, one sub-folder a landmark, five photos or more each.`;
  });
}

/** The query as the API's forms take it, and an address of the part that is searched for. */
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
