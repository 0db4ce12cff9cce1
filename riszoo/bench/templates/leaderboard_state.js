// The choices, the address that contains them, and the start of the page.

function option(value) {
  return make("option", { value, textContent: TITLES[value] || value });
}

function fill(name, list) {
  const single = list.filter(value => name !== "encoders" || !value.includes(" + ")), combined = list.filter(value => !single.includes(value));
  const groups = combined.length ? [make("optgroup", { label: "exactly" }, ...combined.map(option))] : [];
  element(name).replaceChildren(...single.map(option), ...groups);
  element(name).value = state[name];
}

function show() {
  repair();
  for (const [name, list] of Object.entries(choices())) fill(name, list);
  element("axis").replaceChildren(...Object.entries(data.axes).map(([value, textContent]) =>
    make("option", { value, textContent, disabled: !axes().includes(value) })));
  element("axis").value = state.axis;
  const entries = selected();
  drawAnswer();
  drawTable(entries);
  drawPlot(entries);
  element("copied").hidden = true;
  reveal(document.querySelector("th[aria-sort]"));
  const chosen = Object.entries(state).filter(([name, value]) => value !== DEFAULTS[name]);
  history.replaceState(null, "", "#" + new URLSearchParams(chosen));
}

function reveal(column) {
  // Scrolls the table sideways until the column that sorts is visible.
  const box = element("table").parentElement;
  box.scrollLeft = column.cellIndex ? Math.max(0, column.offsetLeft + column.offsetWidth - box.clientWidth) : 0;
}

function change(changes) {
  if (changes.split && !changes.sort) Object.assign(changes, { sort: changes.split, order: "descending" });
  if (changes.data) Object.assign(state, DEFAULTS, { metric: state.metric, kind: state.kind });
  Object.assign(state, changes);
  show();
}

function read() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const name of Object.keys(DEFAULTS)) state[name] = given.get(name) ?? DEFAULTS[name];
  show();
}

for (const [name, label] of Object.entries(FILTERS)) {
  const select = make("select", { id: name, onchange: event => change({ [name]: event.target.value }) });
  element("filters").append(make("label", {}, label, select));
}
element("axis").onchange = event => change({ axis: event.target.value });
for (const button of document.querySelectorAll("[data-copy]")) button.onclick = () => copy(button.dataset.copy);
addEventListener("hashchange", read);
read();
