"use strict";
// Elements, numbers and the loading of data. Text only ever becomes text nodes, so that no token can be markup.

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat(Infinity).filter(child => child !== null));
  return made;
}

// A number for a reader, as the report has it: three significant digits, or "n/a" if there is none.
function number(value) {
  if (value === null || value === undefined) return "n/a";
  if (value === 0) return "0";
  const short = Number(value.toPrecision(3)), exponent = Number(short.toExponential().split("e")[1]);
  if (exponent >= -4 && exponent < 3) return String(short);
  const [digits, power] = short.toExponential().split("e");
  return `${digits}e${power[0]}${power.slice(1).padStart(2, "0")}`;
}

const counted = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
const word = text => element("span", {class: "word"}, text);
const badge = kind => element("span", {class: `badge ${kind}`}, `${kind} neuron`);

const card = (heading, content, caption = "", broad = false) => {
  const id = `card-${card.count = (card.count || 0) + 1}`;
  return element("section", {class: broad ? "card broad" : "card", "aria-labelledby": id}, element("h3", {id}, heading), content, caption && element("p", {class: "note"}, caption));
};

// A table that scrolls by itself, by keyboard too. A head is a text, or [text, hint, sort] with a function.
function tableOf(heads, rows, label) {
  const head = ([text, hint, sort, way]) => element("th", {scope: "col", title: hint || null, "aria-sort": way || null}, sort ? element("button", {type: "button", onclick: sort}, text) : text);
  const body = element("tbody", {}, rows);
  const table = element("table", {}, element("thead", {}, element("tr", {}, heads.map(each => head([each].flat())))), body);
  return element("div", {class: "wide", tabindex: 0, role: "region", "aria-label": label}, table);
}

// Data are scripts that call `loaded`, since a page opened from disk may load scripts but no other files.
const store = {asked: {}, found: {}};

function loaded(name, data) {
  store.found[name] = data;
}

// What is missing is asked for again the next time.
function load(name) {
  return store.asked[name] ??= new Promise((done, failed) => document.head.append(element("script", {
    src: `data/${name}.js`,
    onload: () => done(store.found[name]),
    onerror: () => { delete store.asked[name]; failed(new Error(`data/${name}.js is missing`)); },
  })));
}
