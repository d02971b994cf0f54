// Parts of a page, and bits and pixels as they are sent by JupyterLab's kernel or a page's engine.

function element(tag, name, parent, attributes = {}, text = "") {
  const made = document.createElement(tag);
  made.className = `bnn-${name}`;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  parent.append(made);
  return made;
}

function picture(name, parent, label, width, height) {
  return element("canvas", name, parent, { role: "img", "aria-label": label, width, height });
}

// A number with a true minus sign.
function signed(number) {
  return String(number).replace("-", "−");
}

// Bytes as they were sent; copied, because int32 numbers must begin at a multiple of four.
function bytes(view) {
  return view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
}

// Bit i of packed words, 64 to a word, the lowest first.
function bit(words, i) {
  return (words[i >> 3] >> (i & 7)) & 1;
}

// One pixel per number below `count`; paint(i) -> [r, g, b].
function paintPixels(canvas, count, paint) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  for (let i = 0; i < count; i++) {
    const [r, g, b] = paint(i);
    const at = 4 * i;
    image.data[at] = r;
    image.data[at + 1] = g;
    image.data[at + 2] = b;
    image.data[at + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

// Which of a canvas's own pixels an event points at: [x, y].
function pixelAt(canvas, event) {
  const box = canvas.getBoundingClientRect();
  const x = Math.floor(((event.clientX - box.left) / box.width) * canvas.width);
  return [x, Math.floor(((event.clientY - box.top) / box.height) * canvas.height)];
}

const GREYS = Array.from({ length: 256 }, (_, value) => [value, value, value]);
