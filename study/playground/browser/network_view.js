// What is inside the network: scores, bit-planes, and of each layer bits, sums and thresholds.

const PLOT = { width: 512, height: 288 }; // of sums and thresholds, in pixels
const DOT = 3;
const FLIPPED = [[204, 90, 170], [240, 228, 66]]; // bits that a stroke made -1, and +1
const TINTS = { // of -1, of +1, and of the thresholds; those of the figures by day
  light: { bits: [[202, 145, 97], [1, 115, 178]], line: "#000" },
  dark: { bits: [[138, 98, 64], [86, 180, 233]], line: "#fff" },
};
const NIGHT = matchMedia("(prefers-color-scheme: dark)"); // what a page goes by; JupyterLab has its own
const CONSTANT = 2 ** 31 - 1; // thresholds of units that never change lie this far out

function tints() {
  const light = document.body.dataset.jpThemeLight;
  return (light ? light === "false" : NIGHT.matches) ? TINTS.dark : TINTS.light;
}

function scoreTable(root) {
  const table = element("table", "scores", root);
  element("caption", "scores-title", table, {}, "Class scores");
  const rows = Array.from({ length: 10 }, (_, digit) => {
    const row = element("tr", "score", table);
    element("th", "class", row, { scope: "row" }, digit);
    const bar = element("div", "bar", element("td", "bar-cell", row));
    return { row, bar, value: element("td", "value", row) };
  });
  return (scores, predicted) => {
    const least = Math.min(...scores);
    const range = Math.max(...scores) - least || 1;
    rows.forEach(({ row, bar, value }, digit) => {
      row.classList.toggle("bnn-predicted", digit === predicted);
      bar.style.width = `${(100 * (scores[digit] - least)) / range}%`;
      value.textContent = signed(scores[digit].toFixed(2));
    });
  };
}

function planes(root) {
  const figure = element("section", "planes", root, { "aria-label": "Bit-planes" });
  element("h4", "title", figure, {}, "Its bit-planes, which the first layer reads");
  const row = element("div", "row", figure);
  const canvases = [7, 6, 5, 4, 3, 2, 1, 0].map((n) => {
    const one = element("figure", "plane-figure", row);
    const canvas = picture("plane", one, `Bit-plane of weight ${2 ** n}`, 28, 28);
    element("figcaption", "plane-weight", one, {}, 2 ** n);
    return [n, canvas];
  });
  return (words) => {
    const each = words.length / 8; // bytes of a plane
    for (const [n, canvas] of canvases) {
      const own = words.subarray(n * each, (n + 1) * each);
      paintPixels(canvas, 28 * 28, (i) => GREYS[255 * bit(own, i)]);
    }
  };
}

function paintDot(image, left, top, [r, g, b]) {
  for (let i = 0; i < DOT * DOT; i++) {
    const at = 4 * ((top + Math.floor(i / DOT)) * image.width + left + (i % DOT));
    image.data[at] = r;
    image.data[at + 1] = g;
    image.data[at + 2] = b;
    image.data[at + 3] = 255;
  }
}

// selects(n), where there is more to see of a unit: one was clicked.
function hiddenLayer(row, number, thresholds, selects) {
  const units = thresholds.length;
  const side = Math.ceil(Math.sqrt(units));
  const order = Array.from(thresholds.keys()).sort((a, b) => thresholds[a] - thresholds[b]);
  const finite = thresholds.filter((t) => Math.abs(t) < CONSTANT);
  let reach = finite.reduce((most, t) => Math.max(most, Math.abs(t)), 1); // only ever grows
  const figure = element("figure", "layer", row);
  const title = element("figcaption", "layer-title", figure);
  const bits = picture("bits", figure, "", side, Math.ceil(units / side));
  const plot = picture("sums", figure, "", PLOT.width, PLOT.height);
  const unit = element("p", "unit", figure, {}, "Point at a bit to read its sum.");
  let sums = null;

  function across(rank) {
    return Math.floor((rank / units) * (PLOT.width - DOT));
  }

  function height(value) {
    const clipped = Math.max(-1, Math.min(1, value / reach));
    return Math.floor(((1 - clipped) / 2) * (PLOT.height - DOT));
  }

  function paintSums() {
    reach = sums.reduce((most, sum) => Math.max(most, Math.abs(sum)), reach);
    const context = plot.getContext("2d");
    const image = context.createImageData(PLOT.width, PLOT.height);
    const { bits: colours, line } = tints();
    order.forEach((n, rank) => {
      const rgb = colours[Number(sums[n] >= thresholds[n])];
      paintDot(image, across(rank), height(sums[n]), rgb);
    });
    context.putImageData(image, 0, 0);
    context.beginPath();
    for (let rank = 0; rank < units; rank += Math.ceil(units / PLOT.width)) {
      context.lineTo(across(rank), height(thresholds[order[rank]]));
    }
    context.strokeStyle = line;
    context.lineWidth = 3;
    context.stroke();
  }

  function pointed(event) {
    const [x, y] = pixelAt(bits, event);
    const n = y * side + x;
    return sums && n >= 0 && n < units ? n : null;
  }

  bits.addEventListener("pointermove", (event) => {
    const n = pointed(event);
    if (n !== null) unit.textContent = sentence(n, sums[n], thresholds[n]);
  });
  bits.addEventListener("click", (event) => {
    const n = pointed(event);
    if (n !== null) selects?.(n);
  });

  return (words, own, before) => {
    sums = own;
    const colours = tints().bits;
    const flipped = order.map((_, n) => Boolean(before) && bit(before, n) !== bit(words, n));
    paintPixels(bits, units, (n) => (flipped[n] ? FLIPPED : colours)[bit(words, n)]);
    paintSums();
    const on = order.filter((n) => bit(words, n)).length;
    const changed = before ? `, ${flipped.filter(Boolean).length} flipped` : "";
    title.textContent = `Layer ${number}: ${on} of ${units} bits are +1${changed}`;
    bits.setAttribute("aria-label", `Activations of layer ${number}: ${on} of ${units} are +1`);
    plot.setAttribute("aria-label", `Sums of layer ${number}: ${on} of ${units} reach their threshold`);
  };
}

function sentence(n, sum, threshold) {
  if (Math.abs(threshold) >= CONSTANT) return `Unit ${n} never changes.`;
  const reached = sum >= threshold;
  const [left, right] = [sum, threshold].map(signed);
  return `Unit ${n}: sum ${left} ${reached ? "≥" : "<"} ${right}, so ${reached ? "+1" : "−1"}.`;
}

// selects(layer, n), where there is more to see of a unit: one was clicked.
function layers(root, thresholds, selects) {
  const section = element("section", "layers", root, { "aria-label": "Hidden layers" });
  element("h4", "title", section, {}, "Hidden layers: bits, and the sums that they come from");
  const row = element("div", "row", section);
  const paint = thresholds.map((own, i) =>
    hiddenLayer(row, i + 1, own, selects && ((n) => selects(i, n))),
  );
  const colours =
    "Bits are blue for +1 and brown for −1. The last stroke made yellow ones +1 and pink ones −1.";
  const note =
    "Below each picture of bits, a dot is a unit's integer sum. The line is its threshold, by which " +
    "the units are ordered: a dot on or above the line is +1.";
  element("p", "note", section, {}, colours);
  element("p", "note bnn-sums-note", section, {}, note);
  return (words, sums, before) =>
    paint.forEach((each, i) => each(words[i], sums[i], before?.[i]));
}
