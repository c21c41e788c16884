// Draws photos as points. Discs are written pixel by pixel, because 100,000 arcs of a canvas would be too slow.

/**
 * The points of a response of `GET /api/map`, with `x` and `y` in the unit square, y downwards. They are shuffled, so that
 * no group of photos is always drawn on top of another.
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

/** Draws points on a canvas. */
export class PointCanvas {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: false });
  }

  /**
   * Draws `points` and returns the indices of those in view. `ratio` is canvas pixels per CSS pixel, `radius` the radius
   * of a disc in CSS pixels, `colours` maps codes to [red, green, blue], `paper` is the background, and `behind` says for
   * each code whether it is drawn below the others.
   */
  draw(points, camera, { ratio, radius, colours, paper, behind }) {
    const look = JSON.stringify([colours, paper, behind]);
    const size = [Math.max(1, Math.round(camera.width * ratio)), Math.max(1, Math.round(camera.height * ratio))];
    const scale = camera.scale * ratio;
    const drawn = JSON.stringify([look, ...size, scale, radius * ratio]);
    // Offsets are whole pixels, so that the previous image can be shifted.
    const left = Math.round(size[0] / 2 - camera.x * scale), top = Math.round(size[1] / 2 - camera.y * scale);
    const right = left - this.left, down = top - this.top;
    const movable = points === this.points && drawn === this.drawn && Math.abs(right) < size[0] && Math.abs(down) < size[1];
    if (points !== this.points || look !== this.look) this.#sort(points, colours, behind);
    Object.assign(this, { points, look, drawn, left, top, ground: packed(paper) });
    if (movable) this.#move(right, down);
    else {
      this.#resize(...size);
      this.#place(scale);
      this.disc = disc(radius * ratio, size[0]);
      this.#fill(0, 0, ...size);
    }
    this.context.setTransform(1, 0, 0, 1, 0, 0);
    this.context.putImageData(this.image, 0, 0);
    return this.#inView();
  }

  /** Sorts the points into drawing order. */
  #sort({ count, codes, x, y }, colours, behind) {
    const inks = colours.map(packed);
    const places = Uint32Array.from({ length: count }, (_, at) => at);
    const order = [places.filter((at) => behind[codes[at]]), places.filter((at) => !behind[codes[at]])];
    this.places = new Uint32Array(count);
    this.places.set(order[0]);
    this.places.set(order[1], order[0].length);
    this.inks = Int32Array.from(this.places, (at) => inks[codes[at]]);
    this.x = Float64Array.from(this.places, (at) => x[at]);
    this.y = Float64Array.from(this.places, (at) => y[at]);
    [this.columns, this.rows, this.seen] = [new Int32Array(count), new Int32Array(count), new Uint32Array(count)];
  }

  #resize(width, height) {
    if (this.image?.width === width && this.image.height === height) return;
    Object.assign(this.canvas, { width, height });
    this.image = this.context.createImageData(width, height);
    this.pixels = new Int32Array(this.image.data.buffer);
  }

  /** Computes the pixels of the points relative to the offset of the map. */
  #place(scale) {
    const { x, y, columns, rows } = this;
    for (let at = 0; at < x.length; at++) {
      columns[at] = x[at] * scale + 0.5;
      rows[at] = y[at] * scale + 0.5;
    }
  }

  /** Shifts the previous image and draws only the uncovered margins. */
  #move(right, down) {
    const { pixels, image: { width, height } } = this;
    const by = down * width + right;
    if (by > 0) pixels.copyWithin(by, 0);
    else pixels.copyWithin(0, -by);
    if (right) this.#fill(right > 0 ? 0 : width + right, 0, Math.abs(right), height);
    if (down) this.#fill(0, down > 0 ? 0 : height + down, width, Math.abs(down));
  }

  /** Draws a rectangle of the canvas. */
  #fill(x, y, wide, high) {
    const { pixels, columns, rows, inks, disc, ground, image: { width } } = this;
    const { reach } = disc, left = this.left - x, top = this.top - y;
    for (let row = y; row < y + high; row++) pixels.fill(ground, row * width + x, row * width + x + wide);
    for (let at = 0; at < inks.length; at++) {
      const column = columns[at] + left, row = rows[at] + top;
      if (column < -reach || row < -reach || column >= wide + reach || row >= high + reach) continue;
      const place = (row + y) * width + column + x;
      if (column >= reach && row >= reach && column < wide - reach && row < high - reach) paint(pixels, place, inks[at], disc);
      else paintWithin(pixels, place, inks[at], disc, column, row, wide, high);
    }
  }

  #inView() {
    const { columns, rows, places, seen, left, top, image: { width, height } } = this;
    let found = 0;
    for (let at = 0; at < places.length; at++) {
      const column = columns[at] + left, row = rows[at] + top;
      if (column >= 0 && row >= 0 && column < width && row < height) seen[found++] = places[at];
    }
    return seen.subarray(0, found);
  }
}

/** The pixels of a disc: offsets from its centre in x, y and in the pixel array, and coverage in 256ths. */
function disc(radius, width) {
  const reach = Math.ceil(radius), found = [];
  for (let y = -reach; y <= reach; y++) {
    for (let x = -reach; x <= reach; x++) {
      const alpha = Math.round(256 * Math.min(1, Math.max(0, radius + 0.5 - Math.hypot(x, y))));
      if (alpha) found.push([x, y, y * width + x, alpha]);
    }
  }
  const [x, y, offsets, alphas] = [0, 1, 2, 3].map((part) => Int32Array.from(found, (one) => one[part]));
  return { reach, x, y, offsets, alphas };
}

function paint(pixels, place, ink, { offsets, alphas }) {
  for (let at = 0; at < offsets.length; at++) {
    const alpha = alphas[at];
    pixels[place + offsets[at]] = alpha === 256 ? ink : mixed(pixels[place + offsets[at]], ink, alpha);
  }
}

/** As `paint`, for a disc that lies partly outside a rectangle of `wide` x `high` pixels. */
function paintWithin(pixels, place, ink, { x, y, offsets, alphas }, column, row, wide, high) {
  for (let at = 0; at < offsets.length; at++) {
    const left = column + x[at], top = row + y[at];
    if (left < 0 || top < 0 || left >= wide || top >= high) continue;
    pixels[place + offsets[at]] = mixed(pixels[place + offsets[at]], ink, alphas[at]);
  }
}

/** Blends a colour over another. Red and blue are computed in one multiplication. */
function mixed(under, ink, alpha) {
  const rest = 256 - alpha;
  const even = Math.imul(under & 0xff00ff, rest) + Math.imul(ink & 0xff00ff, alpha);
  const odd = Math.imul(under & 0x00ff00, rest) + Math.imul(ink & 0x00ff00, alpha);
  return ((even >>> 8) & 0xff00ff) | ((odd >>> 8) & 0x00ff00) | 0xff000000;
}

const packed = ([red, green, blue]) => 0xff000000 | (blue << 16) | (green << 8) | red;

/** A step, coprime to `count` and near its golden section, that visits each index once. */
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
