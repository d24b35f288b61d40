"use strict";
// Small figures as SVG. Each is drawn again when its width changes, so that its text always has the size of text.

const SVG = "http://www.w3.org/2000/svg";

function shape(tag, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null) made.setAttribute(name, value);
  made.append(...children.flat());
  return made;
}

// A place for a figure. `draw(width)` returns its SVG element; `label` says what it shows.
function chart(label, draw) {
  const host = element("div", {class: "chart"});
  let width = 0;
  const fit = () => {
    const now = Math.round(host.clientWidth);
    if (!now || now === width) return;
    width = now;
    const drawn = draw(width);
    drawn.setAttribute("role", "img");
    drawn.setAttribute("aria-label", label);
    host.replaceChildren(drawn);
  };
  new ResizeObserver(fit).observe(host);
  return host;
}

// Not Math.min(...values): a function takes no list as long as the neurons of many runs.
const extent = values => values.length ? values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity]) : [0, 1];

// Where an axis has its ticks: round numbers, or powers of ten.
function ticks(domain, log, count) {
  const low = Math.min(...domain), high = Math.max(...domain);
  if (log) {
    const from = Math.ceil(Math.log10(low) - 1e-9), to = Math.floor(Math.log10(high) + 1e-9), step = Math.max(1, Math.ceil((to - from + 1) / count));
    const powers = [];
    for (let power = from; power <= to; power += step) powers.push(10 ** power);
    return powers.length > 1 ? powers : [low, high].map(value => Number(value.toPrecision(2)));
  }
  const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(part => part * power).find(part => part >= rough) || power;
  const found = [];
  for (let value = Math.ceil(low / step - 1e-9) * step; value <= high + step * 1e-9; value += step) found.push(Math.abs(value) < step * 1e-9 ? 0 : value);
  return found;
}

// An axis: {label, domain, log}. On a logarithmic one, values of 0 or less are drawn at its lower edge.
function axisOf(label, values, {log = false, zero = false, floor = null} = {}) {
  let shown = values.filter(value => value !== null && Number.isFinite(value));
  if (floor !== null) shown = shown.map(value => Math.max(value, floor));
  if (log) {
    const positive = shown.filter(value => value > 0);
    if (!positive.length) return {label, domain: [0, 1], log: false, floor};
    const [low, high] = extent(positive);
    return {label, domain: [low / (shown.length > positive.length ? 2 : 1.2), high * 1.2], log, floor};
  }
  let [low, high] = extent(shown);
  if (zero) [low, high] = [Math.min(0, low), Math.max(0, high)];
  if (low === high) [low, high] = [low - (Math.abs(low) || 1) / 2, high + (Math.abs(high) || 1) / 2];
  const room = (high - low) * 0.04;
  return {label, domain: [zero && low === 0 ? 0 : low - room, zero && high === 0 ? 0 : high + room], log, floor};
}

