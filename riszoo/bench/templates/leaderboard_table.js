// The table, the details of a row, the answer in words, and copying.

const identity = entry => [entry.kind, entry.method, entry.encoders, entry.training, entry.protocol].join("/");
const opened = () => new Set(state.open.split(";").filter(Boolean));
const interval = found => found.interval ? `${found.interval[0].toFixed(1)} to ${found.interval[1].toFixed(1)}` : "";

function drawTable(entries) {
  const shown = ABOUT.filter(given), columns = 1 + set().splits.length + shown.length;
  const head = make("tr", {}, heading("method", "method", false), ...set().splits.map(split => heading(split, split, true)),
    ...shown.map(name => heading(name, COLUMNS[name], false)));
  const legend = `${set().title}: ${state.metric} by split.` +
    (entries.some(entry => entry.kind !== "claimed") ? " Intervals: 95 % over images. ⚠ trained on images of the split." : "");
  element("table").replaceChildren(make("caption", {}, make("span", { textContent: legend })),
    make("thead", {}, head), make("tbody", {}, ...entries.flatMap(entry => lines(entry, shown, columns))));
  element("count").textContent = `${entries.length} of ${own().length} results`;
}

function heading(name, label, number) {
  const arrow = state.sort === name ? (state.order === "ascending" ? " ↑" : " ↓") : "";
  const button = make("button", { type: "button", textContent: label + arrow, onclick: () => sortBy(name, number) });
  return make("th", { scope: "col", className: number ? "number" : "", aria: arrow ? { "aria-sort": state.order } : {} }, button);
}

function sortBy(name, number) {
  const first = number || name === "year" ? "descending" : "ascending";
  const other = first === "ascending" ? "descending" : "ascending";
  const order = state.sort === name && state.order === first ? other : first;
  change({ sort: name, order, ...(number ? { split: name } : {}) });
  document.querySelector("th[aria-sort] button").focus();
}

function lines(entry, shown, columns) {
  const expanded = opened().has(identity(entry)), id = `row${data.entries.indexOf(entry)}`;
  const button = make("button", { type: "button", id, className: "open", onclick: () => toggle(entry, id),
    aria: { "aria-expanded": expanded } }, MARKS[entry.kind] + entry.method);
  const row = make("tr", { className: entry.kind }, make("th", { scope: "row" }, button),
    ...set().splits.map(split => numberCell(entry, split)), ...shown.map(name => make("td", { textContent: about(entry, name) })));
  return expanded ? [row, make("tr", {}, make("td", { colSpan: columns }, details(entry)))] : [row];
}

function about(entry, name) {
  return name === "kind" ? MARKS[entry.kind] + entry.kind : name === "year" ? entry.year : stated(entry[name]);
}

function numberCell(entry, split) {
  const found = cell(entry, split), chosen = split === state.split ? " chosen" : "";
  if (!found) return make("td", { className: "number" });
  return make("td", { className: "number" + chosen }, found.text + (found.leaked ? " ⚠" : ""),
    make("small", { textContent: interval(found) }));
}

function toggle(entry, id) {
  const found = opened(), name = identity(entry);
  if (!found.delete(name)) found.add(name);
  change({ open: [...found].join(";") });
  element(id).focus();
}

// -- the details of a row --------------------------------------------------------------------------------------------

function details(entry) {
  const facts = { source: entry.source, ...(entry.link && entry.link !== entry.source ? { link: entry.link } : {}),
    protocol: stated(entry.protocol), ...entry.facts };
  const list = Object.entries(facts).flatMap(([name, value]) => [make("dt", { textContent: name }),
    make("dd", {}, ...(name.endsWith("command") ? [make("code", { textContent: value })] : linked(value)))]);
  return make("div", { className: "details" }, make("dl", {}, ...list), ...types(entry));
}

function linked(text) {
  // The text with its addresses as links.
  return text.split(/(https?:\/\/[^\s,;)]+)/).map((part, i) => i % 2 ? make("a", { href: part, textContent: part, rel: "noopener" }) : part);
}

