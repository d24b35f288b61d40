"use strict";
// Which page is shown: #/RUN is a run, #/RUN/NEURON a neuron, and #/compare all runs side by side.

const site = () => store.found.site;
const main = document.getElementById("main"), heading = document.getElementById("heading"), ways = document.getElementById("ways");
document.getElementById("skip").addEventListener("click", () => main.focus());

const placeOf = () => location.hash.replace(/^#\/?/, "").split("/").filter(Boolean).map(decodeURIComponent);
const alike = (one, other) => JSON.stringify(one.shape) === JSON.stringify(other.shape);

async function show() {
  const [key, name] = placeOf(), runs = site().runs;
  try {
    if (runs.length > 1 && (key === undefined || key === "compare")) return shown("Comparison", name === undefined ? "Comparison" : `Comparison: neuron ${name}`, await comparison(runs, name), [], "compare");
    const head = key === undefined ? runs[0] : runs.find(run => run.key === key);
    if (!head) throw new Error(`There is no run “${key}” on this site.`);
    const run = await load(`${head.key}/run`);
    if (name === undefined) return shown(run.title, run.title, overview(run), [], head.key);
    const place = run.pages[at(run, name)];
    if (place === undefined || place < 0) throw new Error(`Neuron ${name} has no page in this run.`);
    const page = await load(`${head.key}/${place}`);
    const others = runs.length > 1 ? await Promise.all(runs.filter(other => alike(head, other)).map(other => load(`${other.key}/run`))) : [];
    shown(`${name}, ${run.title}`, `Neuron ${name}`, neuronPage(run, page, others), steps(run, name), head.key, run.title);
  } catch (error) {
    shown("Not found", "Not found", [element("p", {role: "alert"}, error.message), element("p", {}, element("a", {href: "#/"}, "To the first page"))], [], null);
  }
}

// Links to the neurons before and behind, in the order of the table.
function steps(run, name) {
  const order = listed(run).filter(i => run.pages[i] >= 0), here = order.indexOf(at(run, name));
  const link = (i, id, text) => i === undefined ? null : element("a", {id, href: linkTo(run, run.names[i])}, text);
  return [link(order[here - 1], "previous", "← Previous"), link(order[here < 0 ? 0 : here + 1], "next", "Next →")];
}

function shown(title, head, content, further, current, small = "") {
  document.title = title;
  heading.replaceChildren(...(small ? [element("small", {}, small)] : []), head);
  const runs = site().runs, [, name] = placeOf(), now = key => key === current ? (name === undefined ? "page" : "true") : null;
  ways.replaceChildren(
    ...(runs.length > 1 ? [element("a", {href: "#/compare", "aria-current": now("compare")}, "Comparison")] : []),
    ...(runs.length > 8 ? [runs.find(run => run.key === current)].filter(Boolean) : runs).map(run => element("a", {href: `#/${encodeURIComponent(run.key)}`, "aria-current": now(run.key)}, runs.length > 1 ? run.key : "All neurons")),
    element("span", {class: "step"}, further));
  main.replaceChildren(...content.filter(Boolean));
  if (current !== "compare" || now("compare") === "page") scrollTo(0, 0);
}

// What had the focus keeps it if the new page has it too, such as the link to the next neuron.
addEventListener("hashchange", async () => {
  const {id} = document.activeElement;
  await show();
  if (document.activeElement === document.body) (document.getElementById(id) || main).focus({preventScroll: true});
});
addEventListener("keydown", event => {
  if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || event.target.closest?.("input, select, .wide, .passage")) return;
  const link = {ArrowLeft: "previous", ArrowRight: "next"}[event.key];
  if (link) document.getElementById(link)?.click();
  if (event.key === "Escape" && placeOf().length > 1) location.hash = `#/${encodeURIComponent(placeOf()[0])}`;
});
show();
