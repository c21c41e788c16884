// What the photos of the map are: the one that is pointed at, and a list of some.

import { json } from "./api.js";
import { openPhoto } from "./detail.js";
import { $, element } from "./dom.js";

const KEPT = 2000;
const asked = new Map();

/** What a photo of the library is called, and what it has in a column, by its number; or why that is not known. */
export function describe(id, column) {
  if (!asked.has(id)) {
    if (asked.size >= KEPT) asked.clear();
    asked.set(id, json(`api/photos/${id}`).catch((error) => {
      asked.delete(id);
      return { name: error.message, metadata: {} };
    }));
  }
  return asked.get(id).then(({ name, metadata }) => (column in metadata ? `${name} · ${column} ${metadata[column]}` : name));
}

/** Lists photos; each opens among the others. */
export async function list(ids, column) {
  const texts = await Promise.all(ids.map((id) => describe(id, column)));
  $("map-photos").replaceChildren(...ids.map((id, place) => {
    const button = element("button", { type: "button" }, texts[place]);
    button.onclick = () => openPhoto(id, ids);
    return element("li", {}, button);
  }));
}

/** What is told of a photo beside its place in the view. */
export class Tip {
  constructor(column, pictures) {
    this.column = column;
    this.pictures = pictures;
  }

  hide() {
    this.id = null;
    $("map-tip").hidden = true;
  }

  /** Tells of the photo `id` at pixels of the view, which is a camera's. */
  async show(id, [left, top], { width, height }) {
    this.id = id;
    const { style } = $("map-tip");
    const right = left > width / 2, below = top > height / 2;
    style.left = right ? "" : `${left + 16}px`;
    style.right = right ? `${width - left + 16}px` : "";
    style.top = below ? "" : `${Math.max(4, top + 8)}px`;
    style.bottom = below ? `${Math.max(4, height - top + 8)}px` : "";
    // Who only passes over it asks for nothing.
    await new Promise((waited) => setTimeout(waited, 70));
    if (this.id !== id) return;
    const [text, picture] = await Promise.all([describe(id, this.column()), this.pictures.load(id)]);
    if (this.id !== id) return;
    $("map-name").textContent = text;
    $("map-tip").hidden = false;
    $("map-picture").hidden = !picture;
    if (!picture) return;
    Object.assign($("map-picture"), { width: picture.width, height: picture.height });
    $("map-picture").getContext("2d").drawImage(picture, 0, 0);
  }
}
