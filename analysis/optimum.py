"""How far predictions are from the best possible ones. Losses, entropies and divergences are in nats."""

from typing import Any, NamedTuple

from jaxconf.analysis.set_predictions import Beside


class Distance(NamedTuple):
    """Each prediction beside the best possible one, float32 […] (`correct`: bool)."""

    loss: Any
    entropy: Any
    kl: Any  # D_KL(best || model)
    confidence: Any  # the largest probability
    correct: Any  # whether the most likely token is the one that follows


def distance(of: Beside) -> Distance:
    """The distances of predictions from the best ones, which they were compared with."""
    predicted = of.predicted
    return Distance(predicted.loss, predicted.entropy, -of.change.mean, predicted.confidence, predicted.correct)
