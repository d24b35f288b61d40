"""The site of one or several runs: a static folder with a page for each neuron, which needs no server."""
