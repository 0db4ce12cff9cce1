// The gallery, and the switch between protocols.
const REASONS = { all: "all", worst: "worst", best: "best", disagreement: "biggest disagreement" };
const offered = Object.keys(REASONS).filter(reason => reason === "all" || data.items.some(item => item.reasons.includes(reason)));
const types = ["all", ...[...new Set(data.items.flatMap(item => item.types))].sort()];
const splits = ["all", ...data.splits];
const state = { protocol: data.protocols[0], reason: "all", type: "all", split: "all", i: 0 };

const ious = item => Object.values(item.iou[state.protocol]);
const spread = item => Math.max(...ious(item)) - Math.min(...ious(item));
const mean = item => ious(item).reduce((a, b) => a + b, 0) / ious(item).length;
const ORDER = { worst: (a, b) => mean(a) - mean(b), best: (a, b) => mean(b) - mean(a), disagreement: (a, b) => spread(b) - spread(a) };

function selected() {
  const found = data.items.filter(item =>
    (state.reason === "all" || item.reasons.includes(state.reason)) &&
    (state.type === "all" || item.types.includes(state.type)) &&
    (state.split === "all" || item.split === state.split));
  return ORDER[state.reason] ? found.sort(ORDER[state.reason]) : found;
}

// -- one sentence ----------------------------------------------------------------------------------------------------

function view(source, name, more) {
  const caption = make("figcaption", {}, make("b", { textContent: name }), more ? " " + more : "");
  return make("figure", {}, make("img", { src: source, alt: more ? `${name}, ${more}` : name }), caption);
}

function score(item, name) {
  const iou = item.iou[state.protocol][name];
  const text = iou === undefined ? "not measured under " + state.protocol : "IoU " + iou.toFixed(1);
  return text + (item.empty.includes(name) ? ", empty mask" : "");
}

function evidence(item, name) {
  const maps = item.evidence[name] || [];
  if (!maps.length) return [];
  const inside = hit => hit === null ? "" : hit ? "✓ inside" : "✗ outside";
  return [make("div", { className: "evidence", role: "group", ariaLabel: `evidence of ${name}` },
    make("b", { textContent: name }), ": evidence, its peak, and whether it is inside the target",
    make("div", {}, ...maps.map(([label, map, hit]) => view(map, label, inside(hit)))))];
}

function views(item) {
  return [
    view(item.image, "image"),
    view(item.ground_truth, "ground truth", item.no_target ? "no target" : ""),
    ...data.models.map(name => view(item.masks[name], name, score(item, name))),
    ...data.models.flatMap(name => evidence(item, name)),
  ];
}

function drawStrip(found) {
  const strip = element("strip");
  strip.replaceChildren(...found.map((one, index) => make("button", { type: "button", title: one.text, onclick: () => move(index - state.i),
    aria: { "aria-label": one.text || "(no words)", "aria-pressed": index === state.i } },
    make("img", { src: one.ground_truth, alt: "", loading: "lazy" }))));
  const pressed = strip.children[state.i];
  if (pressed) strip.scrollLeft = pressed.offsetLeft - strip.offsetLeft - strip.clientWidth / 2;
}

// -- state -----------------------------------------------------------------------------------------------------------

function show() {
  for (const part of document.querySelectorAll("[data-protocol]")) part.hidden = part.dataset.protocol !== state.protocol;
  for (const button of document.querySelectorAll("#protocol button")) button.setAttribute("aria-pressed", button.value === state.protocol);
  const found = selected();
  state.i = found.length ? (state.i % found.length + found.length) % found.length : 0;
  const item = found[state.i];
  element("count").textContent = found.length ? `${state.i + 1} of ${found.length}` : "0 of 0";
  element("sentence").textContent = item ? item.text || "(no words)" : "No sentence matches these filters.";
  element("about").textContent = item ? [item.split, ...item.types, item.no_target ? "no target" : ""].filter(Boolean).join(" · ") : "";
  element("views").replaceChildren(...(item ? views(item) : []));
  drawStrip(found);
  for (const button of element("reason").children) button.setAttribute("aria-pressed", button.value === state.reason);
  element("type").value = state.type;
  element("split").value = state.split;
  history.replaceState(null, "", "#" + new URLSearchParams(state));
}

function set(changes) { Object.assign(state, { i: 0 }, changes); show(); }
function move(by) { state.i += by; show(); }
const after = (list, value) => list[(list.indexOf(value) + 1) % list.length];

function read() {
  const given = new URLSearchParams(location.hash.slice(1));
  const pick = (name, list) => { if (list.includes(given.get(name))) state[name] = given.get(name); };
  pick("protocol", data.protocols); pick("reason", offered); pick("type", types); pick("split", splits);
  state.i = Number.parseInt(given.get("i"), 10) || 0;
  show();
}

const choice = (value, textContent, changes) => make("button", { type: "button", value, textContent, onclick: () => set(changes) });
element("reason").append(...offered.map(reason => choice(reason, REASONS[reason], { reason })));
for (const [id, list] of [["type", types], ["split", splits]]) {
  element(id).append(...list.map(value => make("option", { value, textContent: value })));
  element(id).onchange = event => set({ [id]: event.target.value });
}
if (element("protocol")) element("protocol").append(...data.protocols.map(protocol => choice(protocol, protocol, { protocol })));
element("back").onclick = () => move(-1);
element("next").onclick = () => move(1);
addEventListener("hashchange", read);
addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest?.("select, .scroll")) return;
  const key = event.key;
  if (key === "ArrowRight" || key === "j") move(1);
  else if (key === "ArrowLeft" || key === "k") move(-1);
  else if (key === "t") set({ type: after(types, state.type) });
  else if (key === "s") set({ split: after(splits, state.split) });
  else if (offered[Number(key) - 1]) set({ reason: offered[Number(key) - 1] });
});
read();