function types(entry) {
  // One table: a line for each type of sentence, a column for each split.
  const splits = set().splits.filter(split => entry.types[split]), names = distinct(splits.flatMap(split => Object.keys(entry.types[split])));
  if (!names.length) return [];
  const metric = state.metric === "oIoU" ? "oIoU" : "mIoU", found = (name, split) => entry.types[split][name];
  const line = name => make("tr", {}, make("th", { scope: "row", textContent: name }), ...splits.map(split => make("td", { className: "number",
    textContent: found(name, split) ? found(name, split)[metric].toFixed(2) : "", title: found(name, split) ? `${found(name, split).sentences} sentences` : "" })));
  const head = ["type of sentence", ...splits].map((text, i) => make("th", { scope: "col", className: i ? "number" : "", textContent: text }));
  return [make("div", { className: "types", tabIndex: 0, aria: { role: "region", "aria-label": `${entry.method} by type of sentence` } },
    make("table", {}, make("caption", { textContent: `${metric} by type of sentence` }),
      make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...names.map(line))))];
}

// -- the answer in words ---------------------------------------------------------------------------------------------

function drawAnswer() {
  // The best claim and the best measurement of the chosen split: two statements, never one ranking.
  const claimed = best("claimed"), training = state.training === ALL ? "" : `, ${state.training} training`;
  const where = `${set().title}, ${state.metric} on ${state.split}${training}: `;
  const claim = claimed ? ["best claim ", ...value(claimed), " by ", claimed.link
    ? make("a", { href: claimed.link, textContent: claimed.source }) : claimed.source, ". "] : ["no claim. "];
  const found = ["measured", "reproduced"].map(best).filter(Boolean);
  const here = found.length ? found.flatMap(entry => [`Best ${entry.kind} here `, ...value(entry), `, protocol ${entry.protocol}. `])
    : ["Not measured here; ", make("code", { textContent: `riszoo bench --data ${state.data}` }), " measures the models of riszoo."];
  element("answer").replaceChildren(where, ...claim, ...here);
}

function value(entry) {
  const found = cell(entry, state.split), range = interval(found);
  return [make("b", { textContent: `${MARKS[entry.kind]}${entry.method} ${found.text}${found.leaked ? " ⚠" : ""}` }), range ? ` (${range})` : ""];
}

// -- copying ---------------------------------------------------------------------------------------------------------

function grid() {
  const splits = set().splits, shown = [...Object.keys(COLUMNS).filter(given), ...(given("protocol") ? ["protocol"] : [])];
  const number = found => found ? found.text + (found.leaked ? " ⚠" : "") : "";
  return { left: shown.length, rows: [[...shown.map(name => COLUMNS[name] || name), ...splits.map(split => `${state.metric} ${split}`), "source"],
    ...selected().map(entry => [...shown.map(name => entry[name] || ""), ...splits.map(split => number(cell(entry, split))), entry.source])] };
}

const LATEX = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "±": "$\\pm$", "⚠": "*" };
const escaped = text => text.replace(/[\\~^±⚠&%$#_{}]/g, found => LATEX[found] || "\\" + found);
const quoted = text => /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
const FORMATS = {
  markdown: ({ left, rows: [head, ...rows] }) => {
    const line = row => `| ${row.map(text => text.replaceAll("|", "\\|")).join(" | ")} |`;
    return [line(head), line(head.map((_, i) => i < left || i === head.length - 1 ? "---" : "---:")), ...rows.map(line)].join("\n");
  },
  latex: ({ left, rows: [head, ...rows] }) => {
    const line = row => row.map(escaped).join(" & ") + " \\\\";
    return [`\\begin{tabular}{${"l".repeat(left)}${"r".repeat(head.length - left - 1)}l}`, "\\toprule", line(head), "\\midrule",
      ...rows.map(line), "\\bottomrule", "\\end{tabular}"].join("\n");
  },
  csv: ({ rows }) => rows.map(row => row.map(quoted).join(",")).join("\n"),
};

async function copy(format) {
  element("copied").hidden = false;
  element("text").value = FORMATS[format](grid()) + "\n";
  element("text").select();
  const copied = await navigator.clipboard?.writeText(element("text").value).then(() => true, () => false);
  element("copy-state").textContent = copied ? "Copied to the clipboard:" : "Copy this text:";
}
