// A filter with a lower and an upper bound, for dates and coordinates.

import { element } from "./dom.js";

// Columns with such a filter, each with an example of both bounds.
const EXAMPLES = { taken: ["2018", "2019-07"], latitude: ["43.2", "43.4"], longitude: ["5.3", "5.5"] };

export const isRange = (column) => column in EXAMPLES;

/** A field whose `value` is LOW..HIGH, as the API expects, or "" when both bounds are empty. */
export function range(column) {
  const ends = ["from", "to"].map((end, place) => element("input", {
    placeholder: `${end} ${EXAMPLES[column][place]}`, autocomplete: "off", "aria-label": `${column} ${end}`,
  }));
  const field = element("div", { className: "range" }, ...ends);
  Object.defineProperty(field, "value", {
    get() {
      const [low, high] = ends.map((end) => end.value.trim());
      return low || high ? `${low}..${high}` : "";
    },
    set(value) {
      const [low, high = low] = value.split("..");
      // The field that the user is typing in is left alone.
      for (const [end, given] of [[ends[0], low], [ends[1], high]]) if (end !== document.activeElement) end.value = given;
    },
  });
  field.dataset.column = column;
  return element("div", { className: "field", role: "group", "aria-label": column }, column, field);
}
