"use strict";
const root = document.documentElement;
const asked = new URLSearchParams(location.search).get("theme");
if (asked === "light" || asked === "dark") root.dataset.theme = asked;
const preference = matchMedia("(prefers-color-scheme: dark)");
const isDark = () => (root.dataset.theme || (preference.matches ? "dark" : "light")) === "dark";

/** Makes the button switch between light and dark; `repaint` is called after each change. */
function followTheme(repaint) {
  const button = document.getElementById("theme");
  const label = () => { button.textContent = isDark() ? "Light" : "Dark"; };
  const changed = () => { label(); repaint(); };
  label();
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    changed();
  });
  preference.addEventListener("change", changed);
}
