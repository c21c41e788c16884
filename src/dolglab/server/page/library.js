// The library: what it holds, and what the server allows.

import { json } from "./api.js";

let asked;

/** What `GET /api/library` says, asked once; `again` after the library was changed. */
export function about(again = false) {
  if (again || !asked) {
    asked = json("api/library");
    // What failed is asked for again.
    asked.catch(() => (asked = undefined));
  }
  return asked;
}
