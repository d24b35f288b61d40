"use strict";
// The page itself: what the reader chooses, and what is shown of it. Letters: t position, m neuron, v vocabulary.

const SHOWN = 15; // tokens with a bar of their own
const COMMON = 16; // words that are drawn as common
const LEAST = 1e-7; // the smallest probability on the axes of the points

const data = JSON.parse(document.getElementById("data").textContent);
const { world, sets } = data;
const model = {
  config: data.config,
  tensors: readTensors(Uint8Array.from(atob(data.weights), letter => letter.charCodeAt(0))),
};
const END = world.tokens.length - 1, LONGEST = model.config.max_position_embeddings;
const names = world.tokens.map((name, token) => (token === END ? "END" : name));
const ids = new Map(names.map((name, token) => [name, token])).set(world.tokens[END], END);
const element = id => document.getElementById(id);

const state = { tokens: [], at: 0, entropy: 1, frequency: 1, frozen: false };
let unchanged, best; // of the whole text: what `forward` and `optimum` give

/** A probability with two digits that count: 12%, 0.30%, 0.0040%. */
function percent(p) {
  if (p < 1e-9) return p ? "<1e-7%" : "0%";
  const rounded = Number((100 * p).toPrecision(2));
  return `${rounded.toFixed(Math.max(0, 1 - Math.floor(Math.log10(rounded))))}%`;
}

const times = factor => `×${factor.toFixed(1)}`;

/** The token ids that a text names, or the sentence that says what is wrong with it. */
function read(text) {
  const written = text.split(/\s+/).filter(Boolean);
  const wrong = written.find(name => !ids.has(name));
  if (wrong !== undefined) return `“${wrong}” is no token of this language; write ${names[0]} to ${names[world.words - 1]}, ${names[world.words]} to ${names[END - 1]} or END.`;
  if (written.length >= LONGEST) return `The text has ${written.length} tokens, and the model reads ${LONGEST - 1} at most; cut it.`;
  return written.map(name => ids.get(name));
}

function setText(tokens) {
  state.tokens = [END, ...tokens];
  state.at = state.tokens.length - 1;
  unchanged = forward(model, state.tokens);
  best = optimum(world, state.tokens);
  showChips();
  show();
}

function showChips() {
  const chips = state.tokens.map((token, t) => {
    const label = document.createElement("label"), radio = document.createElement("input"), name = document.createElement("span");
    Object.assign(radio, { type: "radio", name: "at", checked: t === state.at });
    radio.addEventListener("change", () => { state.at = t; showChips(); element("chips").querySelectorAll("input")[t].focus(); show(); });
    name.textContent = names[token];
    label.className = `${token >= world.words ? "marker" : ""} ${t > state.at ? "later" : ""}`;
    label.append(radio, name);
    return label;
  });
  element("chips").replaceChildren(element("chips").querySelector("legend"), ...chips);
}

/** What the activation of each neuron is multiplied by, [m], or null if nothing is changed. */
function factors() {
  if (state.entropy === 1 && state.frequency === 1) return null;
  const found = new Float64Array(model.config.intermediate_size).fill(1);
  for (const kind of ["entropy", "frequency"]) for (const m of sets[kind]) found[m] = state[kind];
  return found;
}

/** Log-probabilities of what follows the chosen token, [v]: of the unchanged model, and with what the reader changed. */
function predictions() {
  const was = logProbabilities(unchanged.logits[state.at]), changed = factors();
  if (!changed) return { was, now: was };
  const read = state.tokens.slice(0, state.at + 1);
  const scales = state.frozen ? unchanged.scales.slice(0, state.at + 1) : null;
  return { was, now: logProbabilities(forward(model, read, { factors: changed, scales }).logits[state.at]) };
}

function show() {
  const { was, now } = predictions(), optimal = best[state.at], order = ranking(was);
  const nearest = bestTemperature(was, now);
  for (const kind of ["entropy", "frequency"]) {
    element(kind).value = state[kind];
    element(kind).setAttribute("aria-valuetext", times(state[kind]));
    element(`${kind}_at`).textContent = times(state[kind]);
  }
  element("frozen").checked = state.frozen;
  element("said").replaceChildren(...sentences(was, now, optimal, order, nearest).map(words => {
    return Object.assign(document.createElement("p"), { textContent: words });
  }));
  element("bars_title").textContent = `What follows ${names[state.tokens[state.at]]}`;
  showBars(was.map(Math.exp), now.map(Math.exp), optimal, order);
  showDots(was, now, nearest);
}

