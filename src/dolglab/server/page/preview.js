// The picture of the query, and the box on it.

import { json, picture } from "./api.js";
import { BoxDrawing, readBox } from "./box.js";
import { $, element } from "./dom.js";

export class Preview {
  /** Calls `drawn()` when the user has drawn or cleared a box. */
  constructor(drawn) {
    this.box = new BoxDrawing(drawn);
  }

  /** The box as text, "x1,y1,x2,y2" in pixels of the query's size; "" without a box. */
  get part() {
    return this.box.box?.join() ?? "";
  }

  /** Whether the picture is there, so that the user can draw on it. */
  get ready() {
    return !$("frame").hidden;
  }

  /** Makes room for the picture of another query. */
  clear() {
    URL.revokeObjectURL($("photo").src);
    $("preview").hidden = false;
    $("frame").hidden = true;
  }

  hide() {
    $("preview").hidden = true;
  }

  /** Sets the box of a query from text; an invalid box, or one that is not within the photo, is dropped. */
  async restore(query, part) {
    if (part && query.like !== null) await measure(query);
    this.box.set(readBox(part, query.size), query.size);
  }

  /** Shows the query's picture if the browser can display it and its file still exists; `current()`: it is still wanted. */
  async show(query, current) {
    try {
      const [address] = await Promise.all(query.file ? [URL.createObjectURL(query.file)]
        : [picture(`api/photos/${query.like}/image`), measure(query)]);
      if (!current()) return;
      $("photo").src = address;
      $("photo").alt = query.name;
      await $("photo").decode();
      if (!current()) return;
      if (query.file) query.size = [$("photo").naturalWidth, $("photo").naturalHeight];
      this.box.set(this.box.box, query.size);
      $("frame").hidden = false;
    } catch {
      // Without a picture there is nothing to draw a box on.
      if (current()) this.hide();
    }
  }

  /** The URL of the picture, cropped to a box given as text; null if there is none. */
  async crop(part) {
    if (!this.ready || !part) return this.ready ? $("photo").src : null;
    const scale = $("photo").naturalWidth / this.box.size[0];
    const [x1, y1, x2, y2] = part.split(",").map((edge) => edge * scale);
    const canvas = element("canvas", { width: x2 - x1, height: y2 - y1 });
    canvas.getContext("2d").drawImage($("photo"), -x1, -y1);
    return URL.createObjectURL(await new Promise((made) => canvas.toBlob(made, "image/jpeg", 0.9)));
  }
}

/** Fetches the name of a query of the library, and its size when it was embedded: that of the pixels of its box. */
async function measure(query) {
  if (query.name) return;
  const { name, width, height } = await json(`api/photos/${query.like}`);
  Object.assign(query, { name, size: [width ?? 0, height ?? 0] });
}
