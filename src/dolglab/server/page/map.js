// The view "Map": photos as points, similar ones close together; as thumbnails when there is room for them.

import { json } from "./api.js";
import { openPhoto } from "./detail.js";
import { $, element } from "./dom.js";
import { control } from "./gestures.js";
import { about, onChange } from "./library.js";
import { Camera } from "./map_camera.js";
import { Legend } from "./map_legend.js";
import { Tip, describe, list } from "./map_photos.js";
import { PointCanvas, points as placed } from "./map_points.js";
import { Pictures, choose } from "./map_thumbnails.js";
import { go } from "./views.js";
import { count } from "./words.js";

// Thumbnails are shown when each point in view has at least ROOM x ROOM pixels: at most THUMBNAILS of them, whose longer
// side is SMALLEST to LARGEST pixels.
const ROOM = 34, THUMBNAILS = 60, SMALLEST = 52, LARGEST = 112;
// Maximum distance in pixels from the pointer to its photo, photos in the list, and milliseconds without movement after
// which the status is updated and thumbnails are fetched.
const NEAR = 14, LISTED = 24, STILL = 200;
// Maximum device pixels per CSS pixel.
const MOST_PIXELS = 2;

const camera = new Camera();
const canvas = new PointCanvas($("map-canvas"));
const pictures = new Pictures(redraw);
const legend = new Legend(redraw);
const tip = new Tip(() => legend.column, pictures);
const state = { points: null, seen: [], thumbnails: [], meant: null, byKey: false, size: SMALLEST, zoom: 0, turn: null };
let frame, still;

/** See views.js. The parameter `column` is the column that colours the points; without it they are coloured by folder. */
export async function show(parameters) {
  const column = parameters.get("column") ?? "";
  const turn = (state.turn = Symbol(column));
  const [{ columns }, map] = await Promise.all([about(), json(`api/map?${new URLSearchParams({ column })}`).catch(none)]);
  if (turn !== state.turn) return;
  $("map-none").hidden = map !== null;
  $("map-found").hidden = !map;
  state.points = map && placed(map);
  if (!map) return;
  const options = columns.map(({ name }) => element("option", { value: name }, name));
  $("map-column").replaceChildren(element("option", { value: "" }, "folder"), ...options);
  $("map-column").value = column;
  $("map-axes").textContent = axes(map);
  $("map-old").textContent = age(map);
  $("map-old").hidden = !$("map-old").textContent;
  legend.show(map, column || "folder");
  moved();
}

/** See views.js. */
export function hide() {
  point(null);
  pictures.want([]);
}

function none(error) {
  if (error.status !== 404) throw error;
  return null;
}

function axes({ method, explained }) {
  if (method !== "pca") return `Neighbouring photos are similar (${method.toUpperCase()}).`;
  return `The two axes explain ${explained.map((share) => `${(100 * share).toFixed(1)} %`).join(" and ")} of the variance (PCA).`;
}

function age({ missing, current }) {
  const told = [];
  if (missing) told.push(`${count(missing)} not on the map: added or changed since it was made.`);
  if (!current) told.push("The map was made from descriptors that have changed since.");
  return told.length ? [...told, "Run dolglab library map to update it."].join(" ") : "";
}
function redraw() {
  frame ??= requestAnimationFrame(() => {
    frame = undefined;
    if (state.points && !$("map").hidden) paint();
  });
}

function paint() {
  const { points } = state;
  const ratio = Math.min(MOST_PIXELS, devicePixelRatio);
  state.seen = canvas.draw(points, camera, { ratio, radius: radius(), ...legend.colours() });
  if (state.byKey) point(nearest(...middle(), 1)[0] ?? null);
  const room = roomOf(state.seen.length);
  // Thumbnails keep their size while the map is only moved.
  if (state.zoom !== camera.zoom) Object.assign(state, { zoom: camera.zoom, size: Math.round(Math.min(LARGEST, Math.max(SMALLEST, room))) });
  state.thumbnails = room >= ROOM ? choose(points, state.seen, camera, state.size, THUMBNAILS) : [];
  const { context } = canvas;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  for (const one of state.thumbnails) thumbnail(context, one);
  if (state.meant !== null) ring(context, onScreen(state.meant));
}

/** Side in pixels of the square that is available to each of `count` photos. */
const roomOf = (count) => Math.sqrt((camera.width * camera.height) / Math.max(1, count));

/** Radius of a point in pixels: larger for fewer points and at higher zoom. */
const radius = () => Math.min(6, Math.max(1.3, 0.17 * roomOf(state.points.count) * Math.sqrt(camera.zoom)));

