"use strict";
// Several runs side by side, or one after the other with a slider.
