// The library: its size and columns, what the server allows, and adding and removing photos.

import { form, json, patiently } from "./api.js";

const events = new EventTarget();
let asked;

/** The response of `GET /api/library`, cached until this page changes the library. */
export function about() {
  if (!asked) {
    asked = json("api/library");
    // Failures are not cached.
    asked.catch(() => (asked = undefined));
  }
  return asked;
}

/** Calls `handler(event)` after this page added or removed photos; `event.detail` is the id of a removed photo, or null. */
export function onChange(handler) {
  events.addEventListener("change", handler);
}

export function changed(removed = null) {
  asked = undefined;
  events.dispatchEvent(new CustomEvent("change", { detail: removed }));
}

/** Adds a photo, and retries when the server is busy; the caller calls `changed`. Throws what `call` throws. */
export async function add(photo, signal) {
  return (await patiently("api/photos", { ...form({ photo }), signal }, 20)).json();
}

/** Removes a photo from the library, as `add`; the caller calls `changed`. */
export async function remove(id, signal) {
  return (await patiently(`api/photos/${id}`, { method: "DELETE", signal }, 20)).json();
}
