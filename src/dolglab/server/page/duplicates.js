// The view "Duplicates": groups of near-duplicates, which photos to keep, and a list of the others. It deletes nothing.

import { call, fileName, json } from "./api.js";
import { moreLike } from "./cards.js";
import { openPhoto } from "./detail.js";
import { $, element, save } from "./dom.js";
import { about } from "./library.js";
import { Thumbnails } from "./thumbnails.js";
import { go } from "./views.js";
import { count } from "./words.js";

const PAGE = 20;
// Milliseconds between requests for the progress of a search.
const PATIENCE = 400;
// An outdated search that took fewer seconds is repeated automatically.
const QUICK = 5;
const KEY = "duplicates";

const view = { least: 0.98, page: 1, stop: null };
const choices = recalled();
const thumbnails = new Thumbnails();

/** See views.js. Parameters: `least`, the minimum cosine of near-duplicates, and `page`, from 1. */
export async function show(parameters) {
  view.least = Number(parameters.get("least")) || 0.98;
  view.page = Math.max(1, Number.parseInt(parameters.get("page"), 10) || 1);
  $("least").value = view.least.toFixed(2);
  const { read_only: readOnly } = await about();
  $("rest").hidden = readOnly;
  $("told").hidden = !readOnly;
  await look();
}

/** See views.js. */
export function hide() {
  view.stop?.abort();
}

/** Fetches and shows the groups of this page; with `again`, repeats the search if the library has changed. */
async function look(again = false) {
  view.stop?.abort();
  const { signal } = (view.stop = new AbortController());
  $("clusters").setAttribute("aria-busy", "true");
  $("outdated").hidden = $("failure").hidden = true;
  try {
    const found = await ask(again, signal);
    if (signal.aborted) return;
    // A quick search is repeated without asking.
    if (found.outdated && !again && found.seconds < QUICK) return look(true);
    draw(found);
  } catch (error) {
    if (signal.aborted) return;
    say("");
    fail(error);
  }
}

async function ask(again, signal) {
  for (let first = true; ; first = false) {
    const query = new URLSearchParams({ least: view.least, limit: PAGE, offset: PAGE * (view.page - 1), again: again && first });
    const found = await json(`api/duplicates?${query}`, { signal });
    if (found.state === "found") return found;
    say(`Comparing photos: ${Math.floor(100 * found.share)} %…`, true);
    await new Promise((done) => setTimeout(done, PATIENCE));
    signal.throwIfAborted();
  }
}

function draw(found) {
  thumbnails.clear();
  const { total, photos, compared, outdated } = found;
  const pages = Math.max(1, Math.ceil(total / PAGE));
  if (view.page > pages) return go("duplicates", { least: view.least, page: pages });
  const cells = found.in_cells ? ", each within a cell of the index" : "";
  const none = compared < 2 ? `Nothing to compare: the library has ${count(compared)}.` : "No near-duplicates at this cosine.";
  say(total ? `${count(total, "group")} with ${count(photos)}, out of ${count(compared)} compared${cells}.` : none);
  $("outdated").hidden = !outdated;
  $("clusters").removeAttribute("aria-busy");
  $("clusters").replaceChildren(...found.clusters.map(group));
  $("pages").hidden = pages < 2;
  $("page").textContent = `Page ${view.page} of ${pages}`;
  $("earlier").disabled = view.page <= 1;
  $("later").disabled = view.page >= pages;
  for (const button of document.querySelectorAll("#rest button")) button.disabled = !total;
  showChoices();
}

function group(cluster) {
  const { number, size, photos } = cluster;
  const note = element("p", { className: "soft" });
  const cards = element("ol", { className: "results" });
  const drawn = photos.map((photo) => card(photo, photos, () => mark()));
  function mark() {
    const kept = keptOf(photos);
    for (const { photo, item, box } of drawn) {
      box.checked = kept.has(photo.id);
      item.classList.toggle("rest", photo.there && !kept.has(photo.id));
    }
    const others = photos.filter((photo) => photo.there && !kept.has(photo.id));
    const unlisted = size - photos.length;
    const more = unlisted ? ` ${count(unlisted, "more photo")} not shown: a higher cosine gives smaller groups.` : "";
    note.textContent = others.length
      ? `${count(others.length)} not kept, ${bytes(others.reduce((sum, photo) => sum + photo.bytes, 0))}.${more}`
      : `All kept.${more}`;
  }
  mark();
  cards.append(...drawn.map(({ item }) => item));
  return element("li", { className: "cluster" },
    element("h2", {}, `Group ${number}: ${count(size)}`), note, cards);
}

