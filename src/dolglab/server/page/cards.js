// Parts that the cards of photos have in common.

import { element } from "./dom.js";
import { searchLike } from "./views.js";

/** A button that searches for photos similar to a photo of the library. */
export function moreLike({ id, name }) {
  const button = element("button", { type: "button", className: "more link", "aria-label": `More like this: ${name}` }, "More like this");
  button.onclick = () => searchLike(id);
  return button;
}
