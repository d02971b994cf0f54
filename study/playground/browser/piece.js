// What the small pieces share: where they stand, sliders, a chart, random numbers.

// Calls start(root) where a piece of this name stands, in a group that a screen reader names.
function startPiece(name, title, start) {
  for (const place of document.querySelectorAll(`[data-piece="${name}"]`)) {
    const root = element("section", "small", place, { "aria-label": title });
    element("h4", "title", root, {}, title);
    start(root);
  }
}

// A slider with its value in words; hears() after each change. -> () => its value.
function slider(parent, text, min, max, step, value, words, hears) {
  const label = element("label", "slider", parent, {}, `${text} `);
  const told = element("output", "at", label);
  const input = element("input", "range", label, { type: "range", min, max, step, value });
  const say = () => {
    told.textContent = words(Number(input.value));
    input.setAttribute("aria-valuetext", told.textContent);
  };
  input.addEventListener("input", () => [say, hears].forEach((each) => each()));
  say();
  return () => Number(input.value);
}

const CHART = { height: 240, left: 52, right: 16, top: 10, bottom: 40 };

function svg(tag, parent, attributes, text = "") {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  parent.append(made);
  return made;
}

// A chart with axes x and y: { from, to, ticks, title }. -> { clear, line, dot, across, say }.
function chart(parent, x, y) {
  const { height, left, right, top, bottom } = CHART;
  const width = Math.max(280, Math.min(640, parent.clientWidth)); // its letters keep their size
  const viewBox = `0 0 ${width} ${height}`;
  const root = svg("svg", parent, { class: "bnn-chart", viewBox, role: "img" });
  const share = (axis, value) => (value - axis.from) / (axis.to - axis.from);
  const atX = (value) => left + share(x, value) * (width - left - right);
  const atY = (value) => height - bottom - share(y, value) * (height - top - bottom);
  for (const tick of x.ticks) {
    svg("text", root, { x: atX(tick), y: height - 22, "text-anchor": "middle" }, signed(tick));
  }
  for (const tick of y.ticks) {
    svg("line", root, { class: "bnn-grid", x1: left, x2: width - right, y1: atY(tick), y2: atY(tick) });
    svg("text", root, { x: left - 8, y: atY(tick) + 4, "text-anchor": "end" }, signed(tick));
  }
  svg("text", root, { x: (left + width) / 2, y: height - 4, "text-anchor": "middle" }, x.title);
  const turned = `translate(14 ${(height - bottom + top) / 2}) rotate(-90)`;
  svg("text", root, { transform: turned, "text-anchor": "middle" }, y.title);
  const inside = svg("g", root, {});
  return {
    clear: () => inside.replaceChildren(),
    say: (words) => root.setAttribute("aria-label", words),
    dot: (name, px, py) =>
      svg("circle", inside, { class: `bnn-${name}`, cx: atX(px), cy: atY(py), r: 6 }),
    across: (name, py) =>
      svg("line", inside, {
        class: `bnn-${name}`, x1: left, x2: width - right, y1: atY(py), y2: atY(py),
      }),
    line: (name, points) =>
      svg("polyline", inside, {
        class: `bnn-line bnn-${name}`,
        points: points.map(([px, py]) => `${atX(px).toFixed(1)},${atY(py).toFixed(1)}`).join(" "),
      }),
  };
}

// -> () => a number in [0, 1), the same sequence for the same seed (mulberry32).
function random(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let z = Math.imul(seed ^ (seed >>> 15), seed | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return ((z ^ (z >>> 14)) >>> 0) / 2 ** 32;
  };
}

// A number drawn from the standard normal distribution.
function normal(draw) {
  return Math.sqrt(-2 * Math.log(1 - draw())) * Math.cos(2 * Math.PI * draw());
}

function times(count, make) {
  return Array.from({ length: count }, (_, i) => make(i));
}

function dot(a, b) {
  return a.reduce((sum, each, i) => sum + each * b[i], 0);
}

function mean(values) {
  return values.reduce((sum, each) => sum + each, 0) / values.length;
}
