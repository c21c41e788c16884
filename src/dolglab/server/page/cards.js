// Parts that the cards of photos have in common.

import { element } from "./dom.js";
import { searchLike } from "./views.js";

/** A button with the text `words` for a photo; screen readers add its name. */
export function link(className, words, { name }, clicked) {
  const button = element("button", { type: "button", className: `${className} link`, "aria-label": `${words}: ${name}` }, words);
  button.onclick = clicked;
  return button;
}

/** A button that searches for photos similar to a photo of the library. */
export function moreLike(photo) {
  return link("more", "More like this", photo, () => searchLike(photo.id));
}
