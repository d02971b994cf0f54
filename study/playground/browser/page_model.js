// The page's back end for the playground: what study.playground.canvas does in JupyterLab's kernel, done by
// the engine. Models of both kinds have get, set, save_changes, on and off.

const ZOOM = 6; // pixels of the drawing to one of a digit, each way

// network: from readNetwork; digits: { pixels, labels } of the first test images; name: what runs.
function pageModel(network, digits, name) {
  const side = ZOOM * SIDE;
  const trained = structuredClone(network);
  const listeners = {};
  const values = {
    side,
    network_name: name,
    test_images: digits.labels.length,
    test_image: NONE,
    strokes: 0,
    drawing: asView(new Uint8Array(side * side)),
    thresholds: network.layers.map(({ thresholds }) => asView(thresholds)),
    answer: {},
    times: {},
  };
  let asked = {}; // what was set since the last save

  function tell(changes) {
    Object.assign(values, changes);
    for (const key of Object.keys(changes)) listeners[`change:${key}`]?.forEach((hear) => hear());
  }

  function digit() {
    const { test_image: picked, drawing } = values;
    if (picked === NONE) return asMnist(new Uint8Array(drawing.buffer), side);
    return digits.pixels.subarray(picked * PIXELS, (picked + 1) * PIXELS);
  }

  function answer() {
    const pixels = digit();
    const begun = performance.now();
    const { planes, layers, scores, predicted } = lookInside(network, pixels);
    const engine_ms = performance.now() - begun;
    const label = values.test_image === NONE ? NONE : digits.labels[values.test_image];
    const words = layers.map((layer) => asView(layer.words));
    const sums = layers.map((layer) => asView(layer.sums));
    const seen = { digit: asView(pixels), planes: asView(planes) };
    tell({ answer: { ...seen, words, sums, scores, predicted, label, engine_ms } });
  }

  function changed() {
    tell({ thresholds: network.layers.map(({ thresholds }) => asView(thresholds)) });
    answer();
  }

  answer(); // the first one takes longer, since the browser compiles the engine
  return {
    get: (key) => values[key],
    on: (event, hear) => (listeners[event] ??= new Set()).add(hear),
    off: (event, hear) => listeners[event]?.delete(hear),
    set(key, value) {
      const changes = typeof key === "string" ? { [key]: value } : key;
      Object.assign(asked, changes);
      tell(changes);
    },
    save_changes() {
      const picked = asked.test_image ?? NONE;
      const asks = "drawing" in asked || picked !== NONE;
      asked = {};
      if (picked !== NONE) tell({ drawing: asView(enlarged(digit())) });
      if (asks) answer();
    },
    unit: (layer, n) => readUnit(network.layers[layer], trained.layers[layer], n),
    setThreshold(layer, n, threshold) {
      network.layers[layer].thresholds[n] = threshold;
      changed();
    },
    flipWeight(layer, n, k) {
      const { rows, width } = network.layers[layer];
      rows[n * width + (k >>> 5)] ^= 1 << (k & 31);
      changed();
    },
    restore() {
      network.layers.forEach(({ rows, thresholds }, i) => {
        rows.set(trained.layers[i].rows);
        thresholds.set(trained.layers[i].thresholds);
      });
      changed();
    },
  };
}

// A unit's weights as bytes of 8 bits, how many there are, its threshold, and how many of its
// weights are not those that were trained.
function readUnit({ rows, thresholds, width, inputs }, trained, n) {
  const row = rows.slice(n * width, (n + 1) * width);
  const flipped = differ(row, trained.rows, n * width);
  return { weights: new Uint8Array(row.buffer), inputs, flipped, threshold: thresholds[n] };
}

function asView(array) {
  return new DataView(array.buffer, array.byteOffset, array.byteLength);
}

// 28 x 28 pixels -> the same, each ZOOM x ZOOM times.
function enlarged(pixels) {
  const side = ZOOM * SIDE;
  const at = (i) => Math.floor(i / ZOOM);
  return Uint8Array.from(
    { length: side * side },
    (_, i) => pixels[at(Math.floor(i / side)) * SIDE + at(i % side)],
  );
}
