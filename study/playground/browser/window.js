// The straight-through window: how well the estimator points along the true gradient, by how wide
// the window is that lets it pass. As in Figure 2.2: a hinge loss on 8 units, all 256 patterns.

const [UNITS, CLASSES, LAYERS, WIDEST] = [8, 10, 40, 4]; // the last one of the window, each way

// One random layer at r: the true gradient of the expected cost, and the expected slopes dC/dq.
function gradients(r, weights) {
  const [truth, slopes] = [r.map(() => 0), r.map(() => 0)];
  for (let pattern = 0; pattern < 2 ** UNITS; pattern++) {
    const q = r.map((_, i) => ((pattern >> i) & 1 ? 1 : -1));
    const chances = r.map((each, i) => Math.min(1, Math.max(0, (1 + q[i] * each) / 2)));
    const scores = weights.map((row) => dot(row, q) / Math.sqrt(UNITS));
    const short = scores.map((score, j) => Math.max(0, j ? 1 + score : 1 - score)); // class 0 is right
    const cost = dot(short, short) / CLASSES;
    r.forEach((each, i) => {
      const others = chances.reduce((product, chance, k) => (k === i ? product : product * chance), 1);
      if (Math.abs(each) < 1) truth[i] += (q[i] * cost * others) / 2;
      const slope = short.reduce((sum, s, j) => sum + (j ? s : -s) * weights[j][i], 0);
      slopes[i] += (2 * slope * others * chances[i]) / CLASSES / Math.sqrt(UNITS);
    });
  }
  return { r, truth, slopes };
}

// Mean cosine where slopes pass for |r| <= width only; 0 where nothing passes.
function meanCosine(layers, width) {
  return mean(layers.map(({ r, truth, slopes }) => {
    const passed = slopes.map((slope, i) => (Math.abs(r[i]) <= width ? slope : 0));
    return dot(passed, truth) / (Math.sqrt(dot(passed, passed) * dot(truth, truth)) || 1);
  }));
}

startPiece("window", "Where should the gradient pass?", (root) => {
  const two = (value) => value.toFixed(2);
  const spread = slider(root, "Standard deviation of r:", 0.25, 2.5, 0.05, 1.5, two, drawn);
  const width = slider(root, "The gradient passes where |r| ≤", 0.1, WIDEST, 0.1, 1, two, show);
  const x = { from: 0, to: WIDEST, ticks: [0, 1, 2, 3, 4], title: "the gradient passes where |r| is at most" };
  const plot = chart(root, x, { from: 0, to: 1, ticks: [0, 0.5, 1], title: "cosine" });
  const told = element("p", "told", root, { "aria-live": "polite" });
  let layers;
  function drawn() {
    const draw = random(1); // the same layers each time
    const made = times(LAYERS, () => {
      const r = times(UNITS, () => spread() * normal(draw));
      return gradients(r, times(CLASSES, () => times(UNITS, () => (draw() < 0.5 ? -1 : 1))));
    });
    layers = made.filter(({ truth }) => truth.some(Boolean)); // else there is no direction
    show();
  }
  function show() {
    const [cosine, all] = [width(), Infinity].map((each) => meanCosine(layers, each));
    plot.clear();
    plot.line("plus", times(40, (i) => [(i + 1) / 10, meanCosine(layers, (i + 1) / 10)]));
    plot.dot("mark", width(), cosine);
    const found = `Cosine with the true gradient: ${two(cosine)}; if everything passed, ${two(all)}.`;
    const over = `Mean over ${layers.length} random layers of ${UNITS} units, all ${2 ** UNITS} patterns.`;
    plot.say((told.textContent = `${found} ${over}`));
  }
  drawn();
});
