"use strict";
// Several runs: one after the other with a slider, side by side, and a neuron over all of them.

const BESIDE = 6;  // so many runs are drawn side by side at most
chosen.at = -1;

async function comparison(heads, name) {
  const runs = await Promise.all(heads.map(async head => ({...(await load(`${head.key}/run`)), head})));
  if (chosen.at < 0) chosen.at = runs.length - 1;
  const all = run => run.names.map((_, i) => i);
  // All runs have the same axes, so that a neuron that moves is seen to move.
  const domains = (x, y, log, floor) => [x, y].map((column, i) => axisOf(column, runs.flatMap(run => [...run.values[column], ...run.background[column]]), {log: log.includes("xy"[i]), floor: i ? floor : null}));
  const last = runs[runs.length - 1], matched = runs.filter(run => alike(run.head, last.head));
  const names = [...new Set(matched.flatMap(run => run.names))], isNamed = other => matched.some(run => at(run, other) >= 0 && kindOf(run, at(run, other)));
  const select = other => { location.hash = `#/compare/${encodeURIComponent(other)}`; };
  const picture = run => figureOf(run, all(run), domains, select, name);

  const place = element("div"), told = element("output", {for: "run"});
  const draw = () => { told.textContent = `${runs[chosen.at].key} (${chosen.at + 1} of ${runs.length})`; place.replaceChildren(picture(runs[chosen.at])); slider.setAttribute("aria-valuetext", runs[chosen.at].key); };
  const slider = element("input", {type: "range", id: "run", min: 0, max: runs.length - 1, step: 1, value: chosen.at, oninput: event => { chosen.at = Number(event.target.value); draw(); }});
  const beside = element("div", {class: "grid"});
  const drawBeside = () => beside.replaceChildren(...(runs.length <= BESIDE ? runs.map(run => card(run.key, picture(run))) : []));
  const choice = element("select", {id: "neuron", onchange: event => select(event.target.value)}, element("option", {value: ""}, "choose"), ["of a rule", "others"].map((label, others) => element("optgroup", {label}, names.filter(other => isNamed(other) !== Boolean(others)).map(other => element("option", {value: other, selected: other === name}, other)))).filter(group => group.children.length));
  draw();
  drawBeside();
  const few = runs.length <= BESIDE;
  return [
    few ? runsTable(runs) : null,
    element("section", {class: "card", "aria-label": "Run by run"}, element("h2", {style: "margin-top: 0"}, "Run by run"), element("div", {class: "controls"}, figureChoice(() => { draw(); drawBeside(); }), element("label", {}, "Run ", slider), told), place, element("p", {class: "note"}, "All runs have the same axes. Red: entropy neurons; green: token-frequency neurons. A click on a point chooses its neuron.")),
    element("section", {class: "box", "aria-label": "One neuron"}, element("h2", {style: "margin-top: 0"}, "One neuron over the runs"), element("div", {class: "controls"}, element("label", {}, "Neuron ", choice)), name === undefined ? element("p", {class: "note"}, "Choose a neuron here, or click on its point.") : overRuns(runs.filter(run => at(run, name) >= 0), name, runs[chosen.at])),
    few ? element("section", {"aria-label": "Side by side"}, element("h2", {}, "Side by side"), beside) : runsTable(runs),
  ];
}

// What a neuron does over some runs, of which `here` is marked if it is one.
function timelines(runs, name, here) {
  return [["rho", "ln_mediated"], ["entropy_delta", "loss_delta"]].map(pair => timeline(
    `${pair.join(" and ")} of ${name} over the runs`,
    pair.map(column => ({label: column, values: runs.map(run => run.values[column][at(run, name)] ?? null)})),
    runs.map(run => run.key), runs.indexOf(here)));
}

// The timelines of a neuron, and its values in each run.
function overRuns(runs, name, here) {
  if (!runs.length) return element("p", {role: "alert"}, `No run has a row for the neuron ${name}.`);
  const kinds = new Set(runs.map(run => JSON.stringify(run.head.shape))), shapes = kinds.size > 1 ? "These runs are of models of different shapes, in which the same name is another neuron. " : "";
  const columns = SHOWN.filter(column => runs.some(run => run.values[column][at(run, name)] !== null));
  const rows = runs.map(run => {
    const i = at(run, name), text = run.key;
    const head = run.pages[i] < 0 ? element("span", {}, text) : element("a", {href: linkTo(run, name), class: `name ${kindOf(run, i)}`}, text);
    return element("tr", {}, element("th", {scope: "row"}, head), element("td", {}, run.kinds[i].join(", ")), columns.map(column => element("td", {}, number(run.values[column][i]))));
  });
  const lines = runs.length > 1 && kinds.size === 1 ? timelines(runs, name, here) : [];
  return element("div", {}, element("div", {class: "grid"}, lines), element("p", {class: "note"}, shapes, "A link leads to the neuron's page in that run."), tableOf(["run", "named", ...columns], rows, `Neuron ${name} over the runs`));
}

function runsTable(runs) {
  const rows = runs.map(run => element("tr", {}, element("th", {scope: "row"}, element("a", {href: linkTo(run)}, run.key)), element("td", {}, [run.title, run.head.revision?.slice(0, 12)].filter(Boolean).join(", ")), [run.head.loss, run.head.entropy].map(value => element("td", {}, number(value))), ["entropy", "frequency"].map(kind => element("td", {}, String(run.head.named[kind]))), element("td", {class: "tokens"}, run.names.filter((_, i) => run.kinds[i].length).slice(0, 8).join(" "))));
  return element("section", {class: "box", "aria-label": "Runs"}, element("h2", {style: "margin-top: 0"}, "Runs"), tableOf(["run", "model", "loss", "entropy", "entropy neurons", "frequency neurons", "named"], rows, "Table of runs"));
}
