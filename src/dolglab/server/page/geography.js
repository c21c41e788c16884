// An equirectangular projection of a small area: degrees to pixels and back, graticule and scale bar.

// Metres per degree of latitude, and the smallest area that is fitted into the view, in degrees.
const DEGREE = 111_195;
const LEAST = 0.002;
const STEPS = [90, 45, 30, 15, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001, 0.0005, 0.0002, 0.0001];

export class Projection {
  /** A view centred on a point; `scale` is in pixels per degree of latitude, `width` and `height` in pixels. */
  constructor(latitude, longitude, scale, width, height) {
    Object.assign(this, { latitude, longitude, scale, width, height });
  }

  /** A view of all points with a margin. */
  static around(latitudes, longitudes, width, height) {
    const [south, north] = ends(latitudes);
    const [west, east] = ends(longitudes);
    const latitude = (south + north) / 2;
    const high = Math.max(north - south, LEAST);
    const wide = Math.max((east - west) * narrowing(latitude), LEAST);
    return new Projection(latitude, (west + east) / 2, 0.85 * Math.min(height / high, width / wide), width, height);
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

  resize(width, height) {
    Object.assign(this, { width, height });
  }

  move(x, y) {
    const [latitude, longitude] = this.back(this.width / 2 + x, this.height / 2 + y);
    this.latitude = Math.max(-85, Math.min(85, latitude));
    this.longitude = longitude;
  }

  /** Zooms by a factor and keeps the point at a pixel in place. */
  zoom(factor, x, y) {
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

function ends(values) {
  return values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]);
}

function narrowing(latitude) {
  return Math.max(0.05, Math.cos((latitude * Math.PI) / 180));
}
