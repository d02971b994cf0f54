// Where one draws, with a pointer or the arrow keys, and the controls below.

const PEN = 14; // pixels of the drawing; about a tenth of a digit's height, as in MNIST
const STEP = 4; // pixels that an arrow key moves the pen
const NONE = -1; // no test image
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

// begins(): a stroke begins, or all is wiped out.
function drawingBoard(root, model, begins) {
  const side = model.get("side");
  const board = element("div", "board", root);
  const canvas = element("canvas", "drawing", board, {
    width: side,
    height: side,
    tabindex: 0,
    role: "application",
    "aria-label": "Drawing of a digit. Arrow keys move the pen, with Shift they draw.",
  });
  const cursor = element("div", "cursor", board, { "aria-hidden": "true" });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  Object.assign(context, { lineCap: "round", lineWidth: PEN, strokeStyle: "#fff" });
  let pen = [side / 2, side / 2];
  let drawing = false;
  let keying = false; // drawing with keys
  let painted = null; // what of the model's drawing is on the canvas

  function send(ended) {
    const rgba = context.getImageData(0, 0, side, side).data;
    const pixels = new Uint8Array(side * side);
    for (let i = 0; i < pixels.length; i++) pixels[i] = rgba[4 * i];
    painted = new DataView(pixels.buffer);
    model.set({ drawing: painted, test_image: NONE });
    if (ended) model.set("strokes", model.get("strokes") + 1);
    model.save_changes(); // while one message is under way, the next ones become one
  }

  function lineTo(place) {
    context.beginPath();
    context.moveTo(...pen);
    context.lineTo(...place);
    context.stroke();
    pen = place;
  }

  function place(event) {
    const box = canvas.getBoundingClientRect();
    const scale = side / box.width;
    return [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
  }

  function fill() {
    context.fillStyle = "#000";
    context.fillRect(0, 0, side, side);
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    begins();
    drawing = true;
    pen = place(event);
    lineTo(pen);
    send(false);
    canvas.setPointerCapture(event.pointerId); // strokes may leave the canvas and come back
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!drawing) return;
    const between = event.getCoalescedEvents?.() ?? []; // where it has been since the last event
    for (const each of between.length ? between : [event]) lineTo(place(each));
    send(false);
  });
  for (const kind of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(kind, () => {
      if (drawing) send(true);
      drawing = false;
    });
  }
  canvas.addEventListener("keydown", (event) => {
    const arrow = ARROWS[event.key];
    if (!arrow) return;
    event.preventDefault();
    if (event.shiftKey && !keying) begins();
    keying = event.shiftKey;
    const next = pen.map((at, axis) => Math.min(side, Math.max(0, at + STEP * arrow[axis])));
    if (event.shiftKey) {
      lineTo(next);
      send(false);
    }
    pen = next;
    cursor.style.left = `${(100 * pen[0]) / side}%`;
    cursor.style.top = `${(100 * pen[1]) / side}%`;
  });
  canvas.addEventListener("keyup", (event) => {
    if (event.key !== "Shift" || !keying) return;
    keying = false;
    send(true);
  });

  function show() {
    const sent = model.get("drawing");
    if (sent === painted || !sent.byteLength) return;
    painted = sent;
    const pixels = new Uint8Array(bytes(sent));
    paintPixels(canvas, pixels.length, (i) => GREYS[pixels[i]]);
  }
  fill();
  show();
  return {
    show,
    clear() {
      begins();
      fill();
      send(true);
    },
  };
}

// picks(): another picture is shown, whose bits are compared with none.
function controls(root, model, board, picks) {
  const row = element("div", "controls", root);
  const clear = element("button", "clear", row, { type: "button" }, "Clear");
  const label = element("label", "pick", row, {}, "Test image ");
  const last = model.get("test_images") - 1;
  const number = element("input", "test-image", label, { type: "number", min: 0, max: last });
  const next = element("button", "another", row, { type: "button" }, "Another");
  const pick = (i) => {
    picks();
    model.set("test_image", Math.min(last, Math.max(0, i)));
    model.save_changes();
  };
  clear.addEventListener("click", board.clear);
  next.addEventListener("click", () => pick(Math.floor(Math.random() * (last + 1))));
  number.addEventListener("input", () => number.value !== "" && pick(Math.trunc(number.value)));
  return () => {
    const shown = model.get("test_image");
    number.value = shown === NONE ? "" : shown;
  };
}
