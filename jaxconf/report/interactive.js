"use strict";
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

// The buttons are listed one by one and no server is set, because one of Plotly's default buttons uploads the figure.
const config = { responsive: true, displaylogo: false, modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]], plotlyServerURL: "" };

async function draw(name) {
  // In a narrow window the legend needs the space of the buttons.
  const displayModeBar = document.getElementById(name).clientWidth < 440 ? false : "hover";
  await Plotly.newPlot(name, { ...data.figures[name], config: { ...config, displayModeBar } });
  await Plotly.relayout(name, themed());
}

followTheme(() => {
  for (const name in data.figures) Plotly.relayout(name, themed());
});
