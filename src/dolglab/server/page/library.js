// The library: what it holds, what the server allows, and changes of it.

import { form, json, patiently } from "./api.js";

const events = new EventTarget();
let asked;

/** What `GET /api/library` says, asked once, and again after the library was changed here. */
export function about() {
  if (!asked) {
    asked = json("api/library");
    // What failed is asked for again.
    asked.catch(() => (asked = undefined));
  }
  return asked;
}

/** Has `handler(event)` called after photos were added or removed here; `event.detail` is the number of a removed one. */
export function onChange(handler) {
  events.addEventListener("change", handler);
}

export function changed(removed = null) {
  asked = undefined;
  events.dispatchEvent(new CustomEvent("change", { detail: removed }));
}

/** Adds a photo, waiting where the server asks for that. Throws what `call` throws. */
export function add(photo, signal) {
  return patiently("api/photos", { ...form({ photo }), signal }, 20);
}

/** Takes a photo out of the library; says whether its file was deleted too. */
export async function remove(id) {
  const { deleted } = await json(`api/photos/${id}`, { method: "DELETE" });
  changed(id);
  return deleted;
}
