"""What the pages of single neurons show: where a neuron fires, what it writes, and what it does there.

The text is run once more for the neurons that have a page, since which these are is known only when all are measured.
Letters: s window, t position, c neuron that has a page, n neuron of the layer, d width.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxconf.analysis.ablation import Ablation, LayerAblation
from jaxconf.analysis.activations import Activations, ActivationStatistics, activations_of_neurons
from jaxconf.analysis.effects import LastLayer
from jaxconf.analysis.frequency import frequency
from jaxconf.analysis.kinds import VALUED
from jaxconf.analysis.passages import places, spread
from jaxconf.analysis.rerun import compiled_router, compiled_total_losses
from jaxconf.analysis.unembedding import Convention, Readout, at_layer, unit
from jaxconf.analysis.weights import cosines
from jaxconf.analysis.written_logits import StreamMoments, extremes, steps, stream_moments
from jaxconf.data.windows import digest
from jaxconf.measure.activations import LayerActivations, activation_statistics
from jaxconf.measure.groups import Seen, seen_by
from jaxconf.measure.inputs import with_target
from jaxconf.measure.last_layer import compiled_adaptive_losses, rows_at_once, rows_together
from jaxconf.measure.set_runs import SetRuns
from jaxconf.models.decoder import check_runnable
from jaxconf.models.errors import InputError
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.pages import NEURON_COLUMNS, PAGED, NeuronPages, no_pages, paged
from jaxconf.runtime.batching import batches
from jaxconf.runtime.memory import MEMORY, fitting
from jaxconf.runtime.progress import Progress

BYTES = 16  # of a neuron and a position on the host: activation, loss, entropy, and one of them as fetched
SAMPLE = 300  # positions whose activations and entropies a page shows one by one
TOKENS, NEAREST = 12, 8  # tokens, and other neurons, that a page names
FROM_MEANS = ("mean", "clip", "zero", "fixed", "scale")  # ablations that need no other statistics
ABREAST = 32  # neurons whose logits are held together


def neuron_pages(
    lm: LanguageModel,
    table: NeuronTable,
    tokens: np.ndarray,
    kept: np.ndarray,
    *,
    neurons: int | Literal["all"] = PAGED,
    memory: int = MEMORY,
    progress: Progress = lambda what, done, total: None,
) -> NeuronPages:
    """What the pages of the neurons of `jaxconf.results.pages.paged` show.

    `lm`, `tokens`, `kept`: the model, the windows, int [s t], and the kept positions, bool [s t], that `table` is the
    analysis of. The ablation is that of the table. `memory`: bytes that a batch may take, on a device and on the host.
    Raises InputError if the model or the windows are not those of the table.
    """
    check_runnable(lm.params)
    _check(lm, table, tokens)
    names = paged(table, neurons)

    def measured(memory: int) -> NeuronPages:
        text = _Text(lm, table, np.asarray(tokens, np.int32), with_target(tokens, kept), memory, progress)
        found = [
            text.pages(int(layer), rows.index.tolist(), rows["neuron"].to_numpy())
            for layer, rows in table.neurons.loc[names].groupby("layer")
        ]
        if not found:
            return no_pages()
        neurons, passages = (pd.concat(parts, ignore_index=True) for parts in zip(*found, strict=True))
        return NeuronPages(neurons, passages).some(names)

    return fitting(measured, memory, progress)


def _check(lm: LanguageModel, table: NeuronTable, tokens: np.ndarray) -> None:
    facts = table.facts
    shape = {"n_layers": lm.config.n_layers, "d_model": lm.config.d_model, "n_neurons": lm.config.d_mlp}
    for name, value in shape.items():
        if facts.get(name, value) != value:
            raise InputError(
                f"the model has {name} {value}, but the table is of one with {facts[name]}; give the table's own model"
            )
    if facts.get("data_sha256", own := digest(tokens)) != own:
        raise InputError("the windows are not those that the table was measured on; give the windows.npy beside it")


class _Measured(NamedTuple):
    """Of some neurons of a layer at every position. Losses and entropies in nats; NaN at the last one of a window."""

    h: np.ndarray  # c s t, NaN where the neuron's expert is not chosen
    before: np.ndarray  # 2 s t: loss and entropy of the unablated model
    after: np.ndarray  # 2 c s t: with the neuron ablated
    moments: StreamMoments  # of the last stream


@dataclasses.dataclass(frozen=True)
class _Text:
    lm: LanguageModel
    table: NeuronTable
    tokens: np.ndarray
    kept: np.ndarray
    memory: int
    progress: Progress
    words: dict[int, Any] = dataclasses.field(default_factory=dict)  # token → its text, as far as they are known

    def pages(self, layer: int, names: Sequence[str], own: np.ndarray) -> tuple[pd.DataFrame, pd.DataFrame]:
        """The rows of `NeuronPages` of some neurons of a layer. `own`: their indices in it, int [c]."""
        lm = self.lm
        ablation = self._ablation(layer)
        rows, passages, moments = [], [], None
        size = max(1, self.memory // (BYTES * self.tokens.size))
        for some, real in batches(len(own), min(size, len(own))):
            found = self._measured(layer, own[some], ablation, moments)
            moments = found.moments
            for i in range(int(real.sum())):
                rows.append(self._spread(names[some[i]], found, i))
                passages.append(self._passages(names[some[i]], found, i))
        assert moments is not None
        directions = fetched(at_layer(lm.config, lm.params, self._seen.own, self._convention, layer).w_out)
        of_spectrum = list(cosines(directions[own], self._seen.spectrum).astype(np.float32))
        paper = at_layer(lm.config, lm.params, self._seen.paper, "paper", layer)
        written, near = self._written(paper, own, moments), self._nearest(directions, own, layer)
        frame = pd.DataFrame(rows).assign(**written, **near, cosines=of_spectrum)
        return frame[list(NEURON_COLUMNS)], pd.concat(passages, ignore_index=True)

    def _ablation(self, layer: int) -> LayerAblation:
        """The ablation of the table. If it needs no more than mean activations, these are the table's."""
        facts, frame = self.table.facts, self.table.neurons
        kind = facts.get("ablation", "mean")
        ablation = Ablation(kind, facts["ablation_value"] if kind in VALUED else None)
        if kind in FROM_MEANS:
            here = frame[frame["layer"] == layer].sort_values("neuron")
            unknown = np.full(len(here), np.nan)
            mean, std = (here[f"activation_{name}"].to_numpy(float) for name in ("mean", "std"))
            return ablation.of_layer(ActivationStatistics(mean, std, unknown, unknown))
        activity = LayerActivations(self.lm, self.tokens, layer, self.memory)
        return ablation.of_layer(activation_statistics(activity, self.progress, ordered=ablation.ordered))

    @property
    def _convention(self) -> Convention:
        return self.table.facts.get("convention", "paper")

    @functools.cached_property
    def _seen(self) -> Seen:
        return seen_by(self.lm, self._convention)

    def _measured(
        self, layer: int, own: np.ndarray, ablation: LayerAblation, moments: StreamMoments | None
    ) -> _Measured:
        """`own`: the neurons, int [c]. `moments`: if they are known already."""
        lm, config, (S, T) = self.lm, self.lm.config, self.tokens.shape
        unused = frequency(np.zeros(config.vocab_size))  # for losses and entropies
        runs = SetRuns(lm, {layer: np.arange(config.d_mlp) == own[:, None]}, unused, self.memory)
        h = np.full((len(own), S, T), np.nan, np.float32)
        before, after = np.full((2, S, T), np.nan, np.float32), np.full((2, len(own), S, T), np.nan, np.float32)
        sums = []
        stage = f"pages of layer {layer}"
        self.progress(stage, 0, S * T)
        for rows, real in runs.groups(S, T, T):
            entry, unablated = runs.entry(self.tokens[rows], np.arange(T))
            if moments is None:
                sums.append(fetched(stream_moments(entry.before, self.kept[rows] & real[:, None])))
            h[:, rows[real]] = np.moveaxis(self._activations(entry.h[layer], rows, layer, own)[real], -1, 0)
            before[:, rows[real]] = np.stack(fetched((unablated.loss, unablated.entropy)))[:, real]
            if isinstance(entry.start, LastLayer) and self.table.facts.get("engine") == "adaptive":
                after[:, :, rows[real]] = self._adaptive(runs, entry.start, rows, ablation, own)[:, :, real]
            else:
                for some, real_sets in runs.chunks(len(rows), T):
                    some_sets = runs.some(some, {layer: ablation})
                    found = fetched(compiled_total_losses(config, lm.params, runs.readout, entry, some_sets))
                    where = np.ix_(np.arange(2), some[real_sets], rows[real])
                    after[where] = np.stack(found)[:, real_sets][:, :, real]
            self.progress(stage, (int(rows[real][-1]) + 1) * T, S * T)
        before[..., -1] = after[..., -1] = np.nan
        total = moments or StreamMoments(*(np.sum(np.asarray(x, np.float64), 0) for x in zip(*sums, strict=True)))
        return _Measured(h, before, after, total)

    def _adaptive(
        self, runs: SetRuns, last: LastLayer, rows: np.ndarray, ablation: LayerAblation, own: np.ndarray
    ) -> np.ndarray:
        """Loss and entropy in the windows `rows` with each of some neurons ablated, [2 c s t]; the table's tolerance.

        `last`: the last layer in these windows.
        """
        config, tokens = self.lm.config, self.tokens[rows]
        every = jax.tree.map(lambda y: y.reshape(-1, y.shape[-1]), last)
        target, found = np.roll(tokens, -1, 1).ravel(), []
        size = rows_together(tokens.size, rows_at_once(config, self.memory, True), True)
        for some, _ in batches(tokens.size, size):
            here = jax.tree.map(lambda y, some=some: y[some], every), ablation, own, target[some]
            how = config, runs.readout, runs.frequency, *here, self.table.facts["tolerance"]
            found.append(np.stack(fetched(compiled_adaptive_losses(*how))))
        return np.concatenate(found, 2)[..., : tokens.size].reshape(2, len(own), *tokens.shape)

    def _activations(self, h: jax.Array, rows: np.ndarray, layer: int, own: np.ndarray) -> np.ndarray:
        """The activations of some neurons in the windows `rows`, [s t c]; NaN where a neuron's expert is not chosen."""
        weight = None
        if self.lm.config.experts:
            weight = compiled_router(self.lm.config, self.lm.params, self.lm.over_data(self.tokens[rows]), layer)
        return fetched(activations_of_neurons(Activations.of(h.astype(jnp.float32), weight), own))

    def _spread(self, name: str, found: _Measured, i: int) -> dict[str, Any]:
        """The columns of NEURON_COLUMNS on the neuron's activation."""
        h, entropy = found.h[i], found.before[1]
        of = spread(h, entropy, self.kept)
        sample = self._sample[np.isfinite(h.ravel()[self._sample])]
        return {
            "name": name,
            "low": of.low,
            "high": of.high,
            "histogram": of.counts,
            "group_activation": of.group_activation,
            "group_entropy": of.group_entropy,
            "sample_activation": h.ravel()[sample],
            "sample_entropy": entropy.ravel()[sample],
        }

    @functools.cached_property
    def _sample(self) -> np.ndarray:
        """The positions that pages show one by one, int [SAMPLE] at most, as places in the flat windows."""
        return np.sort(np.random.default_rng(0).permutation(np.flatnonzero(self.kept))[:SAMPLE])

    def _passages(self, name: str, found: _Measured, i: int) -> pd.DataFrame:
        """The rows of the neuron's passages."""
        changes = found.after[:, i] - found.before
        each = places(found.h[i], changes[0], changes[1], self.kept)
        length = [place.stop - place.start for place in each]
        kinds = np.array([place.kind for place in each], object)
        numbers = [int((kinds[:which] == kind).sum()) for which, kind in enumerate(kinds)]

        def repeated(values: Any) -> np.ndarray:
            return np.repeat(np.asarray(values), length)

        window = repeated([place.window for place in each]).astype(int)
        position = np.concatenate([np.arange(place.start, place.stop) for place in each] or [np.zeros(0, int)])
        (loss, entropy), (loss_ablated, entropy_ablated) = (
            found.before[:, window, position],
            found.after[:, i, window, position],
        )
        columns = {
            "neuron": name,
            "kind": repeated(kinds),
            "number": repeated(numbers).astype(int),
            "quantile": repeated([place.quantile for place in each]).astype(float),
            "at": repeated([place.position for place in each]).astype(int),
            "window": window,
            "position": position,
            "token": self._words(self.tokens[window, position]),
            "target": self._words(self.tokens[window, (position + 1) % self.tokens.shape[1]]),
            "activation": found.h[i, window, position],
            "loss": loss,
            "loss_ablated": loss_ablated,
            "entropy": entropy,
            "entropy_ablated": entropy_ablated,
        }
        return pd.DataFrame(columns)

    def _written(self, seen: Readout, own: np.ndarray, moments: StreamMoments) -> dict[str, list[Any]]:
        """The columns on the tokens that the neurons promote and suppress."""
        found: dict[str, list[Any]] = {}
        for how, step in zip(("", "_frozen"), steps(self.lm.config, fetched(seen.w_out)[own], moments), strict=True):
            for some, real in batches(len(own), min(ABREAST, len(own))):
                k = min(TOKENS, self.lm.config.vocab_size)
                of = fetched(extremes(seen, jnp.asarray(step[some], jnp.float32), k))
                for which, ids, by in (("promoted", of.up, of.up_by), ("suppressed", of.down, of.down_by)):
                    found.setdefault(f"{which}{how}", []).extend(self._words(row) for row in ids[real])
                    found.setdefault(f"{which}{how}_by", []).extend(by[real])
        return found

    def _nearest(self, directions: np.ndarray, own: np.ndarray, layer: int) -> dict[str, list[Any]]:
        """The columns on the neurons of the layer whose `directions` [n d] are nearest to those of `own`, int [c]."""
        w = fetched(unit(jnp.asarray(directions))[0])
        names, found = self._names(layer), dict[str, list[Any]](nearest=[], nearest_cosine=[])
        for neuron in own:
            cosine = w @ w[neuron]
            order = np.argsort(-np.abs(cosine), kind="stable")[: NEAREST + 1]
            order = order[order != neuron][:NEAREST]
            found["nearest"].append([names[other] for other in order])
            found["nearest_cosine"].append(cosine[order])
        return found

    def _names(self, layer: int) -> dict[int, str]:
        frame = self.table.neurons
        here = frame[frame["layer"] == layer]
        return dict(zip(here["neuron"].tolist(), here.index, strict=True))

    def _words(self, ids: np.ndarray) -> list[Any]:
        """Tokens as text, if the model has a tokenizer."""
        for token in set(ids.tolist()) - self.words.keys():
            self.words[token] = self.lm.tokenizer.token(token) if self.lm.has_tokenizer else token
        return [self.words[token] for token in ids.tolist()]
