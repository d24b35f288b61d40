"""Carrying and decodability: how well each set of features predicts entropy, loss and correctness where it is held out.

Letters: p position, f feature of a block, c predictor, k feature of one, y value, u unit, r bootstrap draw, m number of
principal components. `jaxconf.analysis.carrying` has the regressions. What one split finds are predictions of the form
constant + features·weights; their squared errors are summed for each held-out unit, so that a bootstrap can draw the
units again. Features come in named blocks of any kind; the stream must be one of them. Source: Zahrivyi, *Causal but
Not Carrier* (2026).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from jaxconf.analysis.carrying import (
    Components,
    Sums,
    add,
    components,
    constants,
    errors_by_unit,
    filled_up,
    fit,
    moments,
    no_sums,
    of_sets,
    r2,
    r2_of_components,
)
from jaxconf.analysis.intervals import resamples
from jaxconf.runtime.progress import Progress
from jaxconf.studies.carry.intervals import beside_random, interval
from jaxconf.studies.carry.positions import STREAM, VALUES, Read
from jaxconf.studies.carry.setting import HELD_OUT, PARTS, training

COMPONENTS = "components"  # the kind of a predictor from the first principal components of the stream


class Predictor(NamedTuple):
    """Features from which values are predicted."""

    name: str
    kind: str  # that of a neuron set, COMPONENTS, or the name of a block
    block: str
    features: tuple[int, ...]  # of the block; of COMPONENTS, as many numbers as there are components
    beside: str  # the set whose random sets it is compared with, or ""


class Fitted(NamedTuple):
    """The predictors of one block, fitted on the training parts of a split."""

    rows: list[int]  # c: which of all predictors
    block: str
    weights: np.ndarray  # f c y
    constant: np.ndarray  # c y
    penalty: np.ndarray  # c y; NaN for COMPONENTS, which have none


def tables_of_carrying(
    read: Read,
    predictors: Sequence[Predictor],
    part: np.ndarray,
    draws: int,
    seed: int,
    progress: Progress = lambda what, done, total: None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`Carry.carrying` and `Carry.components` of one text, without the column `data`.

    `read`: called twice, for the sums and for the errors. `part`: that of each unit, int [u].
    """
    sums = sums_of(read, part)
    fits = []
    for split, held_out in enumerate(HELD_OUT):
        progress("regressions of every split", split, len(HELD_OUT))
        fits.append(fitted(sums, predictors, held_out))
    progress("errors and intervals", 0, 0)
    errors, without, counts = _errors(read, predictors, part, sums, [found for found, _ in fits])
    frames, curves = [], []
    for split, (found, of_stream) in enumerate(fits):
        units = np.flatnonzero(counts[split])
        penalty = np.full((len(predictors), len(VALUES)), np.nan)
        for of in found:
            penalty[of.rows] = of.penalty
        measured = errors[split][units], without[split][units]
        weights = resamples(counts[split][units], draws, seed)
        frames.append(_rows(predictors, *measured, weights, penalty).assign(split=split))
        train, test = (moments(sums[STREAM], own) for own in (training(HELD_OUT[split]), HELD_OUT[split]))
        curve = pd.DataFrame(r2_of_components(of_stream, train, test), columns=list(VALUES))
        curves.append(curve.assign(split=split, number=np.arange(1, len(curve) + 1)))
    return pd.concat(frames, ignore_index=True), pd.concat(curves, ignore_index=True)


def sums_of(read: Read, part: np.ndarray) -> dict[str, Sums]:
    """Block → the sums over the positions of each part."""
    sums: dict[str, Sums] = {}
    for of in read():
        for name, x in of.blocks.items():
            if name not in sums:
                sums[name] = no_sums(PARTS, x.shape[1], of.values.shape[1])
            add(sums[name], x, of.values, part[of.units])
    return sums


def fitted(
    sums: dict[str, Sums], predictors: Sequence[Predictor], held_out: tuple[int, ...]
) -> tuple[list[Fitted], Components]:
    """Every predictor, fitted on the training parts of a split; and the regression on the stream's components."""
    parts, found = training(held_out), []
    train = moments(sums[STREAM], parts)
    of_stream = components(train)
    for block in sums:
        rows = [row for row, of in enumerate(predictors) if of.block == block and of.kind != COMPONENTS]
        if rows:
            indices, counts = filled_up(predictors[row].features for row in rows)
            of = fit(sums[block], parts, indices, counts)
            weights = np.zeros((sums[block].features.shape[1], *of.constant.shape))
            np.add.at(weights, (indices, np.arange(len(rows))[:, None]), of.weights)
            found.append(Fitted(rows, block, weights, of.constant, of.penalty))
    rows = [row for row, of in enumerate(predictors) if of.kind == COMPONENTS]
    if rows:
        weights = np.stack([of_stream.first(len(predictors[row].features)) for row in rows], 1)
        whole = of_sets(train, *filled_up([range(len(weights))]))
        constant = constants(np.swapaxes(weights, 0, 1), whole)
        found.append(Fitted(rows, STREAM, weights, constant, np.full(constant.shape, np.nan)))
    return found, of_stream


def _errors(
    read: Read,
    predictors: Sequence[Predictor],
    part: np.ndarray,
    sums: dict[str, Sums],
    fits: Sequence[Sequence[Fitted]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each split, over the held-out positions of each unit: the squared errors of the predictors, [u c y], those of
    the training mean, [u y], and the number of positions, [u].
    """
    shape = len(HELD_OUT), len(part)
    errors, without = np.zeros((*shape, len(predictors), len(VALUES))), np.zeros((*shape, len(VALUES)))
    counts = np.zeros(shape, int)
    means = [moments(sums[STREAM], training(held_out)).value_mean for held_out in HELD_OUT]
    for of in read():
        for split, held_out in enumerate(HELD_OUT):
            rows = np.isin(part[of.units], held_out)
            units, values = of.units[rows], of.values[rows].astype(np.float64)
            np.add.at(counts[split], units, 1)
            mean = np.broadcast_to(means[split], (len(values), 1, len(VALUES)))
            errors_by_unit(without[split][:, None], values, mean, units)
            for own in fits[split]:
                features = of.blocks[own.block][rows].astype(np.float64)
                predicted = np.tensordot(features, own.weights, 1) + own.constant
                some = np.zeros((len(part), *own.constant.shape))
                errors_by_unit(some, values, predicted, units)
                errors[split][:, own.rows] += some
    return errors, without, counts


def _rows(
    predictors: Sequence[Predictor],
    errors: np.ndarray,
    without: np.ndarray,
    weights: np.ndarray,
    penalty: np.ndarray,
) -> pd.DataFrame:
    """A row for each predictor and value. `errors` [u c y], `without` [u y], `weights` [r u], `penalty` [c y]."""
    found = r2(errors.sum(0), without.sum(0))  # c y
    drawn = r2(np.tensordot(weights, errors, 1), weights @ without)  # r c y
    frames = []
    for y, value in enumerate(VALUES):
        gap, gaps = beside_random(predictors, found[:, y], drawn[..., y])
        columns = {
            "value": value,
            "set": [of.name for of in predictors],
            "kind": [of.kind for of in predictors],
            "beside": [of.beside for of in predictors],
            "size": [len(of.features) for of in predictors],
            "r2": found[:, y],
            **interval("r2", drawn[..., y]),
            "gap": gap,
            **interval("gap", gaps),
            "penalty": penalty[:, y],
        }
        frames.append(pd.DataFrame(columns))
    return pd.concat(frames, ignore_index=True)