/** What happened, in two sentences: to the confidence, and to the ranking. */
function sentences(was, now, optimal, order, { temperature, explained }) {
  const [before, after] = [was, now].map(lp => entropy(lp.map(Math.exp)).toFixed(2));
  const right = optimal ? `best possible: ${entropy(optimal).toFixed(2)}` : "no text of this language goes on like this, so there is no best prediction";
  if (!factors()) return [`As it is: entropy ${before} nats (${right}).`, "Move a slider, or try one of the buttons."];
  const changed = [["entropy", "entropy"], ["frequency", "token-frequency"]].filter(([kind]) => state[kind] !== 1);
  const what = changed.map(([kind, word]) => `${word} neurons ${times(state[kind])}`).join(", ") + (state.frozen ? ", norm frozen" : "");
  const [top, first] = [order[0], ranking(now)[0]].map(token => names[token]);
  const likeliest = `The likeliest token is ${top === first ? `still ${top}` : `now ${first}, no longer ${top}`}`;
  const correlation = rankCorrelation(order, ranking(now)).toFixed(2);
  return [
    `${what[0].toUpperCase()}${what.slice(1)}: entropy ${before} → ${after} nats (${right}).`,
    `${likeliest}; the ranks of all tokens correlate ${correlation} with those before. The nearest temperature, ${temperature.toFixed(2)}, ` +
      `does ${share(explained)} of the change.`,
  ];
}

const share = explained => `${(100 * Math.max(0, explained)).toFixed(0)}%`;

/** The bars: a table of the likeliest tokens with their probabilities, the unchanged model's order. */
function showBars(was, now, optimal, order) {
  const shown = order.slice(0, SHOWN), rest = order.slice(SHOWN);
  const most = Math.max(...shown.flatMap(token => [was[token], now[token], optimal ? optimal[token] : 0]));
  const widest = [0.1, 0.2, 0.4, 0.6, 0.8].find(limit => most <= limit) ?? 1;
  const word = state.tokens.slice(0, state.at + 1).findLast(token => token < world.words || token === END);
  const next = word === END ? -1 : world.next[word];
  const all = values => rest.reduce((sum, token) => sum + values[token], 0);
  const rows = [
    ...shown.map(token => [names[token], token === next, now[token], was[token], optimal ? optimal[token] : null]),
    [`${rest.length} others`, false, all(now), all(was), optimal ? all(optimal) : null],
  ];
  element("bars").tBodies[0].replaceChildren(...rows.map(([name, chain, ...values], index) => {
    const row = document.createElement("tr"), head = document.createElement("th");
    Object.assign(head, { scope: "row", textContent: name, title: chain ? "the word that follows without noise" : "" });
    row.className = chain ? "chain" : "";
    const bar = document.createElement("td");
    if (index < SHOWN) bar.append(track(values.map(value => value === null ? null : value / widest)));
    row.append(head, bar, ...values.map(value => Object.assign(document.createElement("td"), { textContent: value === null ? "–" : percent(value) })));
    return row;
  }));
}

function track([now, was, right]) {
  const found = document.createElement("div");
  found.className = "track";
  for (const [name, share] of [["was", was], ["now", now]]) found.append(mark(name, { width: `${100 * share}%` }));
  if (right !== null) found.append(mark("best", { left: `${100 * right}%` }));
  return found;
}

function mark(name, style) {
  const found = document.createElement("i");
  found.className = name;
  Object.assign(found.style, style);
  return found;
}

function draw(tag, attributes, text = "") {
  const found = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) found.setAttribute(name, value);
  found.textContent = text;
  return found;
}