// The frame of a figure: its axes and grid; `x` and `y` are functions to pixels.
function frame(width, height, across, up) {
  const left = 56, right = 12, top = 10, bottom = 44, root = shape("svg", {viewBox: `0 0 ${width} ${height}`, height});
  const place = (axis, from, to) => value => {
    const [low, high] = axis.domain, by = axis.log ? Math.log10 : Number;
    const held = axis.log ? Math.max(value, Math.min(low, high)) : Math.max(value, axis.floor ?? -Infinity);
    return from + (by(held) - by(low)) / (by(high) - by(low)) * (to - from);
  };
  const x = place(across, left, width - right), y = place(up, height - bottom, top);
  for (const value of ticks(up.domain, up.log, 5)) {
    root.append(shape("line", {class: "gridline", x1: left, x2: width - right, y1: y(value), y2: y(value)}));
    root.append(shape("text", {class: "quiet", x: left - 6, y: y(value) + 4, "text-anchor": "end"}, tickText(value)));
  }
  for (const value of across.bare ? [] : ticks(across.domain, across.log, Math.max(3, Math.floor(width / 90)))) {
    root.append(shape("text", {class: "quiet", x: x(value), y: height - bottom + 16, "text-anchor": "middle"}, tickText(value)));
    root.append(shape("line", {class: "axis", x1: x(value), x2: x(value), y1: height - bottom, y2: height - bottom + 4}));
  }
  root.append(shape("line", {class: "axis", x1: left, x2: width - right, y1: height - bottom, y2: height - bottom}));
  root.append(shape("text", {x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle"}, across.label));
  const turned = shape("text", {x: 0, y: 0, "text-anchor": "middle", transform: `translate(13 ${(top + height - bottom) / 2}) rotate(-90)`}, up.label);
  root.append(turned);
  return {root, x, y, left, right: width - right, top, bottom: height - bottom};
}

const tickText = value => value !== 0 && (Math.abs(value) >= 1e4 || Math.abs(value) < 1e-3) ? value.toExponential(0).replace("e-", "e−").replace("e+", "e") : String(Number(value.toPrecision(3)));
const heightFor = width => Math.max(240, Math.min(420, Math.round(width * 0.55)));
const path = points => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

function histogram(low, high, counts) {
  const middle = counts.map((_, i) => low + (i + 0.5) * (high - low) / counts.length);
  return chart(`Histogram of the activation, from ${number(low)} to ${number(high)}`, width => {
    const of = frame(width, 250, {label: "activation", domain: low === high ? [low - 0.5, high + 0.5] : [low, high]}, axisOf("tokens", [0.8, ...counts], {log: true}));
    const step = (of.right - of.left) / counts.length;
    counts.forEach((count, i) => {
      if (!count) return;
      const bar = shape("rect", {class: "bar", x: of.left + i * step + 0.5, y: of.y(count), width: Math.max(1, step - 1), height: Math.max(1, of.bottom - of.y(count))});
      bar.append(shape("title", {}, `${counted(count, "token")} near ${number(middle[i])}`));
      of.root.append(bar);
    });
    return of.root;
  });
}

function againstEntropy(page) {
  const {sample_activation: h, sample_entropy: H, group_activation: groups, group_entropy: means} = page;
  return chart("Entropy of the prediction against the activation: a sample of positions, and means of ten groups", width => {
    const of = frame(width, 250, axisOf("activation", [...h, ...groups]), axisOf("entropy, nats", [...H, ...means], {zero: true}));
    h.forEach((value, i) => H[i] === null || of.root.append(shape("circle", {class: "sample", cx: of.x(value), cy: of.y(H[i]), r: 2.4})));
    of.root.append(shape("path", {class: "line", d: path(groups.map((value, i) => [of.x(value), of.y(means[i])]))}));
    groups.forEach((value, i) => of.root.append(shape("circle", {class: "dot", cx: of.x(value), cy: of.y(means[i]), r: 3.5}, shape("title", {}, `mean activation ${number(value)}, mean entropy ${number(means[i])} nats`))));
    return of.root;
  });
}

// The cosines with the singular vectors, counted from the smallest singular value; the null space is shaded.
function spectrum(cosines, D, k) {
  const label = `Cosines with the ${D} singular vectors of the unembedding; the null space, ${counted(k, "vector")} with the smallest singular values, is shaded`;
  return chart(label, width => {
    const each = D / cosines.length, shown = cosines.map(Math.abs);
    const across = {label: "singular vectors, smallest value last", domain: [D + 0.5, 0.8], log: true};
    const of = frame(width, 250, across, axisOf("|cosine|", [0, ...shown], {zero: true}));
    const edge = of.x(k + 0.5);
    of.root.append(shape("rect", {class: "null", x: edge, y: of.top, width: of.right - edge, height: of.bottom - of.top}, shape("title", {}, `null space: ${counted(k, "vector")}`)));
    shown.forEach((value, i) => {
      const rank = D - (i + 0.5) * each + 0.5, x = of.x(rank);
      const name = each === 1 ? `vector ${rank}` : `vectors near ${Math.round(rank)}`;
      of.root.append(shape("rect", {class: "bar", x: x - 1, y: of.y(value), width: 2, height: Math.max(0, of.bottom - of.y(value))}, shape("title", {}, `${name}: cosine ${number(cosines[i])}`)));
    });
    return of.root;
  });
}

// A scatter plot of neurons: `points` are {name, kind, x, y}, `behind` are pairs; a click on a point opens its neuron.
function scatter(label, points, behind, across, up, guides, open, found = null) {
  const told = element("p", {class: "told", "aria-hidden": "true"}, "Point at a neuron for its values.");
  const host = chart(label, width => {
    const of = frame(width, heightFor(width), across, up);
    for (const value of guides.x) if (value >= across.domain[0] && value <= across.domain[1]) of.root.append(shape("line", {class: "rule", x1: of.x(value), x2: of.x(value), y1: of.top, y2: of.bottom}));
    for (const value of guides.y) if (value >= up.domain[0] && value <= up.domain[1]) of.root.append(shape("line", {class: "rule", x1: of.left, x2: of.right, y1: of.y(value), y2: of.y(value)}));
    if (!points.length && !behind.length) of.root.append(shape("text", {class: "quiet", x: (of.left + of.right) / 2, y: (of.top + of.bottom) / 2, "text-anchor": "middle"}, "no neuron has both values here"));
    for (const [x, y] of behind) of.root.append(shape("circle", {class: "behind", cx: of.x(x), cy: of.y(y), r: 2}));
    for (const point of [...points].sort((a, b) => Boolean(a.kind) - Boolean(b.kind))) {
      const dot = shape("circle", {class: `point ${point.kind}${point.name === found ? " found" : ""}`, cx: of.x(point.x), cy: of.y(point.y), r: point.kind ? 5 : 4, "data-name": point.name});
      dot.addEventListener("pointerenter", () => { told.textContent = `${point.name}: ${across.label} ${number(point.x)}, ${up.label} ${number(point.y)}`; });
      dot.addEventListener("click", () => open(point.name));
      of.root.append(dot);
    }
    return of.root;
  });
  return element("div", {}, host, told);
}

// Lines over runs: `lines` are {label, values}, `places` the labels of the runs, and `here` is the run that is marked, or -1.
function timeline(label, lines, places, here) {
  return chart(label, width => {
    const values = lines.flatMap(line => line.values), last = Math.max(1, places.length - 1);
    const of = frame(width, 240, {label: "", domain: [-0.2, last + 0.2], log: false, bare: true}, axisOf("", values, {zero: true}));
    const every = Math.max(1, Math.ceil(places.length / Math.max(2, Math.floor(width / 110))));
    places.forEach((place, i) => i % every || of.root.append(shape("text", {class: "quiet", x: of.x(i), y: of.bottom + 16, "text-anchor": "middle"}, place.length > 14 ? `…${place.slice(-13)}` : place)));
    if (here >= 0) of.root.append(shape("line", {class: "rule", x1: of.x(here), x2: of.x(here), y1: of.top, y2: of.bottom}));
    lines.forEach(({label: name, values}, i) => {
      const second = i ? " second" : "", known = values.map((value, j) => [value, j]).filter(([value]) => value !== null);
      of.root.append(shape("path", {class: `line${second}`, d: path(known.map(([value, j]) => [of.x(j), of.y(value)]))}));
      known.forEach(([value, j]) => of.root.append(shape("circle", {class: `dot${second}`, cx: of.x(j), cy: of.y(value), r: 3.5}, shape("title", {}, `${places[j]}: ${name} ${number(value)}`))));
      of.root.append(shape("text", {x: of.left + 8 + i * 130, y: of.bottom + 36}, `${i ? "green" : "red"}: ${name}`));
    });
    return of.root;
  });
}
