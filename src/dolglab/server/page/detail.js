// One answer beside the query: matches, attention, what the cosine consists of, what the catalogue says.

import { form, json, picture } from "./api.js";
import { $, element } from "./dom.js";
import { searchLike } from "./views.js";

const TERMS = [["global", "global with global"], ["local", "local with local"], ["cross", "global with local"], ["bias", "with the bias"]];

const dialog = $("detail");
let shown = { photos: [], place: 0, query: null };
let stop;

/** Shows answers, beginning with one of them, beside the query: `query()` gives its photo, box and an address of its picture. */
export function openAnswers(answers, place, query) {
  shown = { photos: answers, place, query };
  dialog.showModal();
  show(place);
}

/** Shows a photo of the library by its number, of some that can be gone through. */
export async function openPhoto(id, among = [id]) {
  const photos = await Promise.all(among.map((one) => json(`api/photos/${one}`)));
  openAnswers(photos, among.indexOf(id), null);
}

async function show(place) {
  stop?.abort();
  stop = new AbortController();
  const { signal } = stop;
  const { photos, query } = shown;
  const photo = photos[place];
  shown.place = place;
  $("previous").disabled = place === 0;
  $("next").disabled = place === photos.length - 1;
  $("title").textContent = photo.name;
  const status = element("p", { role: "status", className: "status busy" }, query ? "Comparing the two…" : "");
  const pictures = element("div", { className: query ? "pair" : "" });
  $("body").replaceChildren(pictures, status, more(photo), facts(photo));
  dialog.scrollTop = 0;
  try {
    const theirs = picture(image(photo));
    if (!query) {
      pictures.append(figure("The photo", await theirs));
      status.remove();
      return;
    }
    const { photo: file, box, address } = await query();
    pictures.append(figure("Your photo", address), figure("Answer", await theirs));
    const why = await json("api/explain", { ...form({ photo: file, box, id: photo.id }), signal });
    if (!signal.aborted) status.replaceWith(...explained(why));
  } catch (error) {
    if (signal.aborted) return;
    status.className = "alert";
    status.textContent = error.message;
  }
}

function more(photo) {
  const button = element("button", { type: "button" }, "More like this");
  button.onclick = () => {
    dialog.close();
    searchLike(photo.id);
  };
  return element("p", { className: "more" }, button);
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
  const count = `${inliers} of ${matches} matching local features (${features}) agree on one transformation`;
  const jpeg = (data) => `data:image/jpeg;base64,${data}`;
  return [
    element("h3", {}, "Matches"),
    element("p", { className: "soft" }, count),
    element("div", { className: "wide", tabIndex: 0, role: "group", "aria-label": "Matches, drawn" },
      element("img", { src: jpeg(drawn), alt: count })),
    element("h3", {}, "Where the network looks"),
    element("div", { className: "pair" },
      figure("In your photo", jpeg(attention[0])),
      figure("In the answer", jpeg(attention[1]))),
    element("h3", {}, "The cosine, term by term"),
    terms ? table(terms) : element("p", { className: "soft" }, "This network's descriptor is no sum of parts."),
  ];
}

function table(terms) {
  const rows = TERMS.map(([key, name]) => element("tr", {}, element("th", { scope: "row" }, name), element("td", {}, terms[key].toFixed(3))));
  return element("table", {}, element("tbody", {}, ...rows));
}

function facts(answer) {
  const pairs = [...("cosine" in answer ? [["Cosine", answer.cosine.toFixed(3)]] : []), ["Size", `${answer.width} × ${answer.height} pixels as described`],
    ...Object.entries(answer.metadata)];
  return element("section", { "aria-label": "The answer" }, element("h3", {}, "The answer"),
    element("dl", {}, ...pairs.flatMap(([key, value]) => [element("dt", {}, key), element("dd", {}, value)])));
}
