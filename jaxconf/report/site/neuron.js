"use strict";
// The page of a neuron.

const MAIN = ["rho", "ln_mediated", "freq_mediated", "entropy_delta", "entropy_abs_delta", "loss_delta", "loss_abs_delta", "kl_freq_delta", "kl_freq_abs_delta", "top1_change", "w_norm", "logit_var", "cos_freq", "entropy_corr"];
const KINDS = {
  top: ["Largest activations", "Each passage is around one of the positions at which the activation is largest."],
  quantile: ["Across quantiles of the activation", "From the 99th percentile of the activation down to its smallest value, a position each."],
  loss: ["Where ablating it changes the loss most", "Positions with the largest |change of loss|."],
  entropy: ["Where ablating it changes the entropy most", "Positions with the largest |change of entropy|."],
};

function neuronPage(run, page, others) {
  const name = page.name, i = at(run, name);
  const tokens = tokensOf(page);
  return [
    element("section", {class: "verdict", "aria-label": "Verdict"}, element("p", {}, run.kinds[i].map(badge), page.verdict[0]), page.verdict.slice(1).map(sentence => element("p", {class: "note"}, sentence))),
    passagesCard(page),
    element("div", {class: "grid"},
      card("How its activation is spread", histogram(page.low, page.high, page.histogram), `All tokens, in ${page.histogram.length} equal bins; the axis of tokens is logarithmic.`),
      card("Activation and entropy", againstEntropy(page), `Grey: a sample of the kept positions. Red: means of ten groups of equally many positions. The correlation over all of them is ${number(page.values.entropy_corr?.[0])}.`),
      card("Its direction in the unembedding's spectrum", spectrum(page.cosines, run.D, run.k), `Shaded: the null space, ${counted(run.k, "direction")} that the unembedding all but ignores. The share of the norm there is rho, ${number(page.values.rho[0])}.`),
      tokens,
      nearestCard(run, page),
      others.length > 1 ? timelineCard(run, name, others) : null,
      card("Effects", valuesTable(MAIN.filter(column => column in page.values), page, "Table of effects"), "Rank 1 has the largest value of its layer. A null has the activations of a neuron and a random direction of the same length; the last column says how many nulls have at least the neuron's value.", true)),
    element("section", {class: "box", "aria-label": "All values"}, element("details", {}, element("summary", {}, "All values"), valuesTable(Object.keys(page.values), page, "Table of all values")), cite(`Neuron ${name} of ${run.citation}`)),
  ];
}

function valuesTable(columns, page, label) {
  const rows = columns.map(column => {
    const [value, low, high, rank, of, median, extreme, large, nulls] = page.values[column];
    const cells = [number(value), low === null ? "" : `${number(low)} to ${number(high)}`, rank ? `${rank.toLocaleString("en")} of ${of.toLocaleString("en")}` : "n/a", median === null ? "" : `${number(median)}, ${number(extreme)}`, nulls === null ? "" : `${large} of ${nulls}`];
    return element("tr", {}, element("th", {scope: "row", title: site().columns[column]}, column), cells.map(text => element("td", {}, text)));
  });
  return tableOf(["value of", "this neuron", "95% interval", "rank", "nulls: median, 99%", "nulls as large"], rows, label);
}

function tokensOf(page) {
  const list = (heading, [tokens, by]) => element("div", {}, element("h4", {}, heading), element("ol", {}, tokens.map((token, i) => element("li", {}, word(token), element("span", {}, number(by[i]))))));
  const same = JSON.stringify([page.promoted[0], page.suppressed[0]]) === JSON.stringify([page.promoted_frozen[0], page.suppressed_frozen[0]]);
  const total = [list("promotes", page.promoted), list("suppresses", page.suppressed)];
  const frozen = [list("promotes, norm frozen", page.promoted_frozen), list("suppresses, norm frozen", page.suppressed_frozen)];
  const told = "By how much a logit changes for each unit of activation (of what is added behind the norm, where one follows the MLP), on average over the kept positions. The norm reacts to the neuron; ";
  return card("Tokens that it promotes and suppresses", element("div", {class: "pairs"}, total, same ? null : frozen), told + (same ? "with its scale frozen, the tokens are the same." : "with its scale frozen, the order is that of w·W_U."));
}

