// The dialog of a photo: alone, or as an answer beside the query with matches, attention, the terms of the cosine, and metadata.

import { removed } from "./adding.js";
import { form, json, picture } from "./api.js";
import { $, element } from "./dom.js";
import { about } from "./library.js";
import { searchLike } from "./views.js";

const TERMS = [["global", "global with global"], ["local", "local with local"], ["cross", "global with local"], ["bias", "with the bias"]];

const dialog = $("detail");
let shown = { photos: [], place: 0, query: null };
let stop;

/**
 * Opens the answer at index `place` beside the query. `query()` resolves to {query, address}: the query as form fields of
 * the API, and the URL of its picture.
 */
export function openAnswers(answers, place, query) {
  shown = { photos: answers, place, query };
  dialog.showModal();
  show(place);
}

/** Opens a photo of the library by its id; Previous and Next step through the ids `among`. */
export function openPhoto(id, among = [id]) {
  openAnswers(among.map((one) => ({ id: one })), among.indexOf(id), null);
}

async function show(place) {
  stop?.abort();
  stop = new AbortController();
  const { signal } = stop;
  const { photos, query } = shown;
  shown.place = place;
  $("previous").disabled = place === 0;
  $("next").disabled = place === photos.length - 1;
  const status = element("p", { role: "status", className: "status busy" }, query ? "Comparing the two…" : "Opening…");
  $("title").textContent = photos[place].name ?? "";
  $("body").replaceChildren(status);
  dialog.scrollTop = 0;
  try {
    const theirs = picture(image(photos[place]), { signal });
    // It is awaited later; if something else fails first, its own failure is not reported as unhandled.
    theirs.catch(() => {});
    const photo = photos[place].name ? photos[place] : await json(`api/photos/${photos[place].id}`, { signal });
    const { read_only } = await about();
    if (signal.aborted) return;
    $("title").textContent = photo.name;
    const pictures = element("div", { className: query ? "pair" : "alone" });
    $("body").replaceChildren(pictures, status, actions(photo, read_only), facts(photo, query));
    await (query ? compare(photo, query, theirs, pictures, status, signal) : alone(photo, theirs, pictures, status));
  } catch (error) {
    if (signal.aborted) return;
    status.className = "alert";
    status.textContent = error.message;
  }
}

async function alone(photo, theirs, pictures, status) {
  pictures.append(element("img", { src: await theirs, alt: photo.name }));
  status.remove();
}

async function compare(photo, query, theirs, pictures, status, signal) {
  const { query: asked, address } = await query();
  if (address) pictures.append(figure("Query", address));
  pictures.append(figure("Answer", await theirs));
  // On a phone, the two photos are stacked.
  const stacked = matchMedia("(max-width: 30rem)").matches;
  const why = await json("api/explain", { ...form({ ...asked, id: photo.id, stacked }), signal });
  if (!signal.aborted) status.replaceWith(...explained(why));
}

function actions(photo, readOnly) {
  const more = element("button", { type: "button" }, "More like this");
  more.onclick = () => {
    dialog.close();
    searchLike(photo.id);
  };
  const out = element("button", { type: "button", hidden: readOnly }, "Remove from the library");
  out.onclick = async () => {
    const failed = $("body").querySelector(".alert") ?? element("p", { className: "alert", role: "alert" });
    failed.remove();
    try {
      if (await removed(photo)) dialog.close();
    } catch (error) {
      failed.textContent = error.message;
      $("body").prepend(failed);
    }
  };
  return element("p", { className: "actions" }, more, out);
}

$("close").onclick = () => dialog.close();
$("previous").onclick = () => show(shown.place - 1);
$("next").onclick = () => show(shown.place + 1);
dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
dialog.addEventListener("close", () => stop?.abort());

const image = (answer) => `api/photos/${answer.id}/image`;

function figure(caption, address) {
  return element("figure", {}, element("figcaption", {}, caption), element("img", { src: address, alt: caption }));
}

function explained({ matches, inliers, features, picture: drawn, attention, terms }) {
  const count = `${inliers} of ${matches} matching local features (${features}) are inliers of one transformation`;
  const jpeg = (data) => `data:image/jpeg;base64,${data}`;
  return [
    element("h3", {}, "Matches"),
    element("p", { className: "soft" }, count),
    element("div", { className: "wide", tabIndex: 0, role: "group", "aria-label": "Drawing of the matches" },
      element("img", { src: jpeg(drawn), alt: count })),
    element("h3", {}, "Where the network looks"),
    element("div", { className: "pair" },
      figure("In the query", jpeg(attention[0])),
      figure("In the answer", jpeg(attention[1]))),
    element("h3", {}, "The cosine, term by term"),
    terms ? table(terms) : element("p", { className: "soft" }, "Not available: this network's descriptor is not a sum of global and local parts."),
  ];
}

function table(terms) {
  const has = TERMS.filter(([key]) => terms[key] !== null);
  const rows = has.map(([key, name]) => element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, terms[key].toFixed(3))));
  return element("table", {}, element("tbody", {}, ...rows));
}

function facts(answer, query) {
  const title = query ? "The answer" : "The photo";
  const cosine = query ? [["Cosine", answer.cosine.toFixed(3)]] : [];
  const size = answer.width ? [["Size", `${answer.width} × ${answer.height} pixels when embedded`]] : [];
  const pairs = [...cosine, ...size, ...Object.entries(answer.metadata)];
  return element("section", { "aria-label": title }, element("h3", {}, title),
    element("dl", {}, ...pairs.flatMap(([key, value]) => [element("dt", {}, key), element("dd", {}, value)])));
}
