// Thumbnails on the map: which photos get one, and the pictures, fetched as they are needed and kept.

import { patiently } from "./api.js";

// Pictures that are kept, asked for at once, and pixels of their width.
const KEPT = 300, AT_ONCE = 4, WIDTH = 192;

/**
 * Of points in view, those that get a thumbnail of `size` pixels a side: none covers another, at most `most`. Gives
 * {at, left, top}, the middle of each.
 */
export function choose(points, seen, camera, size, most) {
  const cells = new Map();
  const chosen = [];
  // Those that are drawn last come first.
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
  /** Calls `arrived()` when a picture that was wanted is there. */
  constructor(arrived) {
    this.arrived = arrived;
    // Pictures by photos' numbers, who was looked at last at the end; null of a photo without.
    this.pictures = new Map();
    this.running = new Map();
    this.wanted = [];
  }

  /** A photo's picture, an ImageBitmap; null where it has none, undefined where it is not here yet. */
  get(id) {
    const found = this.pictures.get(id);
    if (found === undefined) return found;
    this.pictures.delete(id);
    this.pictures.set(id, found);
    return found;
  }

  /** A photo's picture as soon as it is here; null where it has none. */
  async load(id) {
    if (!this.pictures.has(id)) await (this.running.get(id) ?? this.#start(id));
    return this.get(id) ?? null;
  }

  /** Fetches these photos' pictures, and no longer those that were wanted before. */
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
      // Of a photo whose file is gone there is none; what a busy server did not give is asked for another time.
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
