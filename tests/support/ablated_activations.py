"""Ablations by their definitions, in numpy. Letters: s window, t position, n neuron."""

import numpy as np

from jaxconf.analysis.ablation import Ablation

ABLATIONS = [
    *map(Ablation, ("mean", "zero", "median", "mode", "min", "mean+3std", "mean-3std", "clip")),
    *(Ablation("fixed", 1.7), Ablation("scale", -2.0), Ablation("clip", -1)),
]


def by_definition(ablation: Ablation, h: np.ndarray) -> np.ndarray:
    """What the activations [s t n] become, one neuron after the other; NaN does not count."""

    def one(all_of_it: np.ndarray) -> np.ndarray:
        h = all_of_it[~np.isnan(all_of_it)]
        if not h.size:
            return all_of_it
        mean, std, value = h.mean(), h.std(), ablation.value
        counts, edges = np.histogram(h, 1000)
        fullest = counts.argmax()
        return np.broadcast_to(
            {
                "mean": mean,
                "zero": 0.0,
                "median": np.median(h),
                "mode": (edges[fullest] + edges[fullest + 1]) / 2,
                "min": h.min(),
                "mean+3std": min(mean + 3 * std, h.max()),
                "mean-3std": max(mean - 3 * std, h.min()),
                "fixed": value,
                "scale": value and value * all_of_it,
                "clip": (np.maximum if value == -1 else np.minimum)(all_of_it, mean),
            }[ablation.kind],
            all_of_it.shape,
        )

    return np.moveaxis([one(of_neuron) for of_neuron in np.moveaxis(h, -1, 0)], 0, -1).astype(np.float32)
