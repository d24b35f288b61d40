"""The predictions of a text at every dose of every treatment, as sums over its units.

Letters: s window, t position, q position that is kept in some window, u unit that is drawn again, c set, d model
width.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxconf.analysis.ablation import LayerAblation
from jaxconf.analysis.calibration import Predicted, unit_sums
from jaxconf.analysis.carrying import Sums, add, filled_up, fit, mean_errors, moments, no_sums, of_sets
from jaxconf.analysis.dictionaries import Dictionary
from jaxconf.analysis.rerun import Entry, Members, compiled_besides, compiled_entry, compiled_unablated
from jaxconf.analysis.set_predictions import Reference
from jaxconf.analysis.steering import at_temperature, at_temperatures
from jaxconf.analysis.unembedding import Readout, readout
from jaxconf.analysis.whole_logits import Prediction
from jaxconf.measure.named_sets import by_population
from jaxconf.measure.set_runs import groups_of_windows
from jaxconf.measure.work import Work
from jaxconf.models.config import DecoderConfig
from jaxconf.models.mesh import fetched
from jaxconf.studies.steering.treatments import Treatment

FOLDS = 5  # parts of the training units, inside which the probe's penalty is chosen

Found = Mapping[tuple[str, float], Mapping[str, np.ndarray]]
"""Name of a treatment and dose → `unit_sums` of the predictions."""


class Probe(NamedTuple):
    """The direction of the last stream along which the entropy is predicted best."""

    direction: np.ndarray  # float64 [d], of length 1
    r2: float  # on the held-out units
    length: float  # the root mean square of the stream's length over the training positions


class Steered(NamedTuple):
    """A model whose logits are divided by a temperature, on a text."""

    work: Work
    config: DecoderConfig
    readout: Readout
    held: np.ndarray  # bool [u]: the units that nothing is chosen on

    @classmethod
    def of(cls, work: Work, temperature: float, held: np.ndarray) -> "Steered":
        config, paper = work.lm.config, readout(work.lm.config, work.lm.params)
        return cls(work, *at_temperature(config, paper, temperature), held)

    def groups(self, stage: str) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Windows in groups: their indices, the positions that count, int [q], and where these are kept, bool [s q]."""
        work, (S, T) = self.work, self.work.tokens.shape
        positions = np.flatnonzero(work.kept.any(0))
        work.progress(stage, 0, S * T)
        for rows, real in groups_of_windows(work.lm, work.memory, S, T, len(positions)):
            yield rows, positions, work.kept[rows][:, positions] & real[:, None]
            work.progress(stage, (int(rows[real][-1]) + 1) * T, S * T)

    def entry(
        self, rows: np.ndarray, positions: np.ndarray, own: Readout, dictionary: Dictionary | None = None
    ) -> tuple[Entry, Prediction]:
        lm = self.work.lm
        tokens = lm.over_data(self.work.tokens[rows])
        last = (self.config.n_layers - 1,)
        return compiled_entry(self.config, last, lm.params, own, self.work.freq, tokens, positions, "final", dictionary)

    def units(self, rows: np.ndarray, positions: np.ndarray, where: np.ndarray) -> np.ndarray:
        return self.work.units[rows][:, positions][where]


def probe_of(steered: Steered) -> Probe:
    """Ridge regression of the entropy on the stream that enters the final norm, on the units that are not held out."""
    d = steered.config.d_model
    sums, squares, number = no_sums(FOLDS + 1, d, 1), 0.0, 0
    part_of = np.where(steered.held, FOLDS, np.cumsum(~steered.held) % FOLDS)
    for rows, positions, where in steered.groups("the probe"):
        entry, found = steered.entry(rows, positions, steered.readout)
        x, entropy = fetched((entry.before.x, found.entropy))
        part = part_of[steered.units(rows, positions, where)]
        add(sums, x[where], entropy[where][:, None], part)
        own = part < FOLDS
        squares, number = squares + float(np.square(x[where][own], dtype=np.float64).sum()), number + int(own.sum())
    weights, r2 = _fitted(sums, d)
    return Probe(weights / np.linalg.norm(weights), r2, (squares / number) ** 0.5)


def _fitted(sums: Sums, d: int) -> tuple[np.ndarray, float]:
    every, counts = np.arange(d)[None], np.ones((1, d), bool)
    parts = [part for part in range(FOLDS) if sums.number[part] > 0]
    weights = fit(sums, parts, every, counts).weights
    train, test = (of_sets(moments(sums, own), every, counts) for own in (parts, [FOLDS]))
    error = mean_errors(weights, train, test)[0, 0]
    return weights[0, :, 0], 1 - float(error / (test.variance + (test.value_mean - train.value_mean) ** 2)[0])


def predictions(steered: Steered, treatments: Sequence[Treatment]) -> dict[tuple[str, float], dict[str, np.ndarray]]:
    """The predictions at every dose of every treatment."""
    count = len(steered.work.unit_counts)
    found: dict[tuple[str, float], dict[str, np.ndarray]] = {}

    def keep(names: Sequence[str], dose: float, of: Predicted, units: np.ndarray, where: np.ndarray) -> None:
        """Add the predictions of each treatment, [c s q]."""
        for c, name in enumerate(names):
            one = jax.tree.map(lambda x, c=c: np.asarray(x)[c][where], of)
            sums = unit_sums(one, units, count)
            have = found.setdefault((name, dose), {key: np.zeros_like(x) for key, x in sums.items()})
            for key, x in sums.items():
                have[key] += x

    for rows, positions, where in steered.groups("doses"):
        units = steered.units(rows, positions, where)
        for names, dose, of in _of_group(steered, treatments, rows, positions):
            keep(names, dose, fetched(of), units, where)
    return found


Doses = Iterator[tuple[list[str], float, Any]]
"""The names of treatments, a dose, and their predictions of a group of windows, [c s q], one dose after the other."""


def _of_group(steered: Steered, treatments: Sequence[Treatment], rows: np.ndarray, positions: np.ndarray) -> Doses:
    temperature, *others = sorted(treatments, key=lambda one: one.kind != "temperature")
    sets = [one.own for one in others if one.own]
    entry, _ = steered.entry(rows, positions, steered.readout)
    found = at_temperatures(steered.config, steered.readout, entry, jnp.asarray(temperature.doses))
    for g, dose in enumerate(temperature.doses):
        yield [temperature.name], dose, jax.tree.map(lambda x, g=g: x[g][None], found)
    # Of the directions too: their unablated model is the same.
    unablated = compiled_unablated(steered.config, steered.readout, entry)
    for population, which in by_population(sets).items():
        own, of = population.readout(steered.config, steered.readout), entry
        if population.dictionary is not None:
            of, _ = steered.entry(rows, positions, own, population.dictionary)
        yield from _scaled(steered, [others[row] for row in which], own, of, unablated)


def _scaled(
    steered: Steered, treatments: Sequence[Treatment], own: Readout, entry: Entry, unablated: Reference
) -> Doses:
    """The doses of sets of one population that are scaled, or of directions whose coefficient is 1.

    `own`, `entry`: of the population.
    """
    ((_, h),) = entry.h.items()
    members, counts = filled_up([one.own.indices for one in treatments if one.own])
    params, neutral = steered.work.lm.params, treatments[0].neutral
    for dose in treatments[0].doses:
        if dose == neutral:
            continue
        scaled = Members(members, counts, LayerAblation("linear", jnp.zeros(h.shape[-1]), 1 + dose - neutral))
        found = compiled_besides(steered.config, params, own, entry, unablated, scaled)
        yield [one.name for one in treatments], dose, found.predicted
