// What part of the map is seen: a point in the middle, and a zoom. All photos lie in the unit square.

// Of the shorter side of the view, what the square takes at zoom 1; and the largest zoom.
const MARGIN = 0.94, MOST = 4000;

export class Camera {
  constructor() {
    Object.assign(this, { width: 1, height: 1, x: 0.5, y: 0.5, zoom: 1 });
  }

  /** Pixels of the view. */
  resize(width, height) {
    Object.assign(this, { width, height });
  }

  /** Pixels that the unit square takes. */
  get scale() {
    return Math.min(this.width, this.height) * MARGIN * this.zoom;
  }

  /** Where a place of the square is in the view. */
  onScreen(x, y) {
    const { scale } = this;
    return [(x - this.x) * scale + this.width / 2, (y - this.y) * scale + this.height / 2];
  }

  /** All photos. */
  reset() {
    Object.assign(this, { x: 0.5, y: 0.5, zoom: 1 });
  }

  /** Moves the map by pixels; its middle stays within the square. */
  pan(dx, dy) {
    this.x = Math.min(1, Math.max(0, this.x - dx / this.scale));
    this.y = Math.min(1, Math.max(0, this.y - dy / this.scale));
  }

  /** Zooms by a factor; what is at a place of the view, in pixels, stays there. */
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
 * Has an element move a camera: drag, wheel, pinch and keys. Calls `moved()` when it did, `pointed(left, top)` where a
 * mouse is (nothing where it has left), and `chosen(left, top)` for a click or a tap, in pixels of the element.
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
    // A hand that clicks trembles.
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
    // A pinch on a touchpad comes as a wheel with Ctrl, in smaller steps.
    camera.zoomAt(Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.002)), ...place(event));
    moved();
  }, { passive: false });
  element.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !press(camera, event.key)) return;
    event.preventDefault();
    moved(true);
  });
}

/** What a key does to a camera; whether it did anything. */
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

/** The middle of one or two pointers, and how far these are apart. */
function span([first, second = first]) {
  const apart = Math.hypot(first[0] - second[0], first[1] - second[1]);
  return { left: (first[0] + second[0]) / 2, top: (first[1] + second[1]) / 2, apart };
}
