// The visible part of the map: a centre and a zoom. All photos lie in the unit square.

// The share of the view's shorter side that the square takes at zoom 1, and the maximum zoom.
const MARGIN = 0.94, MOST = 4000;

export class Camera {
  constructor() {
    Object.assign(this, { width: 1, height: 1, x: 0.5, y: 0.5, zoom: 1 });
  }

  /** Sets the size of the view in pixels. */
  resize(width, height) {
    Object.assign(this, { width, height });
  }

  /** Side of the unit square in pixels. */
  get scale() {
    return Math.min(this.width, this.height) * MARGIN * this.zoom;
  }

  /** Position in the view, in pixels, of a point of the unit square. */
  onScreen(x, y) {
    const { scale } = this;
    return [(x - this.x) * scale + this.width / 2, (y - this.y) * scale + this.height / 2];
  }

  /** Shows all photos. */
  reset() {
    Object.assign(this, { x: 0.5, y: 0.5, zoom: 1 });
  }

  /** Moves the map by pixels; the centre of the view stays within the square. */
  pan(dx, dy) {
    this.x = Math.min(1, Math.max(0, this.x - dx / this.scale));
    this.y = Math.min(1, Math.max(0, this.y - dy / this.scale));
  }

  /** Zooms by a factor and keeps the point at a position of the view, in pixels, in place. */
  zoomAt(factor, left = this.width / 2, top = this.height / 2) {
    const before = this.scale;
    this.zoom = Math.min(MOST, Math.max(1, this.zoom * factor));
    const kept = 1 / before - 1 / this.scale;
    this.x += (left - this.width / 2) * kept;
    this.y += (top - this.height / 2) * kept;
    this.pan(0, 0);
  }
}

/**
 * Lets the user move a camera by drag, wheel, pinch and keys on an element. Calls `moved()` after a movement,
 * `pointed(left, top)` for the position of the mouse, without arguments when it leaves, and `chosen(left, top)` for a click
 * or tap; positions are in pixels of the element.
 */
export function control(element, camera, { moved, pointed, chosen }) {
  const pointers = new Map();
  let travelled = 0;
  const place = ({ clientX, clientY }) => {
    const { left, top } = element.getBoundingClientRect();
    return [clientX - left, clientY - top];
  };

  element.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    element.setPointerCapture(event.pointerId);
    if (!pointers.size) travelled = 0;
    pointers.set(event.pointerId, place(event));
  });
  element.addEventListener("pointermove", (event) => {
    const now = place(event);
    const before = pointers.get(event.pointerId);
    if (!before) {
      if (event.pointerType === "mouse") pointed(...now);
      return;
    }
    const old = span([...pointers.values()]);
    pointers.set(event.pointerId, now);
    const { left, top, apart } = span([...pointers.values()]);
    travelled += Math.hypot(left - old.left, top - old.top) + Math.abs(apart - old.apart);
    // A click may move the pointer a little.
    if (travelled < 4) return;
    camera.pan(left - old.left, top - old.top);
    if (old.apart && apart) camera.zoomAt(apart / old.apart, left, top);
    moved();
  });
  const lifted = (event) => {
    if (!pointers.delete(event.pointerId)) return;
    if (event.type === "pointerup" && !pointers.size && travelled < 4) chosen(...place(event));
  };
  element.addEventListener("pointerup", lifted);
  element.addEventListener("pointercancel", lifted);
  element.addEventListener("pointerleave", () => pointers.size || pointed());
  element.addEventListener("wheel", (event) => {
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 30 : 1;
    // A pinch on a touchpad is reported as a wheel event with Ctrl, in smaller steps.
    camera.zoomAt(Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.002)), ...place(event));
    moved();
  }, { passive: false });
  element.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !press(camera, event.key)) return;
    event.preventDefault();
    moved(true);
  });
}

/** Applies a key to a camera; returns whether the key has a meaning. */
export function press(camera, key) {
  const step = Math.min(camera.width, camera.height) / 8;
  const keys = {
    ArrowLeft: () => camera.pan(step, 0),
    ArrowRight: () => camera.pan(-step, 0),
    ArrowUp: () => camera.pan(0, step),
    ArrowDown: () => camera.pan(0, -step),
    "+": () => camera.zoomAt(1.5),
    "=": () => camera.zoomAt(1.5),
    "-": () => camera.zoomAt(1 / 1.5),
    0: () => camera.reset(),
    Home: () => camera.reset(),
  };
  keys[key]?.();
  return key in keys;
}

/** The midpoint of one or two pointers and the distance between them. */
function span([first, second = first]) {
  const apart = Math.hypot(first[0] - second[0], first[1] - second[1]);
  return { left: (first[0] + second[0]) / 2, top: (first[1] + second[1]) / 2, apart };
}