/** The points: the probability of each token before and now, on logarithmic axes, and the line of a temperature. */
function showDots(was, now, { temperature, explained }) {
  const svg = element("dots"), width = Math.max(240, svg.clientWidth), height = Math.min(420, Math.round(width * 0.8));
  const left = 62, right = 12, top = 24, bottom = 44, clipped = lp => Math.max(lp, Math.log(LEAST));
  const least = Math.floor(Math.min(...was.map(clipped), ...now.map(clipped)) / Math.LN10);
  const along = lp => 1 - clipped(lp) / (least * Math.LN10);
  const x = lp => left + along(lp) * (width - left - right), y = lp => height - bottom - along(lp) * (height - top - bottom);
  const parts = [];
  for (let power = 0; power >= least; power--) {
    const lp = power * Math.LN10, label = `${Number(`1e${power + 2}`)}%`;
    parts.push(draw("line", { class: "grid", x1: x(lp), x2: x(lp), y1: top, y2: height - bottom }));
    parts.push(draw("line", { class: "grid", x1: left, x2: width - right, y1: y(lp), y2: y(lp) }));
    parts.push(draw("text", { x: left - 6, y: y(lp) + 4, "text-anchor": "end" }, label));
    if ((power - least) % 2 === 0 || width > 460) parts.push(draw("text", { x: x(lp), y: height - bottom + 16, "text-anchor": power ? "middle" : "end" }, label));
  }
  const clip = draw("clipPath", { id: "inside" });
  clip.append(draw("rect", { x: left, y: top, width: width - left - right, height: height - top - bottom }));
  parts.push(clip, draw("rect", { class: "frame", x: left, y: top, width: width - left - right, height: height - top - bottom }));
  const low = least * Math.LN10, scaled = was.map(lp => lp / temperature), norm = scaled[0] - logProbabilities(scaled)[0];
  const straight = (name, slope, shift) => {
    // Beyond the frame the line is cut by the clip path, so its ends are not clipped.
    const at = lp => height - bottom - (1 - lp / low) * (height - top - bottom);
    return draw("line", { class: name, x1: x(low), x2: x(0), y1: at(slope * low - shift), y2: at(-shift), "clip-path": "url(#inside)" });
  };
  parts.push(straight("same", 1, 0), straight("line", 1 / temperature, norm));
  was.forEach((lp, token) => {
    const kind = token >= world.words ? "other" : token < COMMON ? "common" : "rare";
    const point = draw("circle", { class: kind, cx: x(lp), cy: y(now[token]), r: 4 });
    point.append(draw("title", {}, `${names[token]}: ${percent(Math.exp(lp))} as it is, ${percent(Math.exp(now[token]))} now`));
    parts.push(point);
  });
  const told = Number.isNaN(explained) ? "temperature 1: nothing is changed" : `temperature ${temperature.toFixed(2)}: ${share(explained)} of the change`;
  parts.push(draw("text", { class: "told", x: left, y: top - 9 }, told));
  parts.push(draw("text", { x: (left + width) / 2, y: height - 6, "text-anchor": "middle" }, "probability as it is"));
  parts.push(draw("text", { x: 12, y: (top + height - bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${(top + height - bottom) / 2})` }, "probability now"));
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("height", height);
  svg.setAttribute("aria-label", `The probabilities of all ${was.length} tokens now against those of the unchanged model; ${told}`);
  svg.replaceChildren(...parts);
}

function drawText() {
  const tokens = drawnStretch(world, Number(element("level").value), 12, Math.random);
  element("text").value = tokens.map(token => names[token]).join(" ");
  element("problem").textContent = "";
  setText(tokens);
}

followTheme(() => {});
element("common").textContent = `${names[0]} to ${names[COMMON - 1]}, the commonest words`;
world.noise.forEach((noise, level) => element("level").append(new Option(`${names[world.words + level]}: ε = ${noise.toFixed(2)}`, level)));
element("level").value = 3;
element("level").addEventListener("change", drawText);
element("draw").addEventListener("click", drawText);
element("text").addEventListener("input", () => {
  const found = read(element("text").value);
  element("problem").textContent = typeof found === "string" ? found : "";
  if (typeof found !== "string") setText(found);
});
for (const kind of ["entropy", "frequency"]) {
  element(kind).addEventListener("input", () => { state[kind] = Number(element(kind).value); show(); });
}
element("frozen").addEventListener("change", () => { state.frozen = element("frozen").checked; show(); });
for (const button of document.querySelectorAll("button[data-entropy]")) {
  button.addEventListener("click", () => {
    const { entropy, frequency, frozen } = button.dataset;
    Object.assign(state, { entropy: Number(entropy), frequency: Number(frequency), frozen: frozen !== undefined });
    show();
  });
}
let shownWidth = 0;
new ResizeObserver(([{ contentRect: { width } }]) => {
  if (width !== shownWidth) show();
  shownWidth = width;
}).observe(document.querySelector(".figures"));
element("text").value = "e3 w4 w5 w11 w12 w13 w14";
setText(read(element("text").value));
