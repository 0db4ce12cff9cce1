// The plot: the chosen numbers against year or cost.
const LEFT = 44, RIGHT = 410, TOP = 24, BOTTOM = 296, LETTER = 8.2; // LETTER: width of a letter, about

const across = (entry, name) => Number.parseFloat(name === "year" ? entry.year : entry.facts[name]);
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
  const points = entries.filter(entry => cell(entry, state.split) && across(entry, state.axis)).map(entry =>
    ({ entry, x: across(entry, state.axis), y: cell(entry, state.split).value })).sort((a, b) => a.x - b.x || b.y - a.y);
  const label = data.axes[state.axis] || "year";
  element("plot").setAttribute("aria-label", `${state.metric} on ${state.split} against ${label}, ${points.length} results; the table has the numbers`);
  if (!points.length) return element("plot").replaceChildren(svg("text", { x: 20, y: 40 }, "No result shown has this property."));
  const x = scale(points.map(point => point.x), LEFT, RIGHT), y = scale(points.map(point => point.y), BOTTOM, TOP);
  const lines = [points.filter(({ entry }) => entry.kind === "claimed"), points.filter(({ entry }) => entry.kind !== "claimed")].map(bestSoFar);
  const records = lines.flat();
  element("plot").replaceChildren(...frame(x, y, label),
    ...lines.map(line => svg("polyline", { points: line.map(point => `${x.at(point.x)},${y.at(point.y)}`).join(" ") })),
    ...points.map(point => symbol(point, x.at(point.x), y.at(point.y))), ...names(points, records, x, y));
}

function bestSoFar(points) {
  let highest = -Infinity;
  return points.filter(point => point.y > highest && (highest = point.y) > -Infinity);
}

function frame(x, y, label) {
  const whole = x.ticks.filter(tick => state.axis !== "year" || Number.isInteger(tick));
  return [
    ...y.ticks.flatMap(tick => [svg("line", { x1: LEFT, x2: RIGHT, y1: y.at(tick), y2: y.at(tick) }),
      svg("text", { x: LEFT - 6, y: y.at(tick) + 4, "text-anchor": "end", class: "axis" }, tick)]),
    ...whole.map(tick => svg("text", { x: x.at(tick), y: BOTTOM + 18, "text-anchor": "middle", class: "axis" }, tick)),
    svg("text", { x: RIGHT, y: BOTTOM + 37, "text-anchor": "end", class: "axis" }, label),
    svg("text", { x: 8, y: 14, class: "axis" }, `${state.metric}, ${state.split}`),
  ];
}

function symbol({ entry, x, y }, left, top) {
  const shape = { measured: [[0, -7], [7, 0], [0, 7], [-7, 0]], reproduced: [[0, -7], [7, 6], [-7, 6]] }[entry.kind];
  const node = shape ? svg("polygon", { points: shape.map(([dx, dy]) => `${left + dx},${top + dy}`).join(" "), class: entry.kind })
    : svg("circle", { cx: left, cy: top, r: 4, class: entry.kind });
  node.append(svg("title", {}, `${MARKS[entry.kind]}${entry.method}, ${entry.kind}, ${stated(entry.encoders)}, ${stated(entry.training)}: ${y} at ${x}`));
  return node;
}

function names(points, records, x, y) {
  // Labels the best so far first; a label that would touch another one, a point or the frame is left out.
  const taken = points.map(point => ({ top: y.at(point.y), left: x.at(point.x) - 7, right: x.at(point.x) + 7 }));
  const free = (left, top, width) => left >= LEFT && left + width <= 418 &&
    !taken.some(box => Math.abs(box.top - top) < 14 && left < box.right && box.left < left + width);
  const nodes = [];
  for (const point of new Set([...records.slice().reverse(), ...points])) {
    const text = point.entry.method, width = LETTER * text.length, middle = x.at(point.x), top = y.at(point.y);
    const places = [[middle + 9, top], [middle - 9 - width, top], [middle - width / 2, top - 15], [middle - width / 2, top + 17]];
    const place = places.find(([left, height]) => height > TOP - 10 && height < BOTTOM && free(left, height, width));
    if (!place) continue;
    taken.push({ top: place[1], left: place[0], right: place[0] + width });
    nodes.push(svg("text", { x: place[0], y: place[1] + 5 }, text));
  }
  return nodes;
}
