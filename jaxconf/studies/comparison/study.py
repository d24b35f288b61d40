"""A base model and what further training made of it: are the candidates for entropy neurons the same, and does calibration hang on them?

Letters: n neuron of the last layer, s window, t position in it, d width.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from jaxconf.analysis.calibration import BINS, Predicted, calibration, predicted, window_sums
from jaxconf.analysis.intervals import resamples
from jaxconf.analysis.overlap import candidates, chance_cosine, chance_iou, cosine_matrix, iou, large, norm_ratio, one_to_one
from jaxconf.analysis.unembedding import readout
from jaxconf.analysis.weights import null_space_size
from jaxconf.data.windows import digest, kept_positions
from jaxconf.measure.analyze import analyze
from jaxconf.measure.facts import facts_of
from jaxconf.measure.inputs import with_target
from jaxconf.measure.weights import weight_statistics
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params, check_runnable, forward
from jaxconf.models.errors import InputError
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.runtime.batching import batches_in_memory
from jaxconf.runtime.memory import MEMORY, bytes_of_a_set, fitting
from jaxconf.runtime.progress import Progress
from jaxconf.runtime.timing import Timing

SHARES, LOWEST = (0.1, 0.25, 0.5), (5, 10, 20, 50)
SHARE, CANDIDATES = 0.25, 10  # Du et al.'s
CONTROLS = 1000  # random sets that changes are compared with
WEIGHTS = ("w_norm", "logit_var", "ratio", "rho")
EFFECTS = ("ln_mediated", "loss_delta", "loss_abs_delta", "entropy_delta", "entropy_abs_delta", "top1_change")


@dataclasses.dataclass
class Comparison:
    """What was found. Losses and entropies are in nats. Neurons are those of the last layer; a model is known by its name.

    neurons: a row per model, the base model's first, and neuron, with `w_norm`, `logit_var`, `ratio` (norm/log LogitVar), `rho`, `rho_chance`,
    `is_candidate` (at the paper's thresholds), and where the effects were measured EFFECTS with `_lo` and `_hi`, and `is_entropy_neuron`; of a
    tuned model also `match`, the base model's neuron that it is matched with, their `cosine`, and `cosine_index`, that with the base model's
    neuron of the same index.
    overlaps: a row per tuned model, way of matching (`by` "index" or "cosine"), `share` (the top by norm) and `lowest` (by LogitVar): the sizes
    `base` and `tuned` of the two sets, how many neurons are `common`, their `iou`; `chance` with `_lo` and `_hi`, its mean and 95% range over all
    permutations of the neurons; and `norm_chance`, the same where only which of those with a large norm are candidates is random.
    changes: a row per tuned model and measure: means over the base model's candidates, `base` and `tuned` (of their matches), the `change` with the
    95% range `random_lo` to `random_hi` of as many random neurons with a large norm, and the rank `correlation` over all matched neurons.
    calibration: a row per model and `measure` (loss, entropy, brier, accuracy, ece) on the same positions, its `value` and the `change` from the
    base model, each with a bootstrap interval over windows (`_lo`, `_hi`).
    reliability: a row per model and bin of confidence with its `count` of positions, mean `confidence` and `accuracy`.
    """

    facts: dict[str, Any]
    neurons: pd.DataFrame
    overlaps: pd.DataFrame
    changes: pd.DataFrame
    calibration: pd.DataFrame
    reliability: pd.DataFrame

    def pairs(self, tuned: str) -> pd.DataFrame:
        """The base model's neurons in their order, beside those of a tuned model that they are matched with: the columns of `neurons` with `_base` and
        `_tuned`, and `cosine`."""
        of = self.neurons.groupby("model", sort=False)
        base, other = of.get_group(self.facts["base"]), of.get_group(tuned)
        matched = other.set_index("match").loc[base["neuron"]].reset_index(drop=True)
        both = base.drop(columns=["model", "layer", "match", "cosine", "cosine_index"]).reset_index(drop=True).add_suffix("_base")
        return both.join(matched.drop(columns=["model", "layer", "cosine"]).add_suffix("_tuned")).assign(cosine=matched["cosine"])


def compare_models(
    base: LanguageModel,
    tuned: Iterable[LanguageModel],
    tokens: np.ndarray,
    *,
    k: int | None = None,
    bootstrap_draws: int = 1000,
    seed: int = 0,
    memory: int = MEMORY,
    facts: Mapping[str, Any] | None = None,
    resume_folder: Path | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Comparison:
    """How the last layer's neurons of models that were trained on from `base` differ from its own, each model beside `base`.

    `tuned`: taken one after the other, so that an iterator which loads them holds one at a time. `tokens`: windows, int [s t], by the base model's
    tokenizer; effects (mean ablation, see `jaxconf.analyze`) and calibration are measured on them for each tuned model whose tokenizer gives the
    same tokens for the same text, and for the others weight statistics alone are compared. `k`: size of the null space, for ρ. `memory`, `resume_folder`:
    as for `jaxconf.analyze`. `facts`: what else the result should state. Source: Du et al. 2025 (arXiv 2504.02904) for the candidates, their overlap
    and the ratio; Stolfo et al. 2024 (arXiv 2406.16254) for ρ and effects. Raises InputError for no tuned model, one of another shape, and what
    `jaxconf.analyze` raises.
    """
    timing = Timing()
    check_runnable(base.params)
    if seed < 0 or bootstrap_draws < 0:
        raise InputError(f"seed is {seed} and bootstrap_draws {bootstrap_draws}; give 0 or more for each")
    k = null_space_size(base.config.d_model, k)
    tokens = np.asarray(tokens, np.int32)
    kept = with_target(tokens, kept_positions(tokens, base.special_ids))
    N = base.config.d_mlp
    resampled = resamples(kept.sum(1), bootstrap_draws, seed)

    def statistics(lm: LanguageModel, name: str, run: bool) -> pd.DataFrame:
        if run:
            how: dict[str, Any] = {"bootstrap_draws": bootstrap_draws, "seed": seed, "memory": memory, "resume_folder": resume_folder}
            frame = analyze(lm, tokens, kept=kept, k=k, progress=_named(progress, name), **how).frame
        else:
            frame = weight_statistics(lm, k=k)
        w_norm, logit_var = frame["w_norm"].to_numpy(), frame["logit_var"].to_numpy()
        frame = frame.assign(model=name, ratio=norm_ratio(w_norm, logit_var), is_candidate=candidates(w_norm, logit_var, SHARE, CANDIDATES))
        measured = [f"{column}{end}" for column in EFFECTS for end in ("", "_lo", "_hi")]
        return frame.reindex(columns=["model", "layer", "neuron", *WEIGHTS, "rho_chance", "is_candidate", *measured, "is_entropy_neuron"])

    own_statistics = functools.cache(functools.partial(statistics, base, base.name))

    def prediction_sums(lm: LanguageModel, name: str) -> dict[str, np.ndarray]:
        return fitting(lambda memory: _prediction_sums(lm, tokens, kept, memory, _named(progress, name)), memory, progress)

    own_sums = functools.cache(functools.partial(prediction_sums, base, base.name))
    writes = fetched(readout(base.config, base.params).w_out)

    neurons: list[pd.DataFrame] = []
    overlaps: list[dict[str, Any]] = []
    changes: list[dict[str, Any]] = []
    predictions: dict[str, dict[str, np.ndarray]] = {}
    weights_only: list[str] = []
    for name, lm in _with_names(base, tuned):
        check_same_shape(base.config, lm.config, name)
        run = same_tokens(base, lm, tokens)
        if not run:
            weights_only.append(name)
        before, after = own_statistics(run), statistics(lm, name, run)
        progress(f"{name}: matching neurons", 0, 0)
        cosines = cosine_matrix(writes, fetched(readout(lm.config, lm.params).w_out))
        match = one_to_one(cosines)
        back = np.argsort(match)
        after = after.assign(match=back, cosine=cosines[back, np.arange(N)], cosine_index=np.diagonal(cosines))
        overlaps += [{"model": name, **row} for row in _overlaps(before, after, match)]
        rng = np.random.default_rng([seed, len(neurons)])
        changes += [{"model": name, **row} for row in _changes(before, after.iloc[match], WEIGHTS + EFFECTS * run, rng)]
        neurons.append(after)
        if run:
            predictions = {base.name: own_sums()} | predictions
            predictions[name] = prediction_sums(lm, name)
        del lm  # before the next one is loaded
    if not neurons:
        raise InputError("there is no model to compare with; give at least one that was trained on from the base model")
    models = [after["model"].iloc[0] for after in neurons]
    return Comparison(
        facts=facts_of(
            base,
            {
                "share": SHARE,
                "candidates": CANDIDATES,
                "windows": len(tokens),
                "tokens": int(tokens.size),
                "positions": int(kept.sum()),
                "data_sha256": digest(tokens),
                "ablation": "mean",
                "k": k,
                "chance_cosine": chance_cosine(base.config.d_model - (base.config.norm == "layer"), N),
                "controls": CONTROLS,
                "bootstrap": bootstrap_draws,
                "seed": seed,
            },
            timing,
            int(kept.sum()) * N * len(predictions),
            facts,
            named={"base": base.name, "tuned": models, "weights_only": weights_only},
        ),
        neurons=pd.concat([own_statistics(bool(predictions)), *neurons], ignore_index=True).astype(
            {"match": "Int64", "is_entropy_neuron": "boolean"}
        ),
        overlaps=pd.DataFrame(overlaps),
        changes=pd.DataFrame(changes),
        calibration=_calibration(predictions, resampled),
        reliability=_reliability(predictions),
    )


def check_same_shape(base: DecoderConfig, tuned: DecoderConfig, name: str) -> None:
    """Raises InputError unless the tuned model has as many layers, as many neurons in each and the same width."""
    shapes = [
        f"{config.n_layers} layer{'s' * (config.n_layers > 1)} of {config.d_mlp:,} neurons at width {config.d_model:,}"
        for config in (tuned, base)
    ]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"{name} has {shapes[0]} and the base model {shapes[1]}; compare a model with one that was trained on from it, which has its shape"
        )


def same_tokens(base: LanguageModel, tuned: LanguageModel, tokens: np.ndarray) -> bool:
    """Whether the two tokenizers give the same tokens for the text of the base model's windows, int [s t], and every id in these names the same
    token. Of models without a tokenizer, whether they have the same number of tokens.
    """
    if tokens.max() >= tuned.config.vocab_size or base.has_tokenizer != tuned.has_tokenizer:
        return False
    if not base.has_tokenizer:
        return base.config.vocab_size == tuned.config.vocab_size
    if any(base.tokenizer.token(i) != tuned.tokenizer.token(i) for i in np.unique(tokens)):
        return False
    special = list(base.end_ids | tuned.end_ids)
    texts = [base.tokenizer.decode(row[~np.isin(row, special)]) for row in tokens]
    both = zip(base.tokenizer.encode_batch(texts), tuned.tokenizer.encode_batch(texts), strict=True)
    return all(np.array_equal(of_base, of_tuned) for of_base, of_tuned in both)


def _with_names(base: LanguageModel, tuned: Iterable[LanguageModel]) -> Iterator[tuple[str, LanguageModel]]:
    """Each tuned model with a name that no other has."""
    taken = {base.name}
    for lm in tuned:
        numbered = (f"{lm.name} ({number})" for number in itertools.count(2))
        name = next(name for name in itertools.chain([lm.name], numbered) if name not in taken)
        taken.add(name)
        yield name, lm
        del lm, numbered


def _named(progress: Progress, name: str) -> Progress:
    return lambda what, done, total: progress(f"{name}: {what}", done, total)


def _overlaps(base: pd.DataFrame, tuned: pd.DataFrame, match: np.ndarray) -> Iterator[dict[str, Any]]:
    """`Comparison.overlaps` of one tuned model; `match`: its neuron for each of the base model's, int [n]."""
    everyone = np.ones(len(match), bool)
    weights = [(frame["w_norm"].to_numpy(), frame["logit_var"].to_numpy()) for frame in (base, tuned)]
    for by, order in (("index", np.arange(len(match))), ("cosine", match)):
        for share in SHARES:
            heavy = large(weights[0][0], share), large(weights[1][0], share)[order]
            for lowest in LOWEST:
                first, second = (candidates(*of_model, share, lowest) for of_model in weights)
                second = second[order]
                sizes = int(first.sum()), int(second.sum())
                row = {"by": by, "share": share, "lowest": lowest, "base": sizes[0], "tuned": sizes[1]}
                row |= {"common": int((first & second).sum()), "iou": iou(first, second)}
                for name, pools in (("chance", (everyone, everyone)), ("norm_chance", heavy)):
                    row |= dict(zip((name, f"{name}_lo", f"{name}_hi"), chance_iou(pools, sizes), strict=True))
                yield row


def _changes(base: pd.DataFrame, matched: pd.DataFrame, measures: tuple[str, ...], rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """`Comparison.changes` of one tuned model, whose neurons stand in the order of those that they are matched with."""
    chosen = np.flatnonzero(base["is_candidate"])
    heavy = np.flatnonzero(large(base["w_norm"].to_numpy(), SHARE))
    random = rng.permuted(np.tile(heavy, (CONTROLS, 1)), axis=1)[:, : len(chosen)]
    if len(chosen) == len(heavy):  # nothing to choose from
        random = random[:0]
    for name in measures:
        both = pd.DataFrame({"base": base[name].to_numpy(float), "tuned": matched[name].to_numpy(float)})
        both[both.isna().any(axis=1)] = np.nan  # a neuron without a mediated share in one model has no change of it
        change = (both["tuned"] - both["base"]).to_numpy()
        of_random = pd.DataFrame(change[random]).mean(axis=1).dropna()
        low, high = np.quantile(of_random, [0.025, 0.975]) if len(of_random) else (math.nan, math.nan)
        yield {
            "measure": name,
            **both.iloc[chosen].mean().to_dict(),
            "change": pd.Series(change[chosen]).mean(),
            "random_lo": low,
            "random_hi": high,
            "correlation": both["base"].rank().corr(both["tuned"].rank()),
        }


@functools.partial(jax.jit, static_argnames="config")
def _predictions(config: DecoderConfig, params: Params, tokens: jax.Array) -> Predicted:
    """Of each next token [s t]; those of the last position mean nothing."""
    logits: Any = forward(config, params, tokens).logits
    return predicted(jax.nn.log_softmax(logits), jnp.roll(tokens, -1, 1))


def _prediction_sums(lm: LanguageModel, tokens: np.ndarray, kept: np.ndarray, memory: int, progress: Progress) -> dict[str, np.ndarray]:
    """`window_sums` of all windows."""
    parts = []
    for rows, real in batches_in_memory(len(tokens), bytes_of_a_set(lm.config, tokens.shape[1]), memory, lm.mesh.shape["data"]):
        of = fetched(_predictions(lm.config, lm.params, lm.over_data(tokens[rows])))
        parts.append(jax.tree.map(lambda x, real=real: x[real], window_sums(of, kept[rows])))
        progress("predictions", (rows[real][-1] + 1) * tokens.shape[1], tokens.size)
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def _calibration(predictions: Mapping[str, dict[str, np.ndarray]], resampled: np.ndarray) -> pd.DataFrame:
    """From the `window_sums` of each model, the base model's first; `resampled`: how often each resample takes each window, [r s]."""
    columns = ["model", "measure", *(f"{name}{end}" for name in ("value", "change") for end in ("", "_lo", "_hi"))]
    rows = []
    first: tuple[dict[str, np.ndarray], ...] = ()
    for model, sums in predictions.items():
        found = calibration(sums, np.ones((1, resampled.shape[1]))), calibration(sums, resampled)
        first = first or found
        for measure in found[0]:
            row = {"model": model, "measure": measure}
            for name, shift in (("value", 0.0), ("change", 1.0)):
                estimate, drawn = (of[measure] - shift * of_base[measure] for of, of_base in zip(found, first, strict=True))
                interval = np.quantile(drawn, [0.025, 0.975]) if len(drawn) else (math.nan, math.nan)
                row |= dict(zip((name, f"{name}_lo", f"{name}_hi"), (estimate[0], *interval), strict=True))
            rows.append(row)
    return pd.DataFrame(rows, columns=columns)


def _reliability(predictions: Mapping[str, dict[str, np.ndarray]]) -> pd.DataFrame:
    rows = []
    for model, sums in predictions.items():
        count, confidence, correct = (sums[f"bin_{name}"].sum(0) for name in ("count", "confidence", "correct"))
        filled = np.maximum(count, 1)
        columns = {"bin": np.arange(BINS), "count": count.astype(int), "confidence": confidence / filled, "accuracy": correct / filled}
        rows.append(pd.DataFrame({"model": model, **columns})[count > 0])
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame(columns=["model", "bin", "count", "confidence", "accuracy"])
