// Mouse, touch and keys on a map.

// A click or tap may move the pointer by fewer pixels than this.
const STILL = 4;

/**
 * Lets the user move a camera by wheel, pinch and keys on an element, and by drag, unless a drag draws a box. A camera has
 * a `width` and `height` and the methods `pan`, `zoomAt` and `reset`, see `Camera`. Calls
 *
 *   moved(byKey)         after a movement
 *   chosen(left, top)    for a click or tap
 *   pointed(left, top)   optional, for the position of the mouse, without arguments when it leaves
 *   drawn(box, done)     optional, for a box [left, top, width, height] that a drag draws: while it is drawn, and once it
 *                        is done; null if the drag became a pinch
 *
 * Positions are in pixels of the element.
 */
export function control(element, camera, { moved, chosen, pointed = () => {}, drawn }) {
  const pointers = new Map();
  let travelled = 0;
  // The corner at which a drag started, null once a second finger is down; and the box from there.
  let start = null;
  let box = null;
  const place = ({ clientX, clientY }) => {
    const { left, top } = element.getBoundingClientRect();
    return [clientX - left, clientY - top];
  };
  const cancel = () => {
    const drawing = box !== null;
    start = box = null;
    if (drawing) drawn(null, true);
  };

  element.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    element.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, place(event));
    if (pointers.size > 1) return cancel();
    travelled = 0;
    start = place(event);
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
    if (travelled < STILL) return;
    if (drawn && pointers.size === 1) {
      // The finger that remains of a pinch draws nothing.
      if (!start) return;
      box = between(start, now);
      return drawn(box, false);
    }
    camera.pan(left - old.left, top - old.top);
    if (old.apart && apart) camera.zoomAt(apart / old.apart, left, top);
    moved(false);
  });
  element.addEventListener("pointerup", (event) => {
    if (!pointers.delete(event.pointerId) || pointers.size || !start) return;
    if (box) drawn(box, true);
    else if (travelled < STILL) chosen(...place(event));
    start = box = null;
  });
  element.addEventListener("pointercancel", (event) => {
    if (pointers.delete(event.pointerId)) cancel();
  });
  element.addEventListener("pointerleave", () => pointers.size || pointed());
  element.addEventListener("wheel", (event) => {
    event.preventDefault();
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 30 : 1;
    // A pinch on a touchpad is reported as a wheel event with Ctrl, in smaller steps.
    camera.zoomAt(Math.exp(-event.deltaY * lines * (event.ctrlKey ? 0.01 : 0.002)), ...place(event));
    moved(false);
  }, { passive: false });
  element.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !press(camera, event.key)) return;
    event.preventDefault();
    moved(true);
  });
}

/** Applies a key to a camera; returns whether the key has a meaning. */
function press(camera, key) {
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

/** The rectangle [left, top, width, height] with two opposite corners. */
function between([x1, y1], [x2, y2]) {
  return [Math.min(x1, x2), Math.min(y1, y2), Math.abs(x2 - x1), Math.abs(y2 - y1)];
}
