// A packed network in plain JavaScript: bits in words of 32, XNOR, popcount, integer thresholds.
// It reads the blob that bnnlib.export.js writes and computes what bnnlib.packed does, bit by bit.

const SIDE = 28; // of MNIST's pictures, in pixels
const PIXELS = SIDE * SIDE;
const DIGIT_CLASSES = 10;
const BOX = 20; // digits are scaled to fit a box of so many pixels
const CENTRE = 14; // where a digit's centre of mass lies
const PLANES = 8; // bits of a pixel
const ALWAYS = -(2 ** 31); // thresholds of units that never change
const NEVER = 2 ** 31 - 1;
const LARGEST = 2 ** 20; // of inputs or units of a layer: a sum of pixels stays below 2 ** 31

// How many of a word's 32 bits are 1.
function popcount(x) {
  x -= (x >>> 1) & 0x55555555;
  x = (x & 0x33333333) + ((x >>> 2) & 0x33333333);
  return Math.imul((x + (x >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

// At how many places a row of words, which begins at `at`, differs from x.
function differ(x, rows, at) {
  let found = 0;
  for (let i = 0; i < x.length; i++) found += popcount(x[i] ^ rows[at + i]);
  return found;
}

function setBit(words, i) {
  words[i >>> 5] |= 1 << (i & 31);
}

function decodeBase64(text) {
  return Uint8Array.from(atob(text.trim()), (letter) => letter.charCodeAt(0));
}

function crc32(bytes) {
  let remainder = -1;
  for (const byte of bytes) {
    remainder ^= byte;
    for (let i = 0; i < 8; i++) remainder = (remainder >>> 1) ^ (remainder & 1 ? 0xedb88320 : 0);
  }
  return ~remainder >>> 0;
}

// Bytes -> { layers, last } of any sizes; layers have units, inputs, width (words of a row), rows, thresholds;
// the last has scores (inputs + 1 of each class). Throws an Error that says what is wrong.
function readNetwork(bytes) {
  check(bytes.length >= 12 && bytes.length % 4 === 0, `${bytes.length} bytes are no network`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  check(String.fromCharCode(...bytes.subarray(0, 4)) === "BNN1", "it doesn't begin with BNN1");
  const end = bytes.length - 4;
  let at = 4;
  const number = () => view.getUint32((at += 4) - 4, true);
  const numbers = (Kind, count, read) => {
    check(at + 4 * count <= end, "it ends too early");
    const taken = Kind.from({ length: count }, (_, i) => view[read](at + 4 * i, true));
    at += 4 * count;
    return taken;
  };
  const layers = readSizes(number, (bytes.length - 12) / 8);
  const sizes = layers.reduce((sum, layer) => sum + sizeOf(layer), 12 + 8 * layers.length);
  check(sizes === bytes.length, `its layers take ${sizes} bytes, but it has ${bytes.length}`);
  check(view.getUint32(end, true) === crc32(bytes.subarray(0, end)), "its checksum is wrong");
  for (const [i, layer] of layers.entries()) {
    layer.rows = numbers(Uint32Array, layer.units * layer.width, "getUint32");
    requireEmptyEnds(layer, i);
    if (layer.isLast) {
      layer.scores = numbers(Float32Array, layer.units * (layer.inputs + 1), "getFloat32");
      check(layer.scores.every(Number.isFinite), "a score is no finite number");
    } else {
      layer.thresholds = numbers(Int32Array, layer.units, "getInt32");
      requireReachable(layer, i);
    }
  }
  return { layers: layers.slice(0, -1), last: layers.at(-1) };
}

function check(holds, otherwise) {
  if (!holds) throw new Error(`The network can't be read: ${otherwise}.`);
}

function readSizes(number, most) {
  const count = number();
  check(count >= 2 && count <= most, `it claims ${count} layers`);
  let before = null;
  return Array.from({ length: count }, (_, i) => {
    const units = number();
    const inputs = number();
    check(inputs === (before ?? inputs), `layer ${i + 1} has ${inputs} inputs instead of ${before}`);
    check(inputs >= 1 && inputs < LARGEST, `layer ${i + 1} has ${inputs} inputs`);
    check(units >= 1 && units < LARGEST, `layer ${i + 1} has ${units} units`);
    before = units;
    const isLast = i === count - 1;
    check(!isLast || units >= 2, `it has ${units} classes`);
    return { units, inputs, width: Math.ceil(inputs / 32), isLast };
  });
}

// Throws an Error unless a network reads MNIST's pictures and has ten classes, as pages draw them.
function requireDigits({ layers, last }) {
  const inputs = layers[0].inputs;
  check(inputs === PIXELS, `it reads ${inputs} pixels, and digits have ${PIXELS}`);
  check(last.units === DIGIT_CLASSES, `it has ${last.units} classes, and there are ${DIGIT_CLASSES} digits`);
}

function sizeOf({ units, inputs, width, isLast }) {
  return 4 * units * (width + (isLast ? inputs + 1 : 1));
}

function requireEmptyEnds({ rows, units, inputs, width }, i) {
  if (inputs % 32 === 0) return;
  for (let n = 1; n <= units; n++) {
    const behind = rows[n * width - 1] >>> (inputs & 31);
    check(behind === 0, `layer ${i + 1} has a bit behind the last input of unit ${n - 1}`);
  }
}

function requireReachable({ thresholds, inputs }, i) {
  const largest = inputs * (i === 0 ? 255 : 1);
  for (const [n, t] of thresholds.entries()) {
    const possible = Math.abs(t) <= largest || t === ALWAYS || t === NEVER;
    check(possible, `the threshold of unit ${n} in layer ${i + 1} is ${t}`);
  }
}

// Pixels -> their eight bit-planes, lowest first, one behind the other.
function bitPlanes(pixels) {
  const width = Math.ceil(pixels.length / 32);
  const planes = new Uint32Array(PLANES * width);
  pixels.forEach((pixel, i) => {
    for (let b = 0; b < PLANES; b++) {
      if ((pixel >> b) & 1) setBit(planes.subarray(b * width, (b + 1) * width), i);
    }
  });
  return planes;
}

// Sums over the integers 2 p - 255: a plane's signs weigh 1, 2, 4, ..., 128.
function planeSums(planes, { units, inputs, width, rows }) {
  const sums = new Int32Array(units);
  for (let b = 0; b < PLANES; b++) {
    const plane = planes.subarray(b * width, (b + 1) * width);
    for (let n = 0; n < units; n++) {
      sums[n] += (inputs - 2 * differ(plane, rows, n * width)) << b;
    }
  }
  return sums;
}

function signSums(words, { units, inputs, width, rows }) {
  return Int32Array.from({ length: units }, (_, n) => inputs - 2 * differ(words, rows, n * width));
}

function thresholdBits(sums, thresholds) {
  const words = new Uint32Array(Math.ceil(sums.length / 32));
  for (let n = 0; n < sums.length; n++) if (sums[n] >= thresholds[n]) setBit(words, n);
  return words;
}

// All that happens while the network reads a picture: its pixels, by channel, row and column, ->
// { planes, layers, scores, predicted }, where layers have sums and words. Throws an Error for
// another number of pixels.
function lookInside(network, pixels) {
  const wanted = network.layers[0].inputs;
  if (pixels.length !== wanted) {
    throw new Error(`The network reads ${wanted} pixels, not ${pixels.length}.`);
  }
  const planes = bitPlanes(pixels);
  let x = null;
  const layers = network.layers.map((layer) => {
    const sums = x ? signSums(x, layer) : planeSums(planes, layer);
    x = thresholdBits(sums, layer.thresholds);
    return { sums, words: x };
  });
  const { units, inputs, width, rows, scores: table } = network.last;
  const scores = Array.from(
    { length: units },
    (_, n) => table[n * (inputs + 1) + differ(x, rows, n * width)],
  );
  return { planes, layers, scores, predicted: scores.indexOf(Math.max(...scores)) };
}

// A drawing (side x side) of greys, bright on 0 -> 784 pixels as MNIST's digits were made: scaled
// to fit a box of 20 x 20, its centre of mass in the middle. The same as `as_mnist` in Python.
function asMnist(drawing, side) {
  const field = new Uint8Array(PIXELS);
  const box = inkBox(drawing, side);
  if (!box) return field;
  const longer = Math.max(box.height, box.width);
  const [height, width] = [box.height, box.width].map((n) =>
    Math.max(1, roundToEven((BOX * n) / longer)),
  );
  const narrow = boxFilter(box.ink, box.height, box.width, width); // columns, then rows, as Pillow
  const digit = transpose(
    boxFilter(transpose(narrow, box.height, width), width, box.height, height),
    width,
    height,
  );
  const rowInk = new Array(height).fill(0);
  const columnInk = new Array(width).fill(0);
  digit.forEach((grey, i) => {
    rowInk[Math.floor(i / width)] += grey;
    columnInk[i % width] += grey;
  });
  const [top, left] = [first(rowInk), first(columnInk)];
  for (let y = 0; y < height; y++) {
    field.set(digit.subarray(y * width, (y + 1) * width), (top + y) * SIDE + left);
  }
  return field;
}

// The smallest rectangle that holds all ink; null where there is none.
function inkBox(drawing, side) {
  let [top, bottom, left, right] = [side, -1, side, -1];
  drawing.forEach((grey, i) => {
    if (!grey) return;
    const [y, x] = [Math.floor(i / side), i % side];
    [top, bottom] = [Math.min(top, y), Math.max(bottom, y)];
    [left, right] = [Math.min(left, x), Math.max(right, x)];
  });
  if (bottom < 0) return null;
  const [height, width] = [bottom - top + 1, right - left + 1];
  const ink = new Uint8Array(height * width);
  for (let y = 0; y < height; y++) {
    const at = (top + y) * side + left;
    ink.set(drawing.subarray(at, at + width), y * width);
  }
  return { ink, height, width };
}

// Where rows, or columns, with so much ink begin, so that their mean is at CENTRE.
function first(ink) {
  const total = ink.reduce((sum, each) => sum + each, 0);
  const mean = ink.reduce((sum, each, i) => sum + each * i, 0) / Math.max(1, total);
  return Math.min(Math.max(0, roundToEven(CENTRE - mean)), SIDE - ink.length);
}

// As Python rounds: a half goes to the even neighbour.
function roundToEven(x) {
  const below = Math.floor(x);
  if (x - below !== 0.5) return Math.round(x);
  return below % 2 === 0 ? below : below + 1;
}

// Rows of `width` greys -> rows of `size`, each the mean of what it covers, in Pillow's fixed-point
// numbers (libImaging/Resample.c: 22 bits behind the point).
function boxFilter(greys, height, width, size) {
  if (width === size) return greys;
  const scale = width / size;
  const reach = Math.max(1, scale);
  const made = new Uint8Array(height * size);
  for (let x = 0; x < size; x++) {
    const centre = (x + 0.5) * scale;
    const begin = Math.max(0, Math.trunc(centre - 0.5 * reach + 0.5));
    const end = Math.min(width, Math.trunc(centre + 0.5 * reach + 0.5));
    const weights = [];
    for (let i = begin; i < end; i++) {
      const place = (i - centre + 0.5) * (1 / reach);
      weights.push(place > -0.5 && place <= 0.5 ? 1 : 0);
    }
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    const fixed = weights.map((weight) => Math.trunc(0.5 + (weight / total) * 2 ** 22));
    for (let y = 0; y < height; y++) {
      let sum = 2 ** 21;
      for (let i = begin; i < end; i++) sum += greys[y * width + i] * fixed[i - begin];
      made[y * size + x] = Math.min(255, Math.floor(sum / 2 ** 22));
    }
  }
  return made;
}

function transpose(greys, height, width) {
  return Uint8Array.from(
    { length: greys.length },
    (_, i) => greys[(i % height) * width + Math.floor(i / height)],
  );
}
