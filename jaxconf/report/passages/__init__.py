"""Neurons token by token (figure 4 of the paper): which passages are shown, and how pictures and the page show them."""
