"""How a model without a final norm sets its confidence: a section of docs/emergence_study.md, from the study's models.

Letters: n neuron, d width, D singular direction.
"""

from pathlib import Path

import numpy as np
import pandas as pd

import jaxconf
from jaxconf.analysis.unembedding import readout, spectrum
from jaxconf.analysis.weights import cosines
from jaxconf.training.emergence import Emergence
from jaxconf.training.grid_table import MODELS

HEADING = "## How a model without a final norm sets its confidence"
TOP = 5  # neurons of a model: those whose ablation changes the entropy most
LARGEST = 8  # singular directions

MEASURES = {
    "change": "mean change of the entropy by one of them, nats (absolute)",
    "sharing": "neurons that share the work",
    "rho": "rho",
    "chance": "chance level of rho",
    "logit_var": "LogitVar as a multiple of the layer's median",
    "largest": f"share of the write's square in the {LARGEST} largest singular directions",
    "of_all": f"the same of all neurons of the layer, median (an even spread: {LARGEST} / D)",
    "cos_freq": "absolute cosine with the token-frequency direction",
    "temperature": "R² of the activation and the best log-temperature",
}


def measured(model: Path) -> dict[str, float]:
    """MEASURES of one model at its last step: of its TOP neurons the median, but for the sharing and the chance level.

    How many neurons share the work is (Σx)² / Σx² of the mean absolute changes x of the entropy by each neuron: 1 if a
    single neuron does all, and n if all n do as much.
    """
    e, lm = Emergence.load(model), jaxconf.load(model)
    last = e.neurons[e.neurons["step"] == e.steps["step"].iloc[-1]].reset_index(drop=True)
    change = last["entropy_abs_delta"]
    top = change.nlargest(TOP).index
    w_out = np.asarray(readout(lm.config, lm.params).w_out)
    within = (cosines(w_out, spectrum(lm.config, lm.params))[:, :LARGEST] ** 2).sum(axis=1)
    return {
        "change": change[top].median(),
        "sharing": change.sum() ** 2 / (change**2).sum(),
        "rho": last.loc[top, "rho"].median(),
        "chance": e.steps["rho_chance"].iloc[-1],
        "logit_var": last.loc[top, "logit_var"].median() / last["logit_var"].median(),
        "largest": float(np.median(within[top])),
        "of_all": float(np.median(within)),
        "cos_freq": last.loc[top, "cos_freq"].abs().median(),
        "temperature": last.loc[top, "temperature_r2"].median(),
    }


def unnormed_lines(folders: dict[str, Path]) -> list[str]:
    """A table with a column for each setting (label → the folder of its grid): medians over seeds, and their range."""
    frames = {
        label: pd.DataFrame([measured(model) for model in sorted(folder.glob(f"{MODELS}/*"))])
        for label, folder in folders.items()
    }
    lines = [
        "",
        HEADING,
        "",
        f"The {TOP} neurons of each model whose ablation changes the entropy most: the median of the {TOP}, then the "
        "median over the seeds (the least and the largest of a seed). How many share the work is (Σx)²/Σx² of all "
        "neurons' mean absolute changes x of the entropy.",
        "",
        "| measure | " + " | ".join(frames) + " |",
        "|---" * (1 + len(frames)) + "|",
    ]
    for name, said in MEASURES.items():
        cells = [f"{f[name].median():.3g} ({f[name].min():.3g}–{f[name].max():.3g})" for f in frames.values()]
        lines.append(f"| {said} | " + " | ".join(cells) + " |")
    return lines
