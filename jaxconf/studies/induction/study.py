"""The paper's case study: what entropy neurons do when a sequence repeats.

Letters: b sequence, L repeated tokens, t position (2L + 1), l layer, h head, n neuron, c set of neurons or of heads. `jaxconf.analysis.induction`
says how a sequence is laid out. "The repeat" are the positions of the second copy whose next token is the second copy's too.
"""

import collections
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxconf.analysis.frequency import frequency
from jaxconf.analysis.induction import bos_ablation, halves, head_scores, predictions, repeated
from jaxconf.analysis.neuron_sets import Neurons, random_sets
from jaxconf.analysis.unembedding import Readout, Spectrum, at_layer, readout, spectrum
from jaxconf.analysis.weights import chance_rho, null_space_size, rho
from jaxconf.analysis.whole_logits import prediction
from jaxconf.data.windows import digest, kept_positions
from jaxconf.measure.facts import facts_of
from jaxconf.measure.inputs import with_target
from jaxconf.measure.neuron_sets import check_set
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params, check_runnable, final_norm_name, forward
from jaxconf.models.errors import InputError
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.runtime.batching import batches_in_memory, joined
from jaxconf.runtime.memory import MEMORY, bytes_of_a_set, fitting
from jaxconf.runtime.progress import Progress
from jaxconf.runtime.timing import Timing
from jaxconf.studies.induction.clip_ablation import clip_ablation, name_of, summary_of
from jaxconf.studies.induction.natural import Natural, natural_induction, natural_places
from jaxconf.studies.induction.scaling import doses_of

CANDIDATES, MOST_HEADS = 10, 4
Heads = Sequence[tuple[int, int]]
"""(layer, index) of each."""


@dataclasses.dataclass
class Induction:
    """What was found. Losses and entropies are in nats, means over sequences. Neurons and heads are named "layer.index".

    positions: a row per position with `copy` (0 for BOS, 1, 2), `entropy`, `loss`, and `scale`, the final norm's.
    neurons: a row per neuron of the layers that were looked at, with `w_norm`, `rho`, `rho_chance`, the mean activation in the first copy and
    in the second, `activation_first` and `activation_second`, and `weighted_change`, their difference times w_norm (Figure 11).
    activations: a row per position of every chosen neuron and of one random set, with `kind` ("chosen" or "random") and `activation`.
    ablations: a row per set and position, with what the clip mean-ablation changes: `entropy`, `loss`, each also `_ln_frozen` (Figure 5b).
    sets: a row per set, the same over the repeat, with `_lo` and `_hi` from a bootstrap over sequences; `kind` is "neuron", "set" or "random".
    heads: a row per head with its `score`. head_sets: a row per set of heads that looks at BOS alone, `kind` "single", "cumulative" or "random",
    with the changes of `entropy` and `loss` over the repeat and their intervals. head_activations: the mean activation of each chosen neuron
    over the repeat, before and after, of each such set (Figure 5c).
    doses: a row per set, `data` ("text" or "repeat") and `factor` on its activations, with `loss`, `entropy`, `ece`, `brier`, `top1` (the
    accuracy), the `temperature` that mimics the dose best, and the share of the change of the log-probabilities that it `explained`.
    natural: see `jaxconf.studies.induction.natural.Natural`; None unless it was asked for.
    """

    facts: dict[str, Any]
    positions: pd.DataFrame
    neurons: pd.DataFrame
    activations: pd.DataFrame
    ablations: pd.DataFrame
    sets: pd.DataFrame
    heads: pd.DataFrame
    head_sets: pd.DataFrame
    head_activations: pd.DataFrame
    doses: pd.DataFrame
    natural: Natural | None


