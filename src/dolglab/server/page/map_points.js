// The photos of a map as points, and drawing them: 100,000 discs are set pixel by pixel, which a canvas's own are too
// slow for.

/**
 * The points of what `GET /api/map` says, in an order that has nothing to do with their places, so that of some that
 * cover each other none is always the upper one. `x` and `y` lie in the unit square, y downwards.
 */
export function points(map) {
  const ids = new Uint32Array(bytes(map.ids).buffer);
  const places = new Float32Array(bytes(map.coordinates).buffer);
  const codes = bytes(map.codes);
  const count = ids.length;
  const low = [Infinity, Infinity], high = [-Infinity, -Infinity];
  for (let at = 0; at < 2 * count; at++) {
    low[at & 1] = Math.min(low[at & 1], places[at]);
    high[at & 1] = Math.max(high[at & 1], places[at]);
  }
  const side = Math.max(high[0] - low[0], high[1] - low[1]) || 1;
  const made = { count, ids: new Uint32Array(count), codes: new Uint8Array(count), x: new Float64Array(count), y: new Float64Array(count) };
  const step = coprime(count);
  for (let at = 0, from = 0; at < count; at++, from = (from + step) % count) {
    made.ids[at] = ids[from];
    made.codes[at] = codes[from];
    made.x[at] = 0.5 + (places[2 * from] - (low[0] + high[0]) / 2) / side;
    made.y[at] = 0.5 - (places[2 * from + 1] - (low[1] + high[1]) / 2) / side;
  }
  return made;
}

/** Draws points on a canvas, whose pixels are `ratio` times a camera's. */
export class PointCanvas {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: false });
  }

  /** Has the canvas be as large as a camera's view. */
  resize(camera, ratio) {
    const width = Math.max(1, Math.round(camera.width * ratio)), height = Math.max(1, Math.round(camera.height * ratio));
    if (this.image?.width === width && this.image.height === height) return;
    Object.assign(this.canvas, { width, height });
    this.image = this.context.createImageData(width, height);
    this.pixels = new Uint32Array(this.image.data.buffer);
  }

  /**
   * Draws `points`. `colours` are [red, green, blue] by code, `paper` that of the ground, `behind` which codes are drawn
   * first, `radius` that of a disc in the camera's pixels. Gives the places in `points` of those in view.
   */
  draw(points, camera, { ratio, colours, paper, behind, radius }) {
    this.resize(camera, ratio);
    const { pixels, image: { width, height } } = this;
    const disc = cover(radius * ratio), reach = Math.ceil(radius * ratio) + 1;
    const scale = camera.scale * ratio, ink = colours.map(packed);
    const left = width / 2 - camera.x * scale, top = height / 2 - camera.y * scale;
    const { x, y, codes, count } = points;
    if (this.seen?.length !== count) this.seen = new Uint32Array(count);
    let found = 0;
    pixels.fill(packed(paper));
    for (const first of [true, false]) {
      for (let at = 0; at < count; at++) {
        const code = codes[at];
        if (behind[code] !== first) continue;
        const column = Math.round(x[at] * scale + left), row = Math.round(y[at] * scale + top);
        if (column < -reach || row < -reach || column >= width + reach || row >= height + reach) continue;
        if (column >= 0 && row >= 0 && column < width && row < height) this.seen[found++] = at;
        const inside = column >= reach && row >= reach && column < width - reach && row < height - reach;
        paint(pixels, width, height, column, row, ink[code], disc, inside);
      }
    }
    this.context.putImageData(this.image, 0, 0);
    return this.seen.subarray(0, found);
  }
}

function paint(pixels, width, height, column, row, ink, disc, inside) {
  const even = ink & 0xff00ff, odd = ink & 0x00ff00;
  for (let at = 0; at < disc.length; at += 3) {
    const x = column + disc[at], y = row + disc[at + 1], alpha = disc[at + 2];
    if (!inside && (x < 0 || y < 0 || x >= width || y >= height)) continue;
    const place = y * width + x;
    if (alpha === 256) {
      pixels[place] = ink;
      continue;
    }
    // Two of the three channels at once.
    const under = pixels[place], rest = 256 - alpha;
    const mixed = (((under & 0xff00ff) * rest + even * alpha) >>> 8) & 0xff00ff;
    pixels[place] = (mixed | ((((under & 0x00ff00) * rest + odd * alpha) >>> 8) & 0x00ff00) | 0xff000000) >>> 0;
  }
}

/** The pixels of a disc: [x, y, 256ths that it covers] of each, one after the other. */
function cover(radius) {
  const found = [], reach = Math.ceil(radius);
  for (let y = -reach; y <= reach; y++) {
    for (let x = -reach; x <= reach; x++) {
      const alpha = Math.round(256 * Math.min(1, Math.max(0, radius + 0.5 - Math.hypot(x, y))));
      if (alpha) found.push(x, y, alpha);
    }
  }
  return Int32Array.from(found);
}

function packed([red, green, blue]) {
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}

/** A step that visits each of `count` places once, about the golden section of them. */
function coprime(count) {
  const common = (a, b) => (b ? common(b, a % b) : a);
  let step = Math.max(1, Math.floor(count * 0.618));
  while (common(step, count) > 1) step++;
  return step;
}

function bytes(base64) {
  const text = atob(base64);
  const made = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at++) made[at] = text.charCodeAt(at);
  return made;
}
