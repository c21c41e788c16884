// Descriptions of photos on the map: a tooltip and a list.

import { json } from "./api.js";
import { openPhoto } from "./detail.js";
import { $, element } from "./dom.js";

const KEPT = 2000;
const asked = new Map();

/** Resolves to the name of a photo and its value of a column, or to an error message. Responses are cached. */
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

/** Lists photos; each opens together with the others. */
export async function list(ids, column) {
  const texts = await Promise.all(ids.map((id) => describe(id, column)));
  $("map-photos").replaceChildren(...ids.map((id, place) => {
    const button = element("button", { type: "button" }, texts[place]);
    button.onclick = () => openPhoto(id, ids);
    return element("li", {}, button);
  }));
}

/** The tooltip of a photo. */
export class Tip {
  constructor(column, pictures) {
    this.column = column;
    this.pictures = pictures;
  }

  hide() {
    this.id = null;
    $("map-tip").hidden = true;
  }

  /** Shows the tooltip of the photo `id` next to a position of the view, in pixels. */
  async show(id, [left, top], { width, height }) {
    this.id = id;
    const { style } = $("map-tip");
    const right = left > width / 2, below = top > height / 2;
    style.left = right ? "" : `${left + 16}px`;
    style.right = right ? `${width - left + 16}px` : "";
    style.top = below ? "" : `${Math.max(4, top + 8)}px`;
    style.bottom = below ? `${Math.max(4, height - top + 8)}px` : "";
    // A pointer that only passes over sends no request.
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
