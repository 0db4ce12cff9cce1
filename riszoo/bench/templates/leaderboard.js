"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const element = id => document.getElementById(id);
const ALL = "all", UNKNOWN = "not stated";
const COLUMNS = { method: "method", kind: "result", encoders: "encoders", training: "training", year: "year" };
const ABOUT = Object.keys(COLUMNS).slice(1); // stand behind the numbers
const LABELS = { data: "data set", metric: "metric", split: "split", protocol: "protocol (measured)", kind: "results",
  encoders: "encoders", training: "training data", since: "year, from" };
const state = { data: data.sets[0].name, metric: "mIoU", split: "", protocol: "original", kind: ALL, encoders: ALL,
  training: ALL, since: ALL, sort: "", order: "descending", axis: "" };
const open = new Set();

function make(tag, attributes, ...children) {
  const node = Object.assign(document.createElement(tag), attributes);
  for (const [name, value] of Object.entries(attributes.aria || {})) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// -- what is shown ---------------------------------------------------------------------------------------------------

const set = () => data.sets.find(one => one.name === state.data);
const own = () => data.entries.filter(entry => entry.data === state.data);
const stated = value => value || UNKNOWN;
const distinct = values => [...new Set(values)].sort();
const given = name => own().some(entry => entry[name]);
const cell = (entry, split) => (entry.numbers[state.metric] || {})[split];

function choices() {
  const entries = own(), protocols = distinct(entries.map(entry => entry.protocol).filter(Boolean));
  const years = distinct(entries.map(entry => entry.year).filter(Boolean)).reverse();
  return {
    data: data.sets.map(one => one.name), metric: set().metrics, split: set().splits,
    protocol: protocols.length ? protocols : ["original"], kind: [ALL, "measured", "reproduced", "claimed"],
    encoders: [ALL, ...distinct(entries.map(entry => stated(entry.encoders)))],
    training: [ALL, ...distinct(entries.map(entry => stated(entry.training)))], since: [ALL, ...years],
  };
}

function repair() {
  for (const [name, list] of Object.entries(choices())) {
    if (!list.includes(state[name])) state[name] = name === "metric" && list.includes("mIoU") ? "mIoU" : list[0];
  }
  if (!(state.sort in COLUMNS) && !set().splits.includes(state.sort)) state.sort = state.split;
  if (state.order !== "ascending") state.order = "descending";
  const axes = axisChoices();
  if (!axes.includes(state.axis)) state.axis = axes[0];
}

function key(entry) {
  if (state.sort in COLUMNS) return entry[state.sort] || null;
  const found = cell(entry, state.sort);
  return found ? found.value : null;
}

function compare(a, b) {
  const x = key(a), y = key(b);
  if (x === null || y === null) return (x === null) - (y === null);
  const order = x < y ? -1 : x > y ? 1 : 0;
  return state.order === "ascending" ? order : -order;
}

function selected() {
  return own().filter(entry => entry.numbers[state.metric] && set().splits.some(split => cell(entry, split)) &&
    (!entry.protocol || entry.protocol === state.protocol) &&
    (state.kind === ALL || entry.kind === state.kind) &&
    (state.encoders === ALL || stated(entry.encoders) === state.encoders) &&
    (state.training === ALL || stated(entry.training) === state.training) &&
    (state.since === ALL || !entry.year || entry.year >= state.since)).sort(compare);
}

// -- the table -------------------------------------------------------------------------------------------------------

function heading(name, label, number) {
  const cell = make("th", { scope: "col", className: number ? "number" : "" });
  const arrow = state.sort === name ? (state.order === "ascending" ? " ↑" : " ↓") : "";
  cell.append(make("button", { type: "button", textContent: label + arrow, onclick: () => sortBy(name, number) }));
  if (state.sort === name) cell.setAttribute("aria-sort", state.order);
  return cell;
}

function sortBy(name, number) {
  const first = number || name === "year" ? "descending" : "ascending";
  const other = first === "ascending" ? "descending" : "ascending";
  const order = state.sort === name && state.order === first ? other : first;
  change({ sort: name, order, ...(number ? { split: name } : {}) });
  [...element("table").querySelectorAll("th[aria-sort] button")].forEach(button => button.focus());
}

function numberCell(entry, split) {
  const found = cell(entry, split), chosen = split === state.split ? " chosen" : "";
  if (!found) return make("td", { className: "number" });
  const interval = found.interval ? ` ${found.interval[0].toFixed(1)} to ${found.interval[1].toFixed(1)}` : "";
  return make("td", { className: "number" + chosen }, found.text + (found.leaked ? " ⚠" : ""), make("small", { textContent: interval }));
}

function line(entry, columns) {
  const id = data.entries.indexOf(entry), expanded = open.has(id);
  const toggle = () => { expanded ? open.delete(id) : open.add(id); show(); element(`open${id}`).focus(); };
  const button = make("button", { type: "button", id: `open${id}`, className: "open", textContent: entry.method,
    onclick: toggle, aria: { "aria-expanded": expanded } });
  const about = name => name === "kind" && entry.kind !== "claimed" ? `◆ ${entry.kind}` : name === "year" ? entry.year : stated(entry[name]);
  const cells = [make("td", {}, button), ...set().splits.map(split => numberCell(entry, split)),
    ...ABOUT.filter(given).map(name => make("td", { textContent: about(name) }))];
  const row = make("tr", { className: entry.kind }, ...cells);
  return expanded ? [row, make("tr", {}, make("td", { colSpan: columns }, details(entry)))] : [row];
}

function details(entry) {
  const source = entry.link ? make("a", { href: entry.link, textContent: entry.source }) : entry.source;
  const facts = Object.entries({ protocol: stated(entry.protocol), ...entry.facts });
  return make("dl", {}, make("dt", { textContent: "source" }), make("dd", {}, source),
    ...facts.flatMap(([name, value]) => [make("dt", { textContent: name }), make("dd", { textContent: value })]));
}

function drawTable(entries) {
  const head = make("tr", {}, heading("method", "method", false), ...set().splits.map(split => heading(split, split, true)),
    ...ABOUT.filter(given).map(name => heading(name, COLUMNS[name], false)));
  element("table").replaceChildren(
    make("caption", { textContent: `${set().title}: ${state.metric} by split. Intervals: 95 % over images.` }),
    make("thead", {}, head), make("tbody", {}, ...entries.flatMap(entry => line(entry, head.children.length))));
  const others = own().length - entries.length;
  element("count").textContent = `${entries.length} results` + (others ? `; ${others} have other properties or no ${state.metric}` : "");
}

// -- copying ---------------------------------------------------------------------------------------------------------

function grid() {
  const splits = set().splits;
  const about = Object.keys(COLUMNS).filter(given);
  return [[...about.map(name => COLUMNS[name]), ...splits.map(split => `${state.metric} ${split}`), "source"],
    ...selected().map(entry => [...about.map(name => entry[name] || ""),
      ...splits.map(split => (cell(entry, split) || { text: "" }).text), entry.source])];
}

const LATEX = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "±": "$\\pm$" };
const escaped = text => text.replace(/[\\~^±&%$#_{}]/g, found => LATEX[found] || "\\" + found);
const quoted = text => /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
const FORMATS = {
  markdown: ([head, ...rows]) => [head, head.map(() => "---"), ...rows].map(row => `| ${row.map(text => text.replaceAll("|", "\\|")).join(" | ")} |`).join("\n"),
  latex: ([head, ...rows]) => {
    const text = row => row.map(escaped).join(" & ") + " \\\\";
    const numbers = set().splits.length;
    return [`\\begin{tabular}{${"l".repeat(head.length - numbers - 1)}${"r".repeat(numbers)}l}`, "\\toprule", text(head), "\\midrule",
      ...rows.map(text), "\\bottomrule", "\\end{tabular}"].join("\n");
  },
  csv: rows => rows.map(row => row.map(quoted).join(",")).join("\n"),
};

function copy(format) {
  element("copied").hidden = false;
  element("text").value = FORMATS[format](grid()) + "\n";
  element("text").select();
  if (navigator.clipboard) navigator.clipboard.writeText(element("text").value).catch(() => {});
}

// -- the plot --------------------------------------------------------------------------------------------------------

function axisChoices() {
  const costs = Object.keys(data.costs).filter(name => own().some(entry => entry.facts[name]));
  return own().some(entry => entry.year) ? [...costs, "year"] : costs.length ? costs : ["year"];
}

const across = entry => Number.parseFloat(state.axis === "year" ? entry.year : entry.facts[state.axis]);
const svg = (tag, attributes, text) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
};

function scale(values, from, to) {
  const low = Math.min(...values), high = Math.max(...values), margin = (high - low) * 0.08 || Math.abs(high) * 0.08 || 1;
  const at = value => from + (value - low + margin) / (high - low + 2 * margin) * (to - from);
  const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100].find(size => (high - low + 2 * margin) / size <= 6) || 200;
  const ticks = [];
  for (let tick = Math.ceil((low - margin) / step) * step; tick <= high + margin; tick += step) ticks.push(Number(tick.toFixed(2)));
  return { at, ticks };
}

