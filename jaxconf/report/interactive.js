"use strict";
const root = document.documentElement;
const asked = new URLSearchParams(location.search).get("theme");
if (asked === "light" || asked === "dark") root.dataset.theme = asked;
const preference = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme || (preference.matches ? "dark" : "light")) === "dark";

const data = JSON.parse(document.getElementById("data").textContent);

function themed() {
  const ink = getComputedStyle(document.body).color;
  const card = getComputedStyle(document.querySelector(".card")).backgroundColor;
  return {
    "font.color": ink, "font.family": "system-ui, sans-serif", "font.size": 12,
    "hoverlabel.bgcolor": card, "hoverlabel.font.color": ink, "hoverlabel.align": "left",
    "modebar.bgcolor": "rgba(0,0,0,0)", "modebar.color": "rgba(128,138,154,0.6)", "modebar.activecolor": ink,
  };
}

function paint(redraw) {
  document.getElementById("theme").textContent = isDark() ? "Light" : "Dark";
  if (redraw) for (const name in data.figures) Plotly.relayout(name, themed());
}

// The buttons are listed one by one and no server is set, because one of Plotly's default buttons uploads the figure.
const config = { responsive: true, displaylogo: false, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]], plotlyServerURL: "" };

async function draw(name) {
  // In a narrow window the legend needs the space of the buttons.
  const displayModeBar = document.getElementById(name).clientWidth < 440 ? false : "hover";
  await Plotly.newPlot(name, { ...data.figures[name], config: { ...config, displayModeBar } });
  await Plotly.relayout(name, themed());
}

paint(false);
document.getElementById("theme").addEventListener("click", () => {
  root.dataset.theme = isDark() ? "light" : "dark";
  paint(true);
});
preference.addEventListener("change", () => paint(true));