function card(photo, among, changed) {
  const shot = element("button", { type: "button", className: "shot", "aria-label": `Open ${photo.name}` });
  shot.onclick = () => openPhoto(photo.id, among.map(({ id }) => id)).catch(fail);
  shot.append(photo.there ? thumbnails.image(photo) : "File missing");
  shot.disabled = !photo.there;
  const box = element("input", { type: "checkbox", disabled: !photo.there, "aria-label": `Keep ${photo.name}` });
  box.onchange = () => {
    choose(photo, box.checked);
    if (!keptOf(among, false).size) {
      choose(photo, true);
      say("At least one photo of each group is kept. Tick another one first.");
    }
    changed();
    showChoices();
  };
  const pixels = photo.file_width ? `${photo.file_width} × ${photo.file_height}` : "size unknown";
  const alike = photo.identical ? "identical file" : photo === among[0] ? "" : `cosine ${photo.cosine.toFixed(3)}`
    + (photo.cosine < view.least - 1e-4 ? ", similar only to others in the group" : "");
  const item = element("li", { className: "card" }, shot, element("div", { className: "facts" },
    element("p", { className: "file", title: photo.name }, photo.name),
    element("p", { className: "sizes" }, element("span", {}, pixels), element("span", {}, bytes(photo.bytes))),
    element("p", { className: "soft" }, alike),
    element("label", { className: "check" }, box, element("span", {}, "Keep")), moreLike(photo)));
  return { photo, item, box };
}

/** Ids of the photos of a group to keep: those of the API, changed by the user's choices; with `always`, at least one. */
function keptOf(photos, always = true) {
  const there = photos.filter((photo) => photo.there);
  const kept = there.filter(({ id, keep }) => (keep || choices.keep.has(id)) && !choices.drop.has(id));
  return new Set((kept.length || !always ? kept : there.slice(0, 1)).map(({ id }) => id));
}

function choose({ id, keep }, kept) {
  choices.keep.delete(id);
  choices.drop.delete(id);
  if (kept && !keep) choices.keep.add(id);
  if (!kept && keep) choices.drop.add(id);
  sessionStorage.setItem(KEY, JSON.stringify({ keep: [...choices.keep], drop: [...choices.drop] }));
}

function recalled() {
  const { keep, drop } = JSON.parse(sessionStorage.getItem(KEY) ?? '{"keep": [], "drop": []}');
  return { keep: new Set(keep), drop: new Set(drop) };
}

function showChoices() {
  const chosen = choices.keep.size + choices.drop.size;
  $("unchoose").hidden = !chosen;
  $("unchoose").textContent = `Undo ${count(chosen, "choice")}`;
}

async function download(form) {
  const body = JSON.stringify({ least: view.least, form, keep: [...choices.keep], drop: [...choices.drop] });
  try {
    const options = { method: "POST", body, headers: { "Content-Type": "application/json" } };
    const answer = await call("api/duplicates/rest", options);
    const file = await answer.blob();
    const lines = (await file.text()).split("\n").length - 1 - (form === "csv" ? 1 : 0);
    save(file, fileName(answer));
    say(`Downloaded ${fileName(answer)}: ${count(lines)} not kept. Nothing was deleted.`);
  } catch (error) {
    fail(error);
  }
}

function say(words, busy = false) {
  $("compared").textContent = words;
  $("compared").classList.toggle("busy", busy);
}

function fail(error) {
  $("failure").textContent = error.message;
  $("failure").hidden = false;
}

function bytes(number) {
  return number < 1e6 ? `${Math.max(1, Math.round(number / 1e3))} kB` : `${(number / 1e6).toFixed(1)} MB`;
}

$("least").addEventListener("change", () => go("duplicates", { least: $("least").value }));
$("earlier").addEventListener("click", () => go("duplicates", { least: view.least, page: view.page - 1 }));
$("later").addEventListener("click", () => go("duplicates", { least: view.least, page: view.page + 1 }));
$("again").addEventListener("click", () => look(true));
$("unchoose").addEventListener("click", () => {
  choices.keep.clear();
  choices.drop.clear();
  sessionStorage.removeItem(KEY);
  look();
});
for (const form of ["txt", "csv"]) $(`rest-${form}`).addEventListener("click", () => download(form));