function drawPlot(entries) {
  const points = entries.filter(entry => cell(entry, state.split) && across(entry)).map(entry =>
    ({ entry, x: across(entry), y: cell(entry, state.split).value })).sort((a, b) => a.x - b.x || b.y - a.y);
  const label = data.costs[state.axis] || state.axis;
  element("plot").setAttribute("aria-label", `${state.metric} on ${state.split} against ${label}, ${points.length} results; the table has the numbers`);
  if (!points.length) return element("plot").replaceChildren(svg("text", { x: 20, y: 40 }, "No result has this value."));
  const x = scale(points.map(point => point.x), 44, 410), y = scale(points.map(point => point.y), 296, 24);
  const nodes = y.ticks.flatMap(tick => [svg("line", { x1: 44, x2: 410, y1: y.at(tick), y2: y.at(tick) }),
    svg("text", { x: 38, y: y.at(tick) + 4, "text-anchor": "end", class: "axis" }, tick)]);
  nodes.push(...x.ticks.filter(tick => state.axis !== "year" || Number.isInteger(tick)).map(tick =>
    svg("text", { x: x.at(tick), y: 314, "text-anchor": "middle", class: "axis" }, tick)));
  nodes.push(svg("text", { x: 410, y: 333, "text-anchor": "end", class: "axis" }, label),
    svg("text", { x: 8, y: 14, class: "axis" }, `${state.metric}, ${state.split}`));
  let best = -Infinity;
  const records = points.filter(point => point.y > best && (best = point.y) > -Infinity);
  nodes.push(svg("polyline", { points: records.map(point => `${x.at(point.x)},${y.at(point.y)}`).join(" ") }));
  for (const point of points) nodes.push(mark(point, x.at(point.x), y.at(point.y)));
  element("plot").replaceChildren(...nodes, ...names(points, records, x, y));
}

