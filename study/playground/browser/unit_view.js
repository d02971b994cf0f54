// One unit of the network, opened: its weights as a picture, its sum and its threshold, both of
// which can be changed.

// begins(): a change is about to be made, whose effect on all bits is to be marked.
function unitView(root, model, begins) {
  const section = element("section", "one-unit", root, { "aria-label": "One unit" });
  element("h4", "title", section, {}, "One unit: click a bit above, or choose");
  const form = element("div", "controls", section);
  const depth = model.get("thresholds").length;
  const [layer, n] = ["Layer ", "Unit "].map((text) =>
    element("input", "number", element("label", "pick", form, {}, text), { type: "number", min: 1 }),
  );
  Object.assign(layer, { max: depth, value: 1 });
  Object.assign(n, { min: 0, value: 0 });
  const restore = element("button", "restore", form, { type: "button" }, "As trained");
  const body = element("div", "unit-body", section);
  const weights = element("canvas", "weights", body, { tabindex: 0, role: "application" });
  const beside = element("div", "unit-beside", body);
  const told = element("p", "unit-told", beside, { "aria-live": "polite" });
  const label = element("label", "slider", beside, {}, "Threshold ");
  const value = element("output", "at", label);
  const slider = element("input", "threshold", label, { type: "range", step: 1 });
  const help =
    "Move the threshold and see which bits of the layers behind follow, and the scores. Click a " +
    "weight to flip it (with keys: arrows, then Enter): the sum changes by 2, in the first layer " +
    "by 2 |2p − 255| for a pixel of value p.";
  element("p", "note", beside, {}, help);
  let sums = null;
  let opened = null;
  let cursor = 0;
  let sliding = false;

  const place = () => [layer.value - 1, Number(n.value)];

  function paint() {
    const { bits } = tints();
    paintPixels(weights, opened.inputs, (k) => bits[bit(opened.weights, k)]);
    if (document.activeElement !== weights) return;
    const context = weights.getContext("2d");
    context.fillStyle = "#de8f05";
    context.fillRect(cursor % weights.width, Math.floor(cursor / weights.width), 1, 1);
  }

  function show(own = sums) {
    sums = own;
    const [i, unit] = place();
    if (!sums || !(sums[i]?.length > unit && unit >= 0)) return;
    opened = model.unit(i, unit);
    n.max = sums[i].length - 1;
    const side = i === 0 ? SIDE : Math.ceil(Math.sqrt(opened.inputs));
    const height = Math.ceil(opened.inputs / side);
    if (weights.width !== side || weights.height !== height) {
      Object.assign(weights, { width: side, height });
      cursor = 0;
    }
    const flipped = opened.flipped ? ` ${opened.flipped} of its weights are flipped.` : "";
    told.textContent = `Layer ${i + 1}. ${sentence(unit, sums[i][unit], opened.threshold)}${flipped}`;
    const name = `Weights of unit ${unit}, layer ${i + 1}, one pixel each. Arrow keys move, Enter flips.`;
    weights.setAttribute("aria-label", name);
    const reach = sums[i].reduce((most, sum) => Math.max(most, Math.abs(sum)), 1);
    Object.assign(slider, { min: -reach, max: reach + 1, value: opened.threshold });
    value.textContent = Math.abs(opened.threshold) < CONSTANT ? signed(opened.threshold) : "";
    slider.setAttribute("aria-valuetext", `${opened.threshold}; the sum is ${sums[i][unit]}`);
    paint();
  }

  function select(i, unit) {
    layer.value = i + 1;
    n.value = unit;
    show();
  }

  function flip(k) {
    if (k < 0 || k >= opened.inputs) return;
    begins();
    model.flipWeight(...place(), k);
  }

  for (const input of [layer, n]) input.addEventListener("input", () => show());
  slider.addEventListener("input", () => {
    if (!sliding) begins();
    sliding = true;
    model.setThreshold(...place(), Number(slider.value));
  });
  slider.addEventListener("change", () => (sliding = false));
  restore.addEventListener("click", () => {
    begins();
    model.restore();
  });
  weights.addEventListener("click", (event) => {
    const [x, y] = pixelAt(weights, event);
    cursor = y * weights.width + x;
    flip(cursor);
  });
  weights.addEventListener("keydown", (event) => {
    const [x, y] = ARROWS[event.key] ?? [0, 0];
    if (event.key === "Enter" || event.key === " ") flip(cursor);
    else if (!ARROWS[event.key]) return;
    event.preventDefault();
    const next = cursor + x + y * weights.width;
    if (next >= 0 && next < opened.inputs) cursor = next;
    paint();
  });
  for (const kind of ["focus", "blur"]) weights.addEventListener(kind, () => opened && paint());
  return { select, show };
}
