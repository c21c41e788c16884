// An equirectangular projection of a small area: degrees to pixels and back, graticule and scale bar.

// Metres per degree of latitude, and the smallest area that is fitted into the view, in degrees.
const DEGREE = 111_195;
const LEAST = 0.002;
const STEPS = [90, 45, 30, 15, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002, 0.0001];

/** A view of the earth; a camera, see gestures.js. */
export class Projection {
  constructor() {
    Object.assign(this, { width: 1, height: 1 });
    this.cover([0], [0]);
  }

  /** Shows these points with a margin. */
  cover(latitudes, longitudes) {
    const ends = (values) => values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
    Object.assign(this, { latitudes: ends(latitudes), longitudes: ends(longitudes) });
    this.reset();
  }

  /** Shows all points again. `scale` is in pixels per degree of latitude. */
  reset() {
    const { latitudes: [south, north], longitudes: [west, east], width, height } = this;
    Object.assign(this, { latitude: (south + north) / 2, longitude: (west + east) / 2 });
    const wide = (east - west) * narrowing(this.latitude);
    this.scale = 0.85 * Math.min(height / Math.max(north - south, LEAST), width / Math.max(wide, LEAST));
  }

  /** Pixel coordinates [x, y] of a point. */
  place(latitude, longitude) {
    const x = this.width / 2 + (longitude - this.longitude) * narrowing(this.latitude) * this.scale;
    return [x, this.height / 2 - (latitude - this.latitude) * this.scale];
  }

  /** Latitude and longitude of a pixel. */
  back(x, y) {
    const longitude = this.longitude + (x - this.width / 2) / (narrowing(this.latitude) * this.scale);
    return [this.latitude - (y - this.height / 2) / this.scale, longitude];
  }

  get west() { return this.back(0, 0)[1]; }
  get east() { return this.back(this.width, 0)[1]; }
  get north() { return this.back(0, 0)[0]; }
  get south() { return this.back(0, this.height)[0]; }

  /** Metres per pixel. */
  get metres() { return DEGREE / this.scale; }

  /** Sets the size of the view in pixels. */
  resize(width, height) {
    Object.assign(this, { width, height });
  }

  /** Moves the map by pixels. */
  pan(dx, dy) {
    const [latitude, longitude] = this.back(this.width / 2 - dx, this.height / 2 - dy);
    this.latitude = Math.max(-85, Math.min(85, latitude));
    this.longitude = longitude;
  }

  /** Zooms by a factor and keeps the point at a pixel in place. */
  zoomAt(factor, x = this.width / 2, y = this.height / 2) {
    const before = this.back(x, y);
    this.scale = Math.max(this.height / 360, Math.min(1e7, this.scale * factor));
    const after = this.back(x, y);
    this.latitude = Math.max(-85, Math.min(85, this.latitude + before[0] - after[0]));
    this.longitude += before[1] - after[1];
  }
}

/** Round values between two angles, about `about` of them, with their labels. */
export function steps(low, high, positive, negative, about) {
  const step = STEPS.findLast((one) => (high - low) / one <= Math.max(1, about)) ?? STEPS[0];
  const digits = Math.max(0, Math.ceil(-Math.log10(step)));
  const found = [];
  for (let at = Math.ceil(low / step); at * step <= high; at++) {
    const value = at * step;
    const side = Math.abs(value) < step / 2 ? "" : value > 0 ? positive : negative;
    found.push({ value, label: `${Math.abs(value).toFixed(digits)}°${side}` });
  }
  return found;
}

/** A length of 1, 2 or 5 times a power of ten that is at most `most` pixels long. */
export function scaleBar(metres, most) {
  const power = 10 ** Math.floor(Math.log10(metres * most));
  const length = [5, 2, 1].map((one) => one * power).find((one) => one <= metres * most);
  return { pixels: length / metres, label: length < 1000 ? `${length} m` : `${(length / 1000).toLocaleString("en")} km` };
}

function narrowing(latitude) {
  return Math.max(0.05, Math.cos((latitude * Math.PI) / 180));
}