function thumbnail(context, { at, left, top }) {
  const picture = pictures.get(state.points.ids[at]);
  if (!picture) return;
  const shrunk = (state.size - 4) / Math.max(picture.width, picture.height);
  const width = picture.width * shrunk, height = picture.height * shrunk;
  context.fillStyle = legend.colour(state.points.codes[at]);
  context.fillRect(left - width / 2 - 2, top - height / 2 - 2, width + 4, height + 4);
  context.drawImage(picture, left - width / 2, top - height / 2, width, height);
}

function ring(context, [left, top]) {
  context.lineWidth = 2.5;
  context.strokeStyle = getComputedStyle($("map-view")).color;
  context.beginPath();
  context.arc(left, top, radius() + 4, 0, 2 * Math.PI);
  context.stroke();
}

const middle = () => [camera.width / 2, camera.height / 2];
const onScreen = (at) => camera.onScreen(state.points.x[at], state.points.y[at]);

/** The photo at a position of the view: that of the thumbnail there, or of the nearest point; null for none. */
function photoAt(left, top) {
  const half = state.size / 2;
  const over = state.thumbnails.find((one) => Math.max(Math.abs(one.left - left), Math.abs(one.top - top)) < half
    && pictures.get(state.points.ids[one.at]));
  if (over) return over.at;
  const [at] = nearest(left, top, 1);
  if (at === undefined) return null;
  const [x, y] = onScreen(at);
  return Math.hypot(x - left, y - top) <= NEAR ? at : null;
}

/** The photos in view that are nearest to a position, nearest first. */
function nearest(left, top, most) {
  const found = [];
  for (const at of state.seen) {
    const [x, y] = onScreen(at);
    const far = (x - left) ** 2 + (y - top) ** 2;
    if (found.length === most && far >= found[most - 1].far) continue;
    const place = found.findIndex((other) => other.far > far);
    found.splice(place < 0 ? found.length : place, 0, { at, far });
    found.length = Math.min(found.length, most);
  }
  return found.map(({ at }) => at);
}

/** Highlights a photo and shows its tooltip; null for none. */
function point(meant) {
  if (meant !== null) tip.show(state.points.ids[meant], onScreen(meant), camera);
  else tip.hide();
  if (meant === state.meant) return;
  state.meant = meant;
  $("map-view").classList.toggle("over", meant !== null);
  redraw();
}

/** Opens a photo, followed by its neighbours on the map. */
function open(at) {
  if (at === null) return;
  const { ids } = state.points;
  const others = nearest(...onScreen(at), LISTED).filter((other) => other !== at);
  openPhoto(ids[at], [at, ...others].map((one) => ids[one]));
}

function moved(byKey = false) {
  state.byKey = byKey;
  if (!byKey) point(null);
  redraw();
  clearTimeout(still);
  still = setTimeout(settled, STILL);
}

/** Fetches thumbnails and updates the status once the map has stopped moving. */
async function settled() {
  if (!state.points || $("map").hidden) return;
  const { ids, count: all } = state.points;
  pictures.want(state.thumbnails.map(({ at }) => ids[at]));
  const around = nearest(...middle(), LISTED).map((at) => ids[at]);
  const centre = state.byKey && around.length ? ` At the centre: ${await describe(around[0], legend.column)}.` : "";
  $("map-status").textContent = `${state.seen.length.toLocaleString("en")} of ${count(all)} in view.${centre}`;
  if ($("map-list").open) await list(around, legend.column);
}

control($("map-view"), camera, {
  moved,
  pointed: (left, top) => point(left === undefined || !state.points ? null : photoAt(left, top)),
  chosen: (left, top) => open(photoAt(left, top)),
});
$("map-view").addEventListener("keydown", (event) => event.key === "Enter" && open(nearest(...middle(), 1)[0] ?? null));
for (const [id, change] of [["map-in", () => camera.zoomAt(2)], ["map-out", () => camera.zoomAt(0.5)], ["map-all", () => camera.reset()]]) {
  $(id).addEventListener("click", () => {
    change();
    moved();
  });
}
$("map-column").addEventListener("change", () => go("map", $("map-column").value ? { column: $("map-column").value } : {}));
// Reopen the view after the library has changed.
onChange(() => $("map").hidden || dispatchEvent(new Event("hashchange")));
$("map-list").addEventListener("toggle", settled);
new ResizeObserver(([{ contentRect }]) => {
  camera.resize(Math.max(1, contentRect.width), Math.max(1, contentRect.height));
  moved();
}).observe($("map-view"));
