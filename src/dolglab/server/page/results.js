// The answers as cards. A photo keeps its card, and with it the keyboard focus, when the order changes.

import { moreLike } from "./cards.js";
import { $, element } from "./dom.js";
import { Thumbnails } from "./thumbnails.js";

const MARKS = [["right", "✓ Right"], ["wrong", "✕ Wrong"]];

export class Results {
  /** Calls `open(place)` when an answer is opened, and `marked()` when a mark changes. */
  constructor(open, marked) {
    this.open = open;
    this.changed = marked;
    this.answers = [];
    this.marks = new Map();
    this.cards = new Map();
    this.thumbnails = new Thumbnails();
  }

  /** Shows the answers to a new query. `marks` maps photo ids to "right" or "wrong" and is modified in place. */
  start(answers, marks) {
    this.marks = marks;
    this.thumbnails.clear();
    this.cards.clear();
    this.show(answers);
  }

  /** Stops fetching pictures. */
  stopPictures() {
    this.thumbnails.clear();
  }

  /** Shows answers in their order; the keyboard focus stays on its card. */
  show(answers) {
    const focused = document.activeElement;
    this.answers = answers;
    $("results").replaceChildren(...answers.map((answer, place) => this.#card(answer, place)));
    if (focused?.isConnected && $("results").contains(focused)) focused.focus({ preventScroll: true });
  }

  /** Removes a photo that is no longer in the library. */
  drop(id) {
    this.marks.delete(id);
    this.show(this.answers.filter((answer) => answer.id !== id));
  }

  marked(mark) {
    return [...this.marks].filter(([, given]) => given === mark).map(([id]) => id);
  }

  clearMarks() {
    this.marks.clear();
    this.changed();
  }

  #card(answer, place) {
    if (!this.cards.has(answer.id)) this.cards.set(answer.id, this.#made(answer));
    const card = this.cards.get(answer.id);
    const mark = this.marks.get(answer.id);
    card.item.className = `card ${mark ?? ""}`;
    card.rank.textContent = place + 1;
    card.badge.textContent = mark ?? "";
    card.cosine.textContent = answer.cosine.toFixed(3);
    card.inliers.textContent = answer.inliers === null ? "" : `${answer.inliers} inliers`;
    card.shot.onclick = () => this.open(place);
    card.shot.setAttribute("aria-label", `${place + 1}: ${answer.name}, cosine ${answer.cosine.toFixed(3)}`);
    for (const [name, button] of card.toggles) button.setAttribute("aria-pressed", String(mark === name));
    return card.item;
  }

  #made(answer) {
    const rank = element("span", { className: "rank" });
    const badge = element("span", { className: "badge" });
    const shot = element("button", { type: "button", className: "shot" }, this.thumbnails.image(answer), rank, badge);
    const cosine = element("b");
    const inliers = element("small");
    const toggles = MARKS.map(([name, label]) => [name, this.#toggle(answer, name, label)]);
    const item = element("li", {}, shot, element("div", { className: "facts" },
      element("p", { className: "file", title: answer.name }, answer.name + (answer.there ? "" : " (file missing)")),
      element("div", { className: "score" }, element("span", {}, "cosine ", cosine), inliers),
      element("div", { className: "toggles" }, ...toggles.map(([, button]) => button)), moreLike(answer)));
    return { item, shot, rank, badge, cosine, inliers, toggles };
  }

  #toggle(answer, name, label) {
    const button = element("button", { type: "button", className: name, "aria-label": `${name}: ${answer.name}` }, label);
    button.onclick = () => {
      if (this.marks.get(answer.id) === name) this.marks.delete(answer.id);
      else this.marks.set(answer.id, name);
      this.changed();
    };
    return button;
  }
}
