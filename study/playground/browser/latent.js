// Latent weights of few bits: one weight is pushed up by equal steps and rounded after each.

const STEPS = 200;
const BEGIN = -0.5;
const WAYS = { float: "not rounded", nearest: "rounded to nearest", stochastic: "stochastically" };

// As bnnlib.rounding.round_latent: 2^bits values, equally spaced from -1 to +1.
function rounded(w, bits, chance) {
  const distance = 2 / (2 ** bits - 1);
  const place = (w + 1) / distance;
  return Math.floor(place + chance) * distance - 1;
}

function walk(way, bits, step, draw) {
  let w = way === "float" ? BEGIN : rounded(BEGIN, bits, 0.5);
  return times(STEPS + 1, (i) => {
    if (i > 0) w = Math.min(1, w + step);
    if (i > 0 && way !== "float") w = rounded(w, bits, way === "nearest" ? 0.5 : draw());
    return [i, w];
  });
}

startPiece("latent", "Can a weight of few bits take small steps?", (root) => {
  const step = (power) => 10 ** power;
  const bits = slider(root, "Bits of the weight:", 1, 12, 1, 4, String, show);
  const power = slider(root, "Length of a step:", -3, -0.5, 0.05, -2, (p) => step(p).toFixed(4), show);
  const again = element("button", "again", root, { type: "button" }, "Draw again");
  const x = { from: 0, to: STEPS, ticks: [0, 50, 100, 150, 200], title: "steps" };
  const plot = chart(root, x, { from: -1, to: 1, ticks: [-1, 0, 1], title: "latent weight" });
  const legend = element("p", "legend", root);
  const told = element("p", "told", root, { "aria-live": "polite" });
  for (const [way, words] of Object.entries(WAYS)) element("span", `key bnn-${way}`, legend, {}, words);
  let seed = 1;

  function show() {
    const draw = random(seed);
    const half = 1 / (2 ** bits() - 1);
    const length = step(power());
    const ends = [];
    plot.clear();
    for (const way of Object.keys(WAYS)) {
      const points = walk(way, bits(), length, draw);
      plot.line(way, points);
      const crossed = points.findIndex(([, w]) => w >= 0);
      ends.push(`${WAYS[way]} ${crossed < 0 ? "never crosses zero" : `crosses zero at step ${crossed}`}`);
    }
    const lost = length < half ? "shorter: to nearest, every step is lost" : "no shorter: none is lost whole";
    told.textContent = `Half the distance of two values is ${half.toFixed(4)}, and the step is ${lost}. The weight ${ends.join("; ")}.`;
    plot.say(told.textContent);
  }
  again.addEventListener("click", () => [(seed += 1), show()]);
  show();
});
