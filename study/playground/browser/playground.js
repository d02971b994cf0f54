// All parts together. The model behind them is study.playground.canvas in JupyterLab's kernel, or on a page
// the engine (page_model.js), which can also open a single unit. Loads nothing.

function headline(answer, ink) {
  if (!ink) return "Nothing is drawn.";
  const said = `The network reads ${answer.predicted}.`;
  if (answer.label === NONE) return said;
  return `${said} The label is ${answer.label}.`;
}

function timing(times) {
  if (times.packed_ms === undefined) return "";
  const ratio = (times.float_ms / times.packed_ms).toPrecision(2);
  const scores = times.equal ? "the same scores" : "scores that differ by rounding";
  return (
    `From a digit's pixels to the scores: ${times.packed_ms.toFixed(2)} ms on bits, ` +
    `${times.float_ms.toFixed(2)} ms in float32, ${ratio} times as long, and ${scores}. Both ran ` +
    `just now in the same kernel; mean of ${times.calls} calls, threads: ${times.threads}. ` +
    "Drawing, scaling and these pictures are not counted."
  );
}

function latencyOf(answer) {
  if (answer.engine_ms !== undefined) {
    return `This prediction took your browser ${answer.engine_ms.toFixed(1)} ms.`;
  }
  return (
    `This drawing took the kernel ${answer.python_ms.toFixed(1)} ms in all, scaling and sums ` +
    `included; ${answer.packed_ms.toFixed(2)} ms of them for one prediction.`
  );
}

function render({ model, el }) {
  // Without this attribute JupyterLab takes arrow keys to mean its cells.
  const root = element("div", "playground", el, {
    role: "group",
    "aria-label": "Playground: draw a digit",
    "data-lm-suppress-shortcuts": "true",
  });
  const top = element("div", "top", root);
  const left = element("div", "left", top);
  let words = null; // of each layer, as they are shown
  let before = null; // what they are compared with: as they were when the last stroke began
  const begins = () => (before = words);
  const board = drawingBoard(left, model, begins);
  const showNumber = controls(left, model, board, () => (before = words = null));
  const middle = element("div", "middle", top);
  element("h4", "title", middle, {}, "The network sees");
  const digit = picture("digit", middle, "The digit as the network sees it, 28 by 28 pixels", 28, 28);
  const verdict = element("p", "verdict", middle, { "aria-live": "polite" });
  const showScores = scoreTable(element("div", "right", top));
  const clock = element("p", "times", root);
  const showPlanes = planes(root);
  const thresholds = model.get("thresholds").map((view) => new Int32Array(bytes(view)));
  const showLayers = layers(root, thresholds, model.unit && ((i, n) => unit.select(i, n)));
  const unit = model.unit ? unitView(root, model, begins) : null;
  const latency = element("p", "latency", root);
  element("p", "network", root, {}, `Network: ${model.get("network_name")}`);

  function showAnswer() {
    const answer = model.get("answer");
    if (!answer.scores) return;
    const pixels = new Uint8Array(bytes(answer.digit));
    paintPixels(digit, pixels.length, (i) => GREYS[pixels[i]]);
    verdict.textContent = headline(answer, pixels.some(Boolean));
    showScores(answer.scores, answer.predicted);
    showPlanes(new Uint8Array(bytes(answer.planes)));
    const sums = answer.sums.map((view) => new Int32Array(bytes(view)));
    words = answer.words.map((view) => new Uint8Array(bytes(view)));
    showLayers(words, sums, before);
    unit?.show(sums);
    latency.textContent = latencyOf(answer);
  }

  function showThresholds() {
    model.get("thresholds").forEach((view, i) => thresholds[i].set(new Int32Array(bytes(view))));
  }

  function showTimes() {
    clock.textContent = timing(model.get("times"));
  }

  const shown = {
    "change:answer": showAnswer,
    "change:times": showTimes,
    "change:drawing": board.show,
    "change:test_image": showNumber,
    "change:thresholds": showThresholds,
  };
  for (const [event, show] of Object.entries(shown)) model.on(event, show);
  requestAnimationFrame(() => [showAnswer, showTimes, showNumber].forEach((show) => show()));
  // Colours come from the theme: paint again when it changes.
  NIGHT.addEventListener("change", showAnswer);
  const theme = new MutationObserver(showAnswer);
  theme.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
  return () => {
    theme.disconnect();
    NIGHT.removeEventListener("change", showAnswer);
    for (const [event, show] of Object.entries(shown)) model.off(event, show);
  };
}

export default { render };
