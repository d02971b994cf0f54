// XNOR and popcount by hand: two rows of signs to click, and the same number reached twice.

const SIGNS = ["−1", "+1"];
const MOST = 16;

startPiece("xnor", "Multiply signs by hand: click a sign to flip it", (root) => {
  const draw = random(4);
  const rows = { x: times(MOST, () => Number(draw() < 0.5)), w: times(MOST, () => Number(draw() < 0.5)) };
  const length = slider(root, "Signs in a row, K:", 2, MOST, 1, 8, String, show);
  const table = element("div", "signs", root);
  const cells = { x: rowOf("x"), w: rowOf("w"), xor: rowOf("XOR") };
  const [bits, floats] = ["on-bits", "in-floats"].map((name) =>
    element("p", `sum bnn-${name}`, root, { "aria-live": "polite" }),
  );

  function rowOf(name) {
    element("span", "row-title", table, {}, name);
    const row = element("div", "sign-row", table);
    return times(MOST, (k) => {
      if (!rows[name]) return element("span", "sign", row);
      const cell = element("button", "sign", row, { type: "button" });
      cell.addEventListener("click", () => {
        rows[name][k] ^= 1;
        show();
      });
      return cell;
    });
  }

  function show() {
    const [x, w] = [rows.x, rows.w].map((row) => row.slice(0, length()));
    const [xWord, wWord] = [x, w].map((row) => row.reduce((word, bit, k) => word | (bit << k), 0));
    for (const name of ["x", "w"]) {
      cells[name].forEach((cell, k) => {
        const sign = SIGNS[rows[name][k]];
        cell.textContent = sign;
        cell.setAttribute("aria-label", `${name} ${k + 1}: ${sign}`);
        cell.classList.toggle("bnn-on", rows[name][k] === 1);
      });
    }
    cells.xor.forEach((cell, k) => (cell.textContent = ((xWord ^ wWord) >> k) & 1));
    for (const row of Object.values(cells)) row.forEach((cell, k) => (cell.hidden = k >= x.length));
    const differing = popcount(xWord ^ wWord);
    const result = signed(x.length - 2 * differing);
    bits.textContent = `On bits: XOR has ${differing} ones, so the sum is ${x.length} − 2 · ${differing} = ${result}.`;
    const products = x.map((each, k) => (2 * each - 1) * (2 * w[k] - 1));
    const sum = products.reduce((total, each) => total + each, 0);
    floats.textContent = `In floats: ${products.map(signed).join(" + ").replaceAll("+ −", "− ")} = ${signed(sum)}.`;
  }
  show();
});
