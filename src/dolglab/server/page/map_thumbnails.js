// Thumbnails on the map: choosing the photos that get one, and a cache of the pictures.

import { patiently } from "./api.js";

// Cached pictures, simultaneous requests, and the width of a picture in pixels.
const KEPT = 300, AT_ONCE = 4, WIDTH = 192;

/**
 * Chooses at most `most` of the points `seen` so that thumbnails of `size` pixels do not overlap. Returns {at, left, top}:
 * the index of each point, and its position.
 */
export function choose(points, seen, camera, size, most) {
  const cells = new Map();
  const chosen = [];
  // Points drawn on top come first.
  for (const at of [...seen].reverse()) {
    if (chosen.length === most) break;
    const [left, top] = camera.onScreen(points.x[at], points.y[at]);
    const column = Math.floor(left / size), row = Math.floor(top / size);
    let free = true;
    for (let near = 0; free && near < 9; near++) {
      const other = cells.get(`${column + (near % 3) - 1} ${row + Math.floor(near / 3) - 1}`);
      free = !other || Math.abs(other.left - left) >= size || Math.abs(other.top - top) >= size;
    }
    if (!free) continue;
    const thumbnail = { at, left, top };
    cells.set(`${column} ${row}`, thumbnail);
    chosen.push(thumbnail);
  }
  return chosen;
}

export class Pictures {
  /** Calls `arrived()` when a picture has been loaded. */
  constructor(arrived) {
    this.arrived = arrived;
    // Pictures by photo id, least recently used first; null for a photo without a picture.
    this.pictures = new Map();
    this.running = new Map();
    this.wanted = [];
  }

  /** The ImageBitmap of a photo; null if it has none, undefined if it has not been loaded. */
  get(id) {
    const found = this.pictures.get(id);
    if (found === undefined) return found;
    this.pictures.delete(id);
    this.pictures.set(id, found);
    return found;
  }

  /** Loads a photo's picture; resolves to null if it has none. */
  async load(id) {
    if (!this.pictures.has(id)) await (this.running.get(id) ?? this.#start(id));
    return this.get(id) ?? null;
  }

  /** Fetches the pictures of these photos, and drops earlier requests that have not started. */
  want(ids) {
    this.wanted = ids.filter((id) => !this.pictures.has(id)).reverse();
    this.#next();
  }

  #next() {
    while (this.running.size < AT_ONCE && this.wanted.length) {
      const id = this.wanted.pop();
      if (!this.running.has(id)) this.#start(id);
    }
  }

  #start(id) {
    const started = this.#fetch(id).finally(() => {
      this.running.delete(id);
      this.#next();
    });
    this.running.set(id, started);
    return started;
  }

  async #fetch(id) {
    try {
      const answer = await patiently(`api/photos/${id}/thumbnail`);
      this.#keep(id, await createImageBitmap(await answer.blob(), { resizeWidth: WIDTH, resizeQuality: "medium" }));
      this.arrived();
    } catch (error) {
      // A missing file has no picture. After an error of a busy server, the picture is requested again later.
      if (!error.wait) this.#keep(id, null);
    }
  }

  #keep(id, picture) {
    this.pictures.set(id, picture);
    for (const [old, its] of this.pictures) {
      if (this.pictures.size <= KEPT) break;
      its?.close();
      this.pictures.delete(old);
    }
  }
}