def induction(
    lm: LanguageModel,
    text: np.ndarray,
    windows: np.ndarray,
    *,
    natural: np.ndarray | None = None,
    neurons: Neurons | None = None,
    heads: Heads | None = None,
    controls: int = 20,
    k: int | None = None,
    bootstrap_draws: int = 1000,
    seed: int = 0,
    memory: int = MEMORY,
    facts: Mapping[str, Any] | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Induction:
    """How chosen neurons act when text repeats, which heads notice it, and what becomes of calibration when the neurons are scaled.

    `text`: int [b L], what each sequence says twice. `windows`: int [s T], as for `jaxconf.analyze`; the doses are also measured there.
    `natural`: windows, int [s T], that are searched for repeats which text has by itself.
    `neurons`: (layer, index) of the chosen ones (by default the ten of the last layer with the highest ρ). `heads`: those that are made to
    look at BOS (by default those with the highest induction score, up to four and a quarter of all). `controls`: random sets of neurons, and
    of heads, of the same size. `k`: size of the null space, for ρ. `memory`: bytes that sets worked on together may take. `facts`: what else
    the result should state. Source: Stolfo et al. 2024 (arXiv 2406.16254), section 5, figures 5, 10 and 11; the doses are ours. Raises
    InputError for a model without BOS, sequences longer than its positions, and neurons or heads that it does not have.
    """
    timing = Timing()
    check_runnable(lm.params)
    config, last = lm.config, lm.config.n_layers - 1
    length = text.shape[1]
    bos = check_repeats(lm, length)
    check_set(config, neurons or [(last, 0)], controls)
    check_heads(config, heads or [])
    places = None if natural is None else natural_places(lm, natural)
    tokens = repeated(np.asarray(text, np.int32), bos)
    k = null_space_size(config.d_model, k)
    seen_by, values = readout(config, lm.params), spectrum(config, lm.params)
    rho_last = rho(fetched(seen_by.w_out), values, k)
    chosen = check_set(config, neurons or [(last, int(n)) for n in np.argsort(-rho_last)[: min(CANDIDATES, config.d_mlp)]], controls)
    layers = tuple(sorted({layer for layer, _ in chosen} | {last}))
    drawn = random_sets(config, chosen, controls, np.random.default_rng([seed, 0]))

    def fitted(measure: Callable[..., Any], *of: Any) -> Any:
        return fitting(lambda memory: measure(*of, memory, progress), memory, progress)

    seen = fitted(_look, lm, tokens, layers)
    first, second = halves(length)
    means = {layer: seen.activations[layer][first].mean(0) for layer in layers}
    rises = {layer: seen.activations[layer][second].mean(0) > means[layer] for layer in layers}
    table = pd.concat(
        [_neuron_rows(lm, layer, at_layer(config, lm.params, seen_by, "paper", layer), values, seen, first, second, k) for layer in layers],
        ignore_index=True,
    )
    table["is_chosen"] = [(layer, neuron) in set(chosen) for layer, neuron in zip(table["layer"], table["neuron"], strict=True)]

    repeat = predictions(length)[1]
    named = {name_of(pair): [pair] for pair in chosen} if len(chosen) > 1 else {}
    named["the set"] = list(chosen)
    named |= {f"random {i + 1}": members for i, members in enumerate(drawn)}
    kinds = ["neuron"] * (len(chosen) * (len(chosen) > 1)) + ["set"] + ["random"] * controls
    found = fitted(clip_ablation, lm, tokens, list(named.values()), means, rises, np.broadcast_to(repeat, tokens.shape))
    ablations, sets = _set_frames(found, named, kinds, int(repeat.sum()), bootstrap_draws, seed)

    scores = fitted(_scores, lm, tokens)
    ranked = [(int(i) // config.n_heads, int(i) % config.n_heads) for i in np.argsort(-scores.ravel())]
    top = list(heads) if heads else ranked[: max(1, min(MOST_HEADS, len(ranked) // 4))]
    drawn_heads = _random_heads(config, top, controls, np.random.default_rng([seed, 1]))
    looking = {name_of(head): [head] for head in top} | {f"top {size}": top[:size] for size in range(2, len(top) + 1)}
    looking |= {f"random {i + 1}": members for i, members in enumerate(drawn_heads)}
    head_kinds = ["single"] * len(top) + ["cumulative"] * (len(top) - 1) + ["random"] * len(drawn_heads)
    changed, activations = fitted(_at_bos, lm, tokens, list(looking.values()), chosen, repeat)
    head_sets = summary_of(changed, looking, head_kinds, int(repeat.sum()), bootstrap_draws, seed)
    head_activations = pd.DataFrame(
        {
            "heads": np.repeat(list(looking), len(chosen)),
            "kind": np.repeat(head_kinds, len(chosen)),
            "neuron": [name_of(pair) for pair in chosen] * len(looking),
            "activation": np.tile([seen.activations[layer][repeat, n].mean() for layer, n in chosen], len(looking)),
            "activation_ablated": activations.ravel(),
        }
    )

    dosed = {"the set": list(chosen), **{f"random {i + 1}": members for i, members in enumerate(drawn)}}
    kept = with_target(windows, kept_positions(windows, lm.special_ids))
    doses = pd.concat(
        [
            fitted(doses_of, lm, data, where, mask, dosed)
            for data, where, mask in (("text", windows, kept), ("repeat", tokens, np.broadcast_to(repeat, tokens.shape)))
        ],
        ignore_index=True,
    )
    t = np.arange(2 * length + 1)
    shown = [*((pair, "chosen") for pair in chosen), *((pair, "random") for pair in (drawn[0] if drawn else []))]
    by_itself = None
    if natural is not None and places is not None:
        by_itself = fitted(natural_induction, lm, natural, places, named, kinds, shown, bootstrap_draws, seed)
    return Induction(
        facts=facts_of(
            lm,
            {
                "sequences": len(tokens),
                "length": length,
                "data_sha256": digest(tokens),
                "text_positions": int(kept.sum()),
                "chosen": [name_of(pair) for pair in chosen],
                "chosen_by": "name" if neurons else f"the highest rho of layer {last}",
                "heads": [name_of(head) for head in top],
                "controls": controls,
                "k": k,
                "seed": seed,
                "bootstrap": bootstrap_draws,
            },
            timing,
            tokens.size * len(table),
            facts,
        ),
        positions=pd.DataFrame(
            {"position": t, "copy": first + 2 * second, "entropy": seen.entropy, "loss": seen.loss, "scale": seen.scale}
        ),
        neurons=table,
        activations=pd.concat(
            [
                pd.DataFrame({"neuron": name_of((layer, n)), "kind": kind, "position": t, "activation": seen.activations[layer][:, n]})
                for (layer, n), kind in shown
            ],
            ignore_index=True,
        ),
        ablations=ablations,
        sets=sets,
        heads=pd.DataFrame(
            {
                "layer": np.repeat(np.arange(config.n_layers), config.n_heads),
                "head": np.tile(np.arange(config.n_heads), config.n_layers),
                "score": scores.ravel(),
            }
        ),
        head_sets=head_sets,
        head_activations=head_activations,
        doses=doses,
        natural=by_itself,
    )


def check_repeats(lm: LanguageModel, length: int) -> int:
    """The BOS that repeated sequences begin with. Raises InputError where there is none, and where they do not fit the model."""
    if length < 4:
        raise InputError(f"the repeated text has {length} tokens; give a length of at least 4")
    if 2 * length + 1 > lm.config.n_positions:
        most = (lm.config.n_positions - 1) // 2
        raise InputError(
            f"twice {length} tokens and BOS are more than the model's {lm.config.n_positions} positions; give a length up to {most}"
        )
    if lm.bos_id is None:
        raise InputError("the model has no BOS token, with which a repeated sequence begins; choose another model")
    return lm.bos_id


def check_heads(config: DecoderConfig, heads: Heads) -> None:
    """Raises InputError for those that the model does not have, and for one that is named twice."""
    for layer, head in heads:
        if not (0 <= layer < config.n_layers and 0 <= head < config.n_heads):
            raise InputError(
                f"there is no head {layer}.{head}; the model has layers 0 to {config.n_layers - 1} with heads 0 to {config.n_heads - 1}"
            )
    if len(set(heads)) < len(heads):
        raise InputError("a head is named twice; give each once, such as 5.1,5.5")


def _random_heads(config: DecoderConfig, heads: Heads, count: int, rng: np.random.Generator) -> list[list[tuple[int, int]]]:
    """Up to `count` different sets of other heads, with as many in each layer where it has enough of them, else anywhere."""
    others = [(layer, head) for layer in range(config.n_layers) for head in range(config.n_heads) if (layer, head) not in heads]
    of_layer = {layer: [head for head in others if head[0] == layer] for layer, _ in heads}
    wanted = collections.Counter(layer for layer, _ in heads)
    pools = [(of_layer[layer], n) for layer, n in wanted.items()]
    if any(len(pool) < n for pool, n in pools):
        pools = [(others, len(heads))]
    if any(len(pool) < n for pool, n in pools):
        return []
    found = {tuple(sorted(pool[i] for pool, n in pools for i in rng.choice(len(pool), n, replace=False))) for _ in range(count)}
    return [list(members) for members in sorted(found)]


class _Seen(NamedTuple):
    """Means over sequences, [t], and activations, layer → [t n]."""

    entropy: np.ndarray
    loss: np.ndarray
    scale: np.ndarray
    activations: dict[int, np.ndarray]


@functools.partial(jax.jit, static_argnames=("config", "layers"))
def _observed(config: DecoderConfig, params: Params, tokens: jax.Array, real: jax.Array, layers: tuple[int, ...]) -> _Seen:
    """Sums over the real sequences of a group."""
    scale, sites = f"{final_norm_name(config)}.hook_scale", {layer: f"blocks.{layer}.mlp.hook_post" for layer in layers}
    output = forward(config, params, tokens, capture=[scale, *sites.values()])
    assert output.logits is not None
    of = prediction(output.logits, frequency(np.zeros(config.vocab_size)), jnp.roll(tokens, -1, 1))

    def total(x: jax.Array) -> jax.Array:
        return jnp.einsum("b,b...->...", real, x.astype(jnp.float32))

    activations = {layer: total(output.captured[site]) for layer, site in sites.items()}
    return _Seen(total(of.entropy), total(of.loss), total(output.captured[scale][..., 0]), activations)  # type: ignore[arg-type]


def _look(lm: LanguageModel, tokens: np.ndarray, layers: tuple[int, ...], memory: int, progress: Progress) -> _Seen:
    totals: Any = None
    for rows, real in batches_in_memory(len(tokens), bytes_of_a_set(lm.config, tokens.shape[1]), memory, lm.mesh.shape["data"]):
        sums = _observed(lm.config, lm.params, lm.over_data(tokens[rows]), real.astype(np.float32), layers)
        found = jax.tree.map(lambda x: x.astype(np.float64), fetched(sums))
        totals = found if totals is None else jax.tree.map(np.add, totals, found)
        progress("repeated text", (rows[-1] + 1) * tokens.shape[1], tokens.size)
    seen: _Seen = jax.tree.map(lambda x: x / len(tokens), totals)
    seen.loss[-1] = np.nan  # nothing follows the last token
    return seen


def _neuron_rows(
    lm: LanguageModel, layer: int, seen_by: Readout, values: Spectrum, seen: _Seen, first: np.ndarray, second: np.ndarray, k: int
) -> pd.DataFrame:
    config, w_out = lm.config, fetched(seen_by.w_out)
    before, after = (seen.activations[layer][half].mean(0) for half in (first, second))
    norm = np.linalg.norm(w_out, axis=1)
    return pd.DataFrame(
        {
            "layer": layer,
            "neuron": np.arange(config.d_mlp),
            "w_norm": norm,
            "rho": rho(w_out, values, k),
            "rho_chance": chance_rho(k, len(values.values), config.d_mlp)[0],
            "activation_first": before,
            "activation_second": after,
            "weighted_change": (after - before) * norm,
        }
    )


def _set_frames(
    found: tuple[dict[str, np.ndarray], dict[str, np.ndarray]], named: dict[str, Any], kinds: list[str], count: int, draws: int, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    by_position, sums = found
    T = next(iter(by_position.values())).shape[1]
    place = {"set": np.repeat(list(named), T), "kind": np.repeat(kinds, T), "position": np.tile(np.arange(T), len(named))}
    return pd.DataFrame({**place, **{name: x.ravel() for name, x in by_position.items()}}), summary_of(
        sums, named, kinds, count, draws, seed
    )


def _scores(lm: LanguageModel, tokens: np.ndarray, memory: int, progress: Progress) -> np.ndarray:
    """Every head's induction score, [l h]."""
    T = tokens.shape[1]
    total = np.zeros((lm.config.n_layers, lm.config.n_heads))
    for rows, real in batches_in_memory(len(tokens), 8 * lm.config.n_heads * T * T, memory, lm.mesh.shape["data"]):
        found = head_scores(lm.config, lm.params, lm.over_data(tokens[rows]), lm.over_data(real.astype(np.float32)))
        total += fetched(found).astype(np.float64)
        progress("induction heads", (int(rows[-1]) + 1) * T, tokens.size)
    return total / len(tokens)


@functools.partial(jax.jit, static_argnames=("config", "layers"))
def _bos_ablated(
    config: DecoderConfig, layers: tuple[int, ...], params: Params, tokens: jax.Array, heads: jax.Array
) -> tuple[jax.Array, jax.Array, dict[int, jax.Array]]:
    """Entropy and loss [c b t], and the layers' activations [c b t n], where each set of heads [c l h] looks at BOS alone."""
    sites = {layer: f"blocks.{layer}.mlp.hook_post" for layer in layers}
    freq, target = frequency(np.zeros(config.vocab_size)), jnp.roll(tokens, -1, 1)

    def one(heads: jax.Array) -> tuple[jax.Array, jax.Array, dict[int, jax.Array]]:
        edits: dict[str, Any] = dict(bos_ablation(config, heads, tokens.shape[1]))
        output = forward(config, params, tokens, edits=edits, capture=list(sites.values()))
        assert output.logits is not None
        of = prediction(output.logits, freq, target)
        return of.entropy, of.loss, {layer: output.captured[site] for layer, site in sites.items()}

    return jax.vmap(one)(heads)


def _at_bos(
    lm: LanguageModel,
    tokens: np.ndarray,
    sets: Sequence[Heads],
    chosen: Neurons,
    repeat: np.ndarray,
    memory: int,
    progress: Progress,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Where each set of heads looks at BOS alone: the change of entropy and loss, summed over the repeat, [b c], and the mean activation of
    every chosen neuron over the repeat, [c chosen].
    """
    config, layers = lm.config, tuple(sorted({layer for layer, _ in chosen}))
    masks = np.zeros((1 + len(sets), config.n_layers, config.n_heads), bool)  # the first: no head
    for row, members in enumerate(sets):
        for layer, head in members:
            masks[row + 1, layer, head] = True
    sums: dict[str, list[np.ndarray]] = {"entropy": [], "loss": []}
    activations = np.zeros((len(sets), len(chosen)))
    D, each = lm.mesh.shape["data"], bytes_of_a_set(config, tokens.shape[1])
    for rows, real in batches_in_memory(len(tokens), each, memory, D):
        parts = []
        for some, _ in batches_in_memory(len(masks), each * len(rows) // D, memory):
            entropy, loss, h = fetched(_bos_ablated(config, layers, lm.params, lm.over_data(tokens[rows]), masks[some]))
            own = np.stack([h[layer][:, :, :, n][:, real][:, :, repeat].mean(-1).sum(1) for layer, n in chosen], -1)
            parts.append((entropy.astype(np.float64), loss.astype(np.float64), own))
        entropy, loss, own = joined(parts, len(masks))
        for name, x in (("entropy", entropy), ("loss", loss)):
            sums[name].append((x[1:] - x[:1])[:, real][:, :, repeat].sum(-1).T)
        activations += own[1:]
        progress("heads that look at BOS", (rows[-1] + 1) * tokens.shape[1], tokens.size)
    return {name: np.concatenate(x) for name, x in sums.items()}, activations / len(tokens)
