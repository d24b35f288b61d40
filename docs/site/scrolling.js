"use strict";
// What scrolls sideways can be reached and scrolled with the keyboard.
addEventListener("load", () => {
  for (const box of document.querySelectorAll("pre > code, .dataframe, .md-typeset__scrollwrap, .arithmatex")) {
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
  }
});
