// Starts the playground on a page: the page holds the network and some test images in base64.

function stored(name) {
  return document.getElementById(`bnn-${name}`).textContent;
}

function startPlayground(root) {
  const sheet = decodeBase64(stored("digits")); // labels, then pixels
  const count = sheet.length / (1 + PIXELS);
  const digits = { labels: sheet.subarray(0, count), pixels: sheet.subarray(count) };
  const network = readNetwork(decodeBase64(stored("network")));
  requireDigits(network);
  const model = pageModel(network, digits, root.dataset.what);
  render({ model, el: root });
  model.set("test_image", 0);
  model.save_changes();
}

for (const root of document.querySelectorAll('[data-piece="playground"]')) {
  try {
    startPlayground(root);
  } catch (error) {
    root.textContent = error.message; // a damaged network says what is wrong with it
  }
}
