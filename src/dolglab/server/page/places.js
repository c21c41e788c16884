// The view "Places": an offline map, without tiles, of where photos were taken. A click or a box selects photos.

import { json } from "./api.js";
import { moreLike } from "./cards.js";
import { openPhoto } from "./detail.js";
import { $, element } from "./dom.js";
import { Projection, scaleBar, steps } from "./geography.js";
import { control } from "./gestures.js";
import { Thumbnails } from "./thumbnails.js";
import { go } from "./views.js";
import { count } from "./words.js";

// Maximum photos shown of a selection, and the reach of a click in pixels.
const SHOWN = 48;
const NEAR = 8;

const canvas = $("places-map");
const map = new Projection();
const state = { places: null, box: null, chosen: [], bounds: null };
const thumbnails = new Thumbnails();

/** See views.js. */
export async function show() {
  state.places = await json("api/places");
  $("places-none").hidden = state.places.ids.length > 0;
  $("places-shown").hidden = !state.places.ids.length;
  if (state.places.ids.length) whole();
}

function whole() {
  map.resize(...size());
  map.cover(state.places.latitudes, state.places.longitudes);
  select([], null);
}

function size() {
  const { clientWidth, clientHeight } = canvas;
  const ratio = devicePixelRatio || 1;
  [canvas.width, canvas.height] = [Math.round(clientWidth * ratio), Math.round(clientHeight * ratio)];
  canvas.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
  return [clientWidth, clientHeight];
}

function draw() {
  const { places } = state;
  const paint = canvas.getContext("2d");
  const [width, height] = size();
  map.resize(width, height);
  const style = getComputedStyle(canvas);
  const colour = (name) => style.getPropertyValue(name);
  paint.font = `12px ${style.fontFamily}`;
  graticule(paint, width, height, colour("--rule"), colour("--soft"));
  const chosen = new Set(state.chosen);
  // Selected photos are drawn last, on top of the others.
  for (const [wanted, ink, radius] of [[false, colour("--accent"), 3], [true, colour("--wrong"), 5]]) {
    paint.fillStyle = ink;
    paint.globalAlpha = wanted ? 1 : 0.6;
    for (let at = 0; at < places.ids.length; at++) {
      if (chosen.has(places.ids[at]) !== wanted) continue;
      const [x, y] = map.place(places.latitudes[at], places.longitudes[at]);
      if (x < -radius || y < -radius || x > width + radius || y > height + radius) continue;
      paint.fillRect(x - radius, y - radius, 2 * radius, 2 * radius);
    }
  }
  paint.globalAlpha = 1;
  bar(paint, width, height, colour("--ink"), colour("--raised"));
  if (state.box) {
    paint.strokeStyle = colour("--ink");
    paint.lineWidth = 2;
    paint.strokeRect(...state.box);
  }
}

function graticule(paint, width, height, line, ink) {
  paint.strokeStyle = line;
  paint.fillStyle = ink;
  paint.lineWidth = 1;
  paint.beginPath();
  for (const { value, label } of steps(map.west, map.east, "E", "W", width / 110)) {
    const [x] = map.place(0, value);
    paint.moveTo(x, 0);
    paint.lineTo(x, height);
    paint.fillText(label, x + 4, height - 6);
  }
  for (const { value, label } of steps(map.south, map.north, "N", "S", height / 90)) {
    const [, y] = map.place(value, 0);
    paint.moveTo(0, y);
    paint.lineTo(width, y);
    // A label above the edge of the canvas would be cut off.
    if (y > 16) paint.fillText(label, 4, y - 4);
  }
  paint.stroke();
}

function bar(paint, width, height, ink, ground) {
  const { pixels, label } = scaleBar(map.metres, width / 4);
  const [x, y] = [width - pixels - 16, 26];
  paint.fillStyle = ground;
  paint.fillRect(x - 8, 4, pixels + 16, 32);
  paint.fillStyle = ink;
  paint.fillText(label, x, y - 6);
  paint.fillRect(x, y, pixels, 3);
}

/** Selects photos and shows them; `bounds` is the selected area in degrees, null for no selection. */
function select(ids, bounds) {
  state.chosen = ids;
  state.bounds = bounds;
  const all = `${count(state.places.ids.length)} with a location`;
  $("places-said").textContent = bounds ? `${ids.length.toLocaleString("en")} of ${all} selected.` : `${all}.`;
  $("places-search").hidden = $("places-clear").hidden = !bounds;
  thumbnails.clear();
  $("places-photos").replaceChildren(...ids.slice(0, SHOWN).map(card));
  const more = ids.length - SHOWN;
  $("places-more").textContent = more > 0 ? `${count(more, "more photo")} selected: select a smaller area to see them.` : "";
  draw();
}

function selectBox([x, y, width, height]) {
  const { places } = state;
  const [north, west] = map.back(x, y);
  const [south, east] = map.back(x + width, y + height);
  const ids = places.ids.filter((_, at) => places.latitudes[at] >= south && places.latitudes[at] <= north
    && places.longitudes[at] >= west && places.longitudes[at] <= east);
  select(ids, { south, north, west, east });
}

function card(id) {
  const image = thumbnails.image({ id, name: "" });
  const shot = element("button", { type: "button", className: "shot", "aria-label": `Open photo ${id}` }, image);
  shot.onclick = () => openPhoto(id, state.chosen.slice(0, SHOWN));
  const file = element("p", { className: "file" });
  const taken = element("p", { className: "soft" });
  json(`api/photos/${id}`).then((photo) => {
    shot.setAttribute("aria-label", `Open ${photo.name}`);
    file.textContent = file.title = photo.name;
    taken.textContent = photo.metadata.taken?.replace("T", " ") ?? "";
  }, fail);
  return element("li", { className: "card" }, shot,
    element("div", { className: "facts" }, file, taken, moreLike({ id, name: `photo ${id}` })));
}

function fail(error) {
  $("places-said").textContent = error.message;
}

control(canvas, map, {
  moved: draw,
  chosen: (x, y) => selectBox([x - NEAR, y - NEAR, 2 * NEAR, 2 * NEAR]),
  drawn(box, done) {
    state.box = done ? null : box;
    if (done && box) selectBox(box);
    else draw();
  },
});
canvas.addEventListener("keydown", (event) => {
  if (event.key === "Enter") selectBox([0, 0, map.width, map.height]);
  else if (event.key === "Escape") select([], null);
  else return;
  event.preventDefault();
});
for (const [id, change] of [["places-in", () => map.zoomAt(1.5)], ["places-out", () => map.zoomAt(1 / 1.5)]]) {
  $(id).addEventListener("click", () => {
    change();
    draw();
  });
}
$("places-whole").addEventListener("click", whole);
$("places-clear").addEventListener("click", () => select([], null));
$("places-search").addEventListener("click", () => {
  const { south, north, west, east } = state.bounds;
  const range = (low, high) => `${low.toFixed(6)}..${high.toFixed(6)}`;
  const where = [`latitude=${range(south, north)}`, `longitude=${range(west, east)}`];
  go("photos", where.map((condition) => ["where", condition]));
});
new ResizeObserver(() => state.places && canvas.clientWidth && draw()).observe(canvas);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => state.places && draw());