function nearestCard(run, page) {
  const rows = page.nearest.map(([name, cosine]) => {
    const i = at(run, name), linked = i >= 0 && run.pages[i] >= 0;
    return element("li", {}, linked ? element("a", {href: linkTo(run, name)}, name) : element("span", {class: "missing"}, name), element("span", {}, number(cosine)));
  });
  return card("Nearest neurons by direction", element("div", {class: "pairs"}, element("ol", {}, rows)), "Cosines of the output weights. Names without a link have no page on this site.");
}

function timelineCard(run, name, others) {
  return card("Over the runs", element("div", {}, timelines(others, name, run)), "The neuron of the same name in each run whose model has this shape. The dashed line is this run.", true);
}

// The passages: every token is shaded by the activation there, and says on hover or focus what is predicted behind it.
function passagesCard(page) {
  const reading = element("div", {class: "reading", role: "status"}, "Point at a token, or go through a passage with the arrow keys, for its activation and for the loss and entropy of what is predicted behind it.");
  const most = Math.max(Math.abs(page.low), Math.abs(page.high)) || 1;
  const sections = Object.entries(KINDS).map(([kind, [heading, how]], first) => {
    const found = page.passages.each.filter(passage => passage.kind === kind);
    if (!found.length) return null;
    const body = element("div"), section = element("details", {open: !first}, element("summary", {}, `${heading} (${found.length})`), body);
    const fill = () => { if (section.open && !body.childElementCount) body.append(element("p", {class: "note"}, how), ...found.map((passage, number) => passageOf(page, passage, number, most, reading))); };
    section.addEventListener("toggle", fill);
    fill();
    return section;
  });
  const legend = element("p", {class: "note key"}, element("span", {class: "positive"}, "activation above 0"), element("span", {class: "negative"}, "below 0"), element("span", {}, `full colour: ±${number(most)}`));
  return element("section", {class: "box", "aria-label": "Passages"}, element("h2", {style: "margin-top: 0"}, "Passages"), legend, sections, reading);
}

function passageOf(page, passage, place, most, reading) {
  const words = passage.tokens.map(i => page.passages.words[i]), count = passage.activation.length;
  const line = element("div", {class: "passage", role: "group", "aria-label": `${KINDS[passage.kind][0]}, passage ${place + 1}`});
  const move = (event, to) => { if (to >= 0 && to < count) { line.children[to].focus(); event.preventDefault(); } };
  const tell = i => {
    for (const other of document.querySelectorAll(".passage .here")) other.classList.remove("here");
    line.children[i].classList.add("here");
    const values = [`activation ${number(passage.activation[i])}`];
    if (passage.loss[i] !== null) values.push(`loss ${number(passage.loss[i])} → ${number(passage.after.loss[i])}`, `entropy ${number(passage.entropy[i])} → ${number(passage.after.entropy[i])} nats`);
    reading.replaceChildren(element("b", {}, word(words[i])), `, ${values[0]}. `, passage.loss[i] === null ? "Nothing is predicted behind it." : element("span", {}, "Next, ", element("b", {}, word(words[i + 1])), `: ${values.slice(1).join(", ")}, when the neuron is ablated.`));
  };
  for (let i = 0; i < count; i++) {
    const h = passage.activation[i], here = passage.start + i === passage.at;
    const button = element("button", {type: "button", tabindex: here ? 0 : -1, class: `${h < 0 ? "negative" : ""}${here ? " at" : ""}`.trim() || null, style: h === null ? null : `--shade:${Math.round(100 * Math.abs(h) / most)}%`}, words[i]);
    button.addEventListener("pointerenter", () => tell(i));
    button.addEventListener("click", () => tell(i));
    button.addEventListener("focus", () => { for (const other of line.children) other.tabIndex = -1; button.tabIndex = 0; tell(i); });
    button.addEventListener("keydown", event => {
      if (event.key === "ArrowRight") move(event, i + 1);
      else if (event.key === "ArrowLeft") move(event, i - 1);
      else if (event.key === "Home") move(event, 0);
      else if (event.key === "End") move(event, count - 1);
    });
    line.append(button);
  }
  const j = passage.at - passage.start, change = value => value === null ? "n/a" : `${value < 0 ? "−" : "+"}${number(Math.abs(value))}`;
  const quantile = passage.quantile === null ? "" : passage.quantile === 0 ? "Smallest activation. " : `Quantile ${passage.quantile}. `;
  const told = `${quantile}Activation ${number(passage.activation[j])}; ablation changes the loss by ${change(passage.change[0])} and the entropy by ${change(passage.change[1])} nats. Window ${passage.window}, position ${passage.at}.`;
  return element("div", {class: "story"}, element("p", {}, told), line);
}
