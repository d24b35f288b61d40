"""Neurons token by token (figure 4 of the paper): which passages are shown, in the PNG files and on the page."""
