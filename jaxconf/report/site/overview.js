"use strict";
// The first page of a run: its verdict, its figures and the table of its neurons.

const FIGURES = {
  "Figure 2e: null space and mediation": {x: "rho", y: "ln_mediated", floor: -0.5},
  "Figure 1: entropy and prediction": {x: "top1_change", y: "entropy_abs_delta", log: "xy"},
  "Figure 2a: norm and LogitVar": {x: "w_norm", y: "logit_var", log: "y"},
  "Figure 3b: token frequency": {x: "kl_freq_abs_delta", y: "freq_mediated", log: "x", floor: -0.5},
  "Loss and entropy": {x: "loss_abs_delta", y: "entropy_abs_delta", log: "xy"},
};
const SHOWN = ["rho", "ln_mediated", "freq_mediated", "entropy_delta", "entropy_abs_delta", "loss_abs_delta", "kl_freq_abs_delta", "top1_change", "w_norm", "cos_freq"];
const SOME = 300;  // rows that the table shows at once

// What the reader has chosen: it stays while other pages are looked at.
const chosen = {figure: Object.keys(FIGURES)[0], text: "", kind: "", layer: "", column: "loss_abs_delta", down: true, rows: SOME};

const kindOf = (run, i) => run.kinds[i][0] || "";
const at = (run, name) => run.names.indexOf(name);
const linkTo = (run, name) => `#/${encodeURIComponent(run.key)}${name === undefined ? "" : `/${encodeURIComponent(name)}`}`;

// The places of the neurons that the filter lets through, in the order of the table.
function listed(run) {
  const text = chosen.text.trim().toLowerCase();
  const values = chosen.column === "neuron" ? run.names.map((_, i) => -i) : run.values[chosen.column];
  const wanted = run.names.map((_, i) => i).filter(i =>
    (!chosen.kind || (chosen.kind === "none" ? !run.kinds[i].length : run.kinds[i].includes(chosen.kind))) &&
    (chosen.layer === "" || String(run.layers[i]) === chosen.layer) &&
    (!text || run.names[i].toLowerCase().includes(text) || run.tokens[i].some(token => token.toLowerCase().includes(text)))
  );
  const [low, high] = chosen.down ? [1, -1] : [-1, 1];
  return wanted.sort((a, b) => (values[a] === null) - (values[b] === null) || (values[a] < values[b] ? low : values[a] > values[b] ? high : a - b));
}

// The figure that is chosen, for the neurons `places` of a run.
function figureOf(run, places, domains = null, open = name => { location.hash = linkTo(run, name); }, found = null) {
  const {x, y, log = "", floor = null} = FIGURES[chosen.figure], values = run.values;
  const both = places.filter(i => values[x][i] !== null && values[y][i] !== null);
  const behind = run.background[x].map((value, i) => [value, run.background[y][i]]).filter(([a, b]) => a !== null && b !== null);
  const axis = (column, letter) => axisOf(column, [...both.map(i => values[column][i]), ...behind.map(pair => pair[letter === "x" ? 0 : 1])], {log: log.includes(letter), floor: letter === "y" ? floor : null});
  const [across, up] = domains ? domains(x, y, log, floor) : [axis(x, "x"), axis(y, "y")];
  const points = both.map(i => ({name: run.names[i], kind: kindOf(run, i), x: values[x][i], y: values[y][i]}));
  const guides = {x: run.guides[x] || [], y: run.guides[y] || []};
  return scatter(`${chosen.figure}, of ${run.title}: ${counted(points.length, "neuron")}`, points, behind, across, up, guides, open, found);
}

function figureChoice(redraw) {
  const choice = element("select", {onchange: event => { chosen.figure = event.target.value; redraw(); }});
  choice.append(...Object.keys(FIGURES).map(name => element("option", {value: name, selected: name === chosen.figure}, name)));
  return element("label", {}, "Figure ", choice);
}

