// Which results are shown, and in which order.
const ALL = "all", UNKNOWN = "not stated";
const COLUMNS = { method: "method", kind: "result", encoders: "encoders", training: "training", year: "year" };
const ABOUT = Object.keys(COLUMNS).slice(1); // stand behind the numbers
const MARKS = { measured: "◆ ", reproduced: "▲ ", claimed: "" };
const FILTERS = { data: "data set", metric: "metric", split: "split", protocol: "protocol (measured)",
  kind: "claimed or measured", encoders: "encoders", training: "training data", since: "year, from" };
const TITLES = { single: "single: this data set alone", mixed: "mixed: several RefCOCO sets", joint: "joint: more data",
  ...Object.fromEntries(data.sets.map(one => [one.name, one.title])) };
const DEFAULTS = { data: data.sets[0].name, metric: "mIoU", split: "", protocol: "original", kind: ALL, encoders: ALL,
  training: ALL, since: ALL, sort: "", order: "descending", axis: "", open: "" };
const state = { ...DEFAULTS };

const set = () => data.sets.find(one => one.name === state.data);
const own = () => data.entries.filter(entry => entry.data === state.data);
const stated = value => value || UNKNOWN;
const parts = entry => stated(entry.encoders).split(" + ");
const given = name => own().some(entry => entry[name]);
const cell = (entry, split) => (entry.numbers[state.metric] || {})[split];
const distinct = values => [...new Set(values)].sort((a, b) => a.localeCompare(b));

function choices() {
  const entries = own(), protocols = distinct(entries.map(entry => entry.protocol).filter(Boolean));
  const years = distinct(entries.map(entry => entry.year).filter(Boolean)).reverse();
  const combinations = distinct(entries.map(entry => stated(entry.encoders)).filter(text => text.includes(" + ")));
  return {
    data: data.sets.map(one => one.name), metric: set().metrics, split: set().splits,
    protocol: protocols.length ? protocols : ["original"], kind: [ALL, "measured", "reproduced", "claimed"],
    encoders: [ALL, ...distinct(entries.flatMap(parts)), ...combinations],
    training: [ALL, ...distinct(entries.map(entry => stated(entry.training)))], since: [ALL, ...years],
  };
}

function axes() {
  // The properties that at least one result of the data set has.
  return Object.keys(data.axes).filter(name => own().some(entry => across(entry, name)));
}

function repair() {
  // Replaces every choice that does not exist on this data set.
  const offered = { ...choices(), sort: [...Object.keys(COLUMNS), ...set().splits], order: ["descending", "ascending"], axis: axes() };
  for (const [name, list] of Object.entries(offered)) {
    if (!list.includes(state[name])) {
      const usual = name === "sort" ? state.split : DEFAULTS[name];
      state[name] = list.includes(usual) ? usual : list[0];
    }
  }
}

function selected(kind = state.kind) {
  return own().filter(entry => set().splits.some(split => cell(entry, split)) &&
    (!entry.protocol || entry.protocol === state.protocol) &&
    (kind === ALL || entry.kind === kind) &&
    (state.encoders === ALL || stated(entry.encoders) === state.encoders || parts(entry).includes(state.encoders)) &&
    (state.training === ALL || stated(entry.training) === state.training) &&
    (state.since === ALL || !entry.year || entry.year >= state.since)).sort(compare);
}

function key(entry) {
  if (state.sort in COLUMNS) return entry[state.sort] || null;
  const found = cell(entry, state.sort);
  return found ? found.value : null;
}

function compare(a, b) {
  const x = key(a), y = key(b);
  if (x === null || y === null) return (x === null) - (y === null);
  const order = typeof x === "string" ? x.localeCompare(y) : x - y;
  return state.order === "ascending" ? order : -order;
}

function best(kind) {
  // A checkpoint that was trained on images of the split counts only where no other is there.
  const found = selected(kind).filter(entry => cell(entry, state.split));
  const fair = found.filter(entry => !cell(entry, state.split).leaked);
  return (fair.length ? fair : found)
    .reduce((a, b) => a && cell(a, state.split).value >= cell(b, state.split).value ? a : b, null);
}
