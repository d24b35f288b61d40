"use strict";
// MathJax sets what pymdownx.arithmatex marked, and nothing else. Its menu is off, because it loads parts of MathJax from elsewhere.
window.MathJax = {
  tex: { inlineMath: [["\\(", "\\)"]], displayMath: [["\\[", "\\]"]] },
  svg: { fontCache: "local" },
  options: { ignoreHtmlClass: ".*|", processHtmlClass: "arithmatex", enableMenu: false },
};
