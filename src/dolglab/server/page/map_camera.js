// The visible part of the map: a centre and a zoom. All photos lie in the unit square. See gestures.js.

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