function overview(run) {
  const picture = element("div"), list = element("div"), matches = element("span", {role: "status", class: "note", style: "margin: 0"});
  const draw = () => picture.replaceChildren(figureOf(run, listed(run)));
  const redraw = () => { chosen.rows = SOME; table(); draw(); };

  function table() {
    const places = listed(run), heads = ["neuron", ...SHOWN].map(column => {
      const way = chosen.column === column ? (chosen.down ? "descending" : "ascending") : null;
      const sort = () => { [chosen.down, chosen.column] = [chosen.column === column ? !chosen.down : true, column]; table(); [...list.querySelectorAll("thead button")].find(button => button.textContent === column)?.focus(); };
      return [column, site().columns[column] || null, sort, way];
    });
    const rows = places.slice(0, chosen.rows).map(i => {
      const name = run.names[i], kind = kindOf(run, i);
      const link = run.pages[i] < 0 ? element("span", {class: "missing"}, name) : element("a", {href: linkTo(run, name), class: `name ${kind}`}, name);
      return element("tr", {}, element("th", {scope: "row"}, link), SHOWN.map(column => element("td", {}, number(run.values[column][i]))), element("td", {class: "tokens"}, run.tokens[i].map(token => [word(token), " "])));
    });
    list.replaceChildren(tableOf([...heads, ["promotes", "the tokens whose logits a rise of the activation raises most"]], rows, "Table of neurons"));
    if (places.length > chosen.rows) list.append(element("button", {type: "button", class: "more", onclick: () => { chosen.rows += SOME; table(); }}, `Show more of ${counted(places.length, "neuron")}`));
    matches.textContent = places.length === run.names.length ? counted(places.length, "neuron") : `${places.length.toLocaleString("en")} of ${counted(run.names.length, "neuron")}`;
  }

  const option = (value, text, now) => element("option", {value, selected: value === now}, text);
  const layers = [...new Set(run.layers)].sort((a, b) => a - b);
  const controls = element("div", {class: "controls"},
    element("label", {}, "Search ", element("input", {type: "search", id: "search", placeholder: "neuron or token", value: chosen.text, oninput: event => { chosen.text = event.target.value; redraw(); }})),
    element("label", {}, "Show ", element("select", {id: "kind", onchange: event => { chosen.kind = event.target.value; redraw(); }}, option("", "all neurons", chosen.kind), option("entropy", "entropy neurons", chosen.kind), option("frequency", "token-frequency neurons", chosen.kind), option("none", "all others", chosen.kind))),
    layers.length > 1 ? element("label", {}, "Layer ", element("select", {onchange: event => { chosen.layer = event.target.value; redraw(); }}, option("", "all", chosen.layer), layers.map(layer => option(String(layer), String(layer), chosen.layer)))) : null,
    matches);
  const some = run.count > run.names.length ? `The site has pages of ${counted(run.names.length, "neuron")} of ${run.count.toLocaleString("en")}: those that a rule names and those with the largest effects on the loss. The others are drawn behind them. ` : "";
  redraw();
  return [
    element("section", {class: "verdict", "aria-label": "Verdict"}, run.verdict.map(sentence => element("p", {}, sentence))),
    element("section", {class: "card", "aria-label": "Figure"}, element("div", {class: "controls"}, figureChoice(draw)), picture, element("p", {class: "note"}, some, "Red: entropy neurons; green: token-frequency neurons. Dashed lines are thresholds of the rules; zeros on a logarithmic axis are drawn at its edge. A click on a point opens its neuron; every point with a page is also a row of the table.")),
    element("section", {class: "box", "aria-label": "Neurons"}, element("h2", {style: "margin-top: 0"}, "Neurons"), controls, list),
    runFacts(run),
  ];
}

function runFacts(run) {
  const facts = element("dl", {}, run.facts.map(([name, text]) => element("div", {}, element("dt", {}, name), element("dd", {}, text))));
  return element("section", {class: "box", "aria-label": "The run"}, element("details", {}, element("summary", {}, "The run"), facts), element("details", {}, element("summary", {}, "Rules"), element("ul", {}, run.rules.map(rule => element("li", {}, rule)))), element("details", {}, element("summary", {}, "What the columns mean"), element("dl", {class: "glossary"}, Object.entries(site().columns).map(([name, text]) => element("div", {}, element("dt", {}, name), element("dd", {}, text))))), cite(run.citation));
}

function cite(text) {
  const button = element("button", {type: "button"}, "Copy");
  const where = location.href.split("#")[0].startsWith("file:") ? "" : ` ${location.href}`;
  const whole = `${text}${where}`, words = element("span", {}, whole);
  button.addEventListener("click", async () => {
    try { await navigator.clipboard.writeText(whole); button.textContent = "Copied"; } catch {
      getSelection().selectAllChildren(words);  // a page from disk may have no clipboard
      button.textContent = "Selected";
    }
  });
  return element("p", {class: "cite"}, "Cite as: ", words, " ", button);
}
