// Shows the claims that fit what is chosen; the choice stands in the address, as #verdict=found&kind=speed,
// so that it can be linked. Without scripts all claims are shown.
const NAMES = { kind: "kind", evidence: "evidence", verdict: "verdict", notebook: "notebook" };
const box = document.querySelector(".filter");
const rows = [...document.querySelectorAll(".claims tr[data-kind]")];
const told = document.createElement("output");

const chosen = () => {
  const words = new URLSearchParams(location.hash.slice(1));
  return Object.fromEntries(Object.keys(NAMES).map((name) => [name, words.get(name) ?? ""]));
};

const fits = (row, choice) =>
  Object.entries(choice).every(([name, value]) => !value || row.dataset[name].split("|").includes(value));

const apply = () => {
  const choice = chosen();
  for (const select of box.querySelectorAll("select")) select.value = choice[select.name];
  for (const row of rows) row.hidden = !fits(row, choice);
  for (const group of document.querySelectorAll(".claims tbody"))
    group.hidden = ![...group.querySelectorAll("tr[data-kind]")].some((row) => !row.hidden);
  told.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} claims`;
};

const choose = (name, value) => {
  const choice = { ...chosen(), [name]: value };
  const kept = Object.entries(choice).filter(([, word]) => word);
  history.replaceState(null, "", `#${new URLSearchParams(kept)}`);
  apply();
};

for (const name of Object.keys(NAMES)) {
  const label = document.createElement("label");
  const select = document.createElement("select");
  select.name = name;
  select.append(new Option("all", ""));
  const words = new Set(rows.flatMap((row) => row.dataset[name].split("|")).filter(Boolean));
  for (const word of [...words].sort()) select.append(new Option(word.replaceAll("_", " "), word));
  select.addEventListener("change", () => choose(name, select.value));
  label.append(`${NAMES[name]} `, select);
  box.append(label);
}
box.append(told);
box.hidden = false;
window.addEventListener("hashchange", apply);
apply();