function mark({ entry, x, y }, left, top) {
  const node = entry.kind === "measured" ? svg("rect", { x: left - 5, y: top - 5, width: 10, height: 10 }) : svg("circle", { cx: left, cy: top, r: 4 });
  node.append(svg("title", {}, `${entry.method}, ${stated(entry.encoders)}, ${stated(entry.training)}: ${y} at ${x}`));
  return node;
}

function names(points, records, x, y) {
  // Labels the best so far first, and leaves out a label that would touch another one or a point.
  const boxes = points.map(point => ({ top: y.at(point.y), left: x.at(point.x) - 5, right: x.at(point.x) + 5 })), nodes = [];
  for (const point of [...records.slice().reverse(), ...points]) {
    const text = point.entry.method, width = 8.2 * text.length, right = x.at(point.x) + 8 + width <= 418;
    const left = right ? x.at(point.x) + 8 : x.at(point.x) - 8 - width, top = y.at(point.y);
    if (left < 44 || boxes.some(box => Math.abs(box.top - top) < 14 && left < box.right && box.left < left + width)) continue;
    boxes.push({ top, left, right: left + width });
    nodes.push(svg("text", { x: left, y: top + 4 }, text));
  }
  return nodes;
}

// -- state -----------------------------------------------------------------------------------------------------------

function options(node, name, list) {
  const label = value => name === "data" ? data.sets.find(one => one.name === value).title : data.costs[value] || value;
  node.replaceChildren(...list.map(value => make("option", { value, textContent: label(value) })));
  node.value = state[name];
}

function show() {
  repair();
  for (const [name, list] of Object.entries(choices())) options(element(name), name, list);
  options(element("axis"), "axis", axisChoices());
  const entries = selected();
  drawTable(entries);
  drawPlot(entries);
  element("copied").hidden = true;
  reveal(document.querySelector("th[aria-sort]"));
  history.replaceState(null, "", "#" + new URLSearchParams(state));
}

function reveal(column) {
  // Scrolls the table sideways until the column that sorts is visible.
  const box = element("table").parentElement, end = column.offsetLeft + column.offsetWidth;
  box.scrollLeft = column.cellIndex ? Math.max(0, end - box.clientWidth) : 0;
}

function change(changes) {
  if (changes.split && !changes.sort) Object.assign(changes, { sort: changes.split, order: "descending" });
  if (changes.data) Object.assign(changes, { split: "", sort: "", order: "descending", axis: "" });
  Object.assign(state, changes);
  show();
}

function read() {
  const given = new URLSearchParams(location.hash.slice(1));
  for (const name of Object.keys(state)) if (given.has(name)) state[name] = given.get(name);
  show();
}

for (const [name, label] of Object.entries(LABELS)) {
  const select = make("select", { id: name, onchange: event => change({ [name]: event.target.value }) });
  element("filters").append(make("label", {}, label, select));
}
element("axis").onchange = event => change({ axis: event.target.value });
for (const button of document.querySelectorAll("[data-copy]")) button.onclick = () => copy(button.dataset.copy);
addEventListener("hashchange", read);
read();
