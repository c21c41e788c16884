// The view of photos: a photo and a box in, answers out, marks that order them anew.

import { call, fileName, form, json } from "./api.js";
import { BoxDrawing } from "./box.js";
import { openAnswers } from "./detail.js";
import { $, element } from "./dom.js";
import { about } from "./library.js";
import { Results } from "./results.js";

const state = { photo: null, about: null, found: null, known: false, stop: null };
const box = new BoxDrawing(search);
const results = new Results((place) => openAnswers(results.answers, place, asked), rerank);

let started;

/** See views.js. With `like`, the number of a photo, those like it are searched for. */
export async function show(parameters) {
  await (started ??= start());
  const like = parameters.get("like");
  if (like !== null) {
    const { name } = await json(`api/photos/${like}`);
    const data = await (await call(`api/photos/${like}/image`)).blob();
    await take(new File([data], name.split("/").pop(), { type: data.type }));
  }
}

async function start() {
  state.about = await about();
  $("filters").replaceChildren(...state.about.columns.map(filter));
}

function filter({ name, values }) {
  const options = (values ?? []).map((value) => element("option", { value }, value || "(empty)"));
  const any = element("option", { value: "" }, "any");
  const field = values ? element("select", {}, any, ...options) : element("input", { placeholder: "any" });
  field.dataset.column = name;
  field.addEventListener("change", search);
  return element("label", { className: "field" }, name, field);
}

function filters() {
  const fields = [...$("filters").querySelectorAll("[data-column]")];
  return fields.filter((field) => field.value !== "").map((field) => [field.dataset.column, field.value]);
}

async function take(file) {
  if (!file) return;
  const most = state.about?.max_upload_bytes ?? Infinity;
  if (file.size > most) {
    fail(new Error(`${file.name} has ${(file.size / 1e6).toFixed(1)} MB, more than ${most / 1e6}: choose a smaller photo`));
    return;
  }
  state.photo = file;
  URL.revokeObjectURL($("photo").src);
  $("photo").src = URL.createObjectURL(file);
  // Formats that the browser cannot show are searched for all the same.
  const shown = await $("photo").decode().then(() => true, () => false);
  $("preview").hidden = !shown;
  $("query").classList.add("chosen");
  $("choose").textContent = "Choose another photo";
  $("search").disabled = state.known = false;
  box.set(null);
  await search();
  reveal();
}

/** On a phone the answers are below. */
function reveal() {
  if (!state.known || matchMedia("(min-width: 56rem)").matches) return;
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  $("found").scrollIntoView({ block: "start", behavior: still ? "auto" : "smooth" });
}

/** Runs what takes a while: says so, shows what went wrong, and has only the last one count. */
async function busy(words, work) {
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
    fail(error);
  } finally {
    if (state.stop === stop) $("status").classList.remove("busy");
  }
}

function search() {
  if (!state.photo) return;
  return busy("Searching…", async (signal) => {
    const where = filters().map((pair) => pair.join("="));
    const fields = { photo: state.photo, box: box.text, top: $("top").value, verify: $("verify").checked, where };
    const found = await json("api/search", { ...form(fields), signal }).catch(refused);
    state.found = found;
    state.known = true;
    results.start(found.answers);
    showMarks();
    const count = found.answers.length;
    const part = box.box ? " to this part of the photo" : "";
    if (!count) return "No photo passes these filters.";
    const among = found.exact ? "" : ", among those that an index proposed";
    const what = `${count} ${count === 1 ? "answer" : "answers"}${part}, most alike first${among}`;
    return `${what}, in ${found.seconds.toFixed(2)} s.`;
  });
}

/** What the server does not take at first is not asked for again. */
function refused(error) {
  if (state.known || ![400, 413].includes(error.status)) throw error;
  $("search").disabled = true;
  $("preview").hidden = true;
  const { name } = state.photo;
  state.photo = null;
  throw new Error(`${name} cannot be searched for: ${error.message}. Choose another photo.`);
}

function rerank() {
  showMarks();
  const [right, wrong] = [results.marked("right"), results.marked("wrong")];
  const marked = right.length + wrong.length;
  return busy("Ordering anew…", async (signal) => {
    if (!marked) {
      results.show(state.found.answers);
      return "The first order again.";
    }
    const body = JSON.stringify({
      descriptor: state.found.descriptor, right, wrong, top: Number($("top").value), where: Object.fromEntries(filters()),
    });
    const options = { method: "POST", body, headers: { "Content-Type": "application/json" }, signal };
    const inliers = new Map(state.found.answers.map((answer) => [answer.id, answer.inliers]));
    const { answers } = await json("api/rerank", options);
    results.show(answers.map((answer) => ({ ...answer, inliers: inliers.get(answer.id) ?? null })));
    const details = $("verify").checked ? "; details do not count in this order" : "";
    return `Ordered anew by ${marked} ${marked === 1 ? "mark" : "marks"}, right ones first, wrong ones last: `
      + `cosines are to the query as the marks moved it${details}.`;
  });
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
  return busy("Packing…", async (signal) => {
    const fields = { name, photo: state.photo, right: results.marked("right"), wrong: results.marked("wrong") };
    const packed = await call("api/marks/export", { ...form(fields), signal });
    const address = URL.createObjectURL(await packed.blob());
    const file = fileName(packed);
    element("a", { href: address, download: file }).click();
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
    return `${file} is downloaded: unpack several into one folder, one sub-folder a landmark, five photos or more each.`;
  });
}

/** The query as the server sees it, and an address of the part that is searched for. */
async function asked() {
  const query = { photo: state.photo, box: box.text };
  if (!box.box) return { ...query, address: $("photo").src };
  const [x1, y1, x2, y2] = box.box;
  const canvas = element("canvas", { width: x2 - x1, height: y2 - y1 });
  canvas.getContext("2d").drawImage($("photo"), -x1, -y1);
  const part = await new Promise((made) => canvas.toBlob(made, "image/jpeg", 0.9));
  return { ...query, address: URL.createObjectURL(part) };
}

function fail(error) {
  $("error").textContent = error.message;
  $("error").hidden = false;
}

$("file").addEventListener("change", () => {
  take($("file").files[0]);
  // So that the same file can be chosen again.
  $("file").value = "";
});
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
document.addEventListener("paste", (event) => take(event.clipboardData.files[0]));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});
document.addEventListener("dragleave", (event) => event.relatedTarget || $("drop").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  take(event.dataTransfer.files[0]);
});
// From here on what is chosen is heard of.
$("file").disabled = false;
