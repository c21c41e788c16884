// The legend of the map: the colour of each value and its number of photos. Pressing a value highlights its photos.

import { $, element } from "./dom.js";

export class Legend {
  /** Calls `changed()` when the map must be redrawn in other colours. */
  constructor(changed) {
    this.changed = changed;
    this.entries = [];
    this.pressed = null;
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      this.palette = undefined;
      changed();
    });
  }

  /** Shows the values of a map. The pressed value stays pressed while the column is the same. */
  show({ values, other, without, codes }, column) {
    if (column !== this.column) this.pressed = null;
    this.column = column;
    this.palette = undefined;
    const named = values.map(({ value, photos }, code) => ({ name: value || "(empty)", photos, code, colour: `c${code}` }));
    const rest = [["other", other, "other"], [`no ${column}`, without, "none"]].map(([name, photos, colour], more) => (
      { name, photos, code: values.length + more, colour }));
    this.entries = [...named, ...rest];
    $("map-legend").replaceChildren(...this.entries.filter(({ photos }) => photos).map((entry) => this.#item(entry)));
  }

  /** The colour arguments of `PointCanvas.draw`. */
  colours() {
    this.palette ??= this.#read();
    const { colours, paper } = this.palette;
    const first = this.entries.length - 2;
    if (this.pressed === null) return { colours, paper, behind: this.entries.map((_, code) => code >= first) };
    const faint = colours.at(-1);
    return {
      colours: colours.map((colour, code) => (code === this.pressed ? colour : faint)),
      paper,
      behind: this.entries.map((_, code) => code !== this.pressed),
    };
  }

  /** The CSS colour of a code. */
  colour(code) {
    const [red, green, blue] = this.colours().colours[code];
    return `rgb(${red} ${green} ${blue})`;
  }

  #item({ name, photos, code, colour }) {
    const button = element("button", { type: "button", title: name, "aria-pressed": String(code === this.pressed) },
      element("span", { className: `swatch ${colour}` }), element("span", { className: "value" }, name),
      element("small", {}, photos.toLocaleString("en")));
    button.onclick = () => {
      this.pressed = this.pressed === code ? null : code;
      for (const one of $("map-legend").querySelectorAll("button")) one.setAttribute("aria-pressed", "false");
      button.setAttribute("aria-pressed", String(this.pressed === code));
      this.changed();
    };
    return element("li", {}, button);
  }

  /** Reads the colours from the style sheet, which has a light and a dark scheme. */
  #read() {
    const style = getComputedStyle($("map"));
    const read = (name) => [1, 3, 5].map((at) => parseInt(style.getPropertyValue(name).trim().slice(at, at + 2), 16));
    return { colours: this.entries.map(({ colour }) => read(`--map-${colour}`)), paper: read("--raised") };
  }
}
