// A box drawn on a photo by mouse, touch or keyboard. Its edges are whole pixels of the photo, which is larger than its picture or smaller.

import { $ } from "./dom.js";

const NEAR = 24; // Screen pixels around a corner within which a drag moves that corner.
const LEAST = 8; // Minimum side of a box, and minimum length of a drag that draws one, in screen pixels.
const SIDES = ["x1", "y1", "x2", "y2"];
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** A box of four whole numbers "x1,y1,x2,y2" within a photo of this size, in pixels; null for any other text. */
export function readBox(text, [width, height]) {
  if (!/^\d+(,\d+){3}$/.test(text)) return null;
  const [x1, y1, x2, y2] = text.split(",").map(Number);
  return x1 < x2 && x2 <= width && y1 < y2 && y2 <= height ? [x1, y1, x2, y2] : null;
}

export class BoxDrawing {
  /** Calls `drawn()` when the user has drawn or cleared a box. */
  constructor(drawn) {
    this.frame = $("frame");
    this.image = $("photo");
    this.shown = $("box");
    this.inputs = SIDES.map((side) => $("numbers").elements[side]);
    this.drawn = drawn;
    this.box = null;
    this.size = [0, 0];
    this.frame.addEventListener("pointerdown", (event) => this.#begin(event));
    this.frame.addEventListener("keydown", (event) => this.#key(event));
    for (const input of this.inputs) input.addEventListener("change", () => this.#typed());
  }

  /** Shows a box, or none for null, on a photo of `size`: width and height in pixels. Nothing is drawn on one of size 0. */
  set(box, size = this.size) {
    this.box = box;
    this.size = size;
    this.shown.hidden = !box;
    this.inputs.forEach((input, side) => {
      input.max = side % 2 ? this.#height : this.#width;
      input.value = box ? box[side] : "";
    });
    $("part").textContent = box ? `Box from ${box[0]}, ${box[1]} to ${box[2]}, ${box[3]}` : "The whole photo";
    if (!box) return;
    const [x1, y1, x2, y2] = box;
    Object.assign(this.shown.style, {
      left: `${(100 * x1) / this.#width}%`,
      top: `${(100 * y1) / this.#height}%`,
      width: `${(100 * (x2 - x1)) / this.#width}%`,
      height: `${(100 * (y2 - y1)) / this.#height}%`,
    });
  }

  get #width() {
    return this.size[0];
  }

  get #height() {
    return this.size[1];
  }

  get #scale() {
    return this.#width / this.image.clientWidth;
  }

  #at(event) {
    const edges = this.image.getBoundingClientRect();
    return [
      clamp((event.clientX - edges.left) * this.#scale, 0, this.#width),
      clamp((event.clientY - edges.top) * this.#scale, 0, this.#height),
    ];
  }

  #begin(event) {
    if (!this.#width || event.button > 0) return;
    const start = this.#at(event);
    const change = this.#grip(start);
    const before = String(this.box);
    let moved = false;
    const move = (later) => {
      const now = this.#at(later);
      moved ||= Math.hypot(now[0] - start[0], now[1] - start[1]) > LEAST * this.#scale;
      if (moved) this.set(change(now));
    };
    const end = () => {
      this.frame.removeEventListener("pointermove", move);
      if (!moved) this.set(null);
      if (String(this.box) !== before) this.drawn();
    };
    this.frame.setPointerCapture(event.pointerId);
    this.frame.addEventListener("pointermove", move);
    this.frame.addEventListener("lostpointercapture", end, { once: true });
  }

  /** The effect of a drag that starts at a point: it moves a corner, moves the box, or draws a new box. */
  #grip(start) {
    const near = NEAR * this.#scale;
    if (this.box) {
      const [x1, y1, x2, y2] = this.box;
      for (const [x, y, fixed] of [[x1, y1, [x2, y2]], [x2, y1, [x1, y2]], [x1, y2, [x2, y1]], [x2, y2, [x1, y1]]]) {
        if (Math.hypot(start[0] - x, start[1] - y) < near) return (now) => this.#between(fixed, now);
      }
      if (start[0] > x1 && start[0] < x2 && start[1] > y1 && start[1] < y2) {
        const box = this.box;
        return (now) => this.#shifted(box, now[0] - start[0], now[1] - start[1]);
      }
    }
    return (now) => this.#between(start, now);
  }

  #between(a, b) {
    const edges = [0, 1].map((axis) => [Math.min(a[axis], b[axis]), Math.max(a[axis], b[axis])]);
    return this.#fitted(edges[0][0], edges[1][0], edges[0][1], edges[1][1]);
  }

  #shifted([x1, y1, x2, y2], across, down) {
    const dx = Math.round(clamp(across, -x1, this.#width - x2));
    const dy = Math.round(clamp(down, -y1, this.#height - y2));
    return [x1 + dx, y1 + dy, x2 + dx, y2 + dy];
  }

  /** The box in whole pixels, within the photo and at least the minimum size. */
  #fitted(x1, y1, x2, y2) {
    const least = Math.min(Math.ceil(LEAST * this.#scale), this.#width, this.#height);
    const left = clamp(Math.round(x1), 0, this.#width - least);
    const top = clamp(Math.round(y1), 0, this.#height - least);
    return [
      left,
      top,
      clamp(Math.round(x2), left + least, this.#width),
      clamp(Math.round(y2), top + least, this.#height),
    ];
  }

  #key(event) {
    const [across, down] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [0, 0];
    if (event.key === "Enter") {
      event.preventDefault();
      this.drawn();
    } else if (event.key === "Escape" && this.box) {
      this.set(null);
    } else if ((across || down) && this.#width) {
      event.preventDefault();
      const step = Math.max(1, Math.round(Math.max(this.#width, this.#height) / 50));
      // The first arrow key creates a box in the middle.
      const box = this.box ?? [0.25, 0.25, 0.75, 0.75].map((part, side) => Math.round(part * (side % 2 ? this.#height : this.#width)));
      if (!this.box) this.set(box);
      else if (event.shiftKey) this.set(this.#fitted(box[0], box[1], box[2] + across * step, box[3] + down * step));
      else this.set(this.#shifted(box, across * step, down * step));
    }
  }

  #typed() {
    const box = this.inputs.map((input) => (input.value === "" ? NaN : Number(input.value)));
    if (box.every(Number.isFinite) && this.#width) this.set(this.#fitted(...box));
  }
}
