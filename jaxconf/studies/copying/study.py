"""When the context says one thing and the model's memory another: which of them it repeats, with and without its entropy neurons.

Letters: p prompt, n new token, c set of neurons. A query is "S R", a prompt "S R o'. S R" with a counterfactual object o'. `jaxconf.data.statements`
says what statements are and how answers are told apart, `jaxconf.analysis.transitions` what is made of their classes. Source: Tighidet et al.
2025 (arXiv 2509.10663).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from jaxconf.analysis.ablated_sets import Ablations
from jaxconf.analysis.ablation import Ablation, Kind
from jaxconf.analysis.neuron_sets import Neurons, random_sets
from jaxconf.analysis.transitions import (
    CLASSES,
    conversion_ratios,
    means_by_transition,
    quantile_among,
    transition_scores,
    transition_tables,
)
from jaxconf.analysis.unembedding import readout, spectrum
from jaxconf.analysis.weights import null_space_size, rho
from jaxconf.data.statements import answer_class, contradicts, normal, objects_of, own_object
from jaxconf.data.windows import digest
from jaxconf.measure.activations import activation_statistics
from jaxconf.measure.answers import Answers, ablated_answers, unablated
from jaxconf.measure.facts import facts_of
from jaxconf.measure.neuron_sets import check_set
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import check_runnable
from jaxconf.models.errors import InputError
from jaxconf.models.language_model import LanguageModel
from jaxconf.models.mesh import fetched
from jaxconf.models.tokenizer import Tokenizer
from jaxconf.runtime.memory import MEMORY, fitting
from jaxconf.runtime.progress import Progress
from jaxconf.runtime.timing import Timing
from jaxconf.studies.induction.clip_ablation import name_of
from jaxconf.studies.induction.study import CANDIDATES

ABLATIONS: tuple[Kind, ...] = ("mean", "median", "mode", "mean+3std", "mean-3std")
NEW_TOKENS = 10
COUNTERFACTUALS = 3  # for each statement
LEAST = 1e-7  # the smallest probability that is told apart from what is left of 1

# What is told of every set, beside its transitions.
MEASURES = (
    "transition_score",
    *(f"conversion_{name}" for name in CLASSES),
    *(f"share_{name}" for name in CLASSES),
    "entropy_change",
    *(f"log_p_{name}_change" for name in CLASSES),
)


@dataclasses.dataclass
class Copying:
    """What was found. Entropies and log-probabilities are in nats, shares from 0 to 1. Neurons are named "layer.index".

    statements: a row per statement that was asked and has prompts, with `row` (its number in the file), `relation`, `query`, `object`, and what
    the model says after the query: `continuation`, `own` (its own object), `knows` (whether that is the statement's), `entropy`.
    prompts: a row per prompt with `statement` (the index of its row above), `context` (the counterfactual object), `log_p_query` (of that
    object after the query alone, per token), `prompt`, and of the model as it is `continuation`, `class`, `entropy`, `log_p_CK`, `log_p_PK`, `log_p_ND`.
    answers: a row per ablation value and prompt, with the same columns of the model with the chosen set ablated.
    neurons: a row per chosen neuron with `rho`, `w_norm`, and for each ablation value what its activation is set to.
    transitions: a row per ablation value, set and pair of classes, `before` and `after`: the `count` of prompts, their mean `entropy_change`.
    sets: a row per ablation value and set, `kind` "set" or "random", with MEASURES: means over prompts, but for the conversion ratios.
    quantiles: a row per ablation value and measure: the chosen set's `value`, `random_mean`, `quantile` among the random sets, `_lo` and `_hi`.
    """

    facts: dict[str, Any]
    statements: pd.DataFrame
    prompts: pd.DataFrame
    answers: pd.DataFrame
    neurons: pd.DataFrame
    transitions: pd.DataFrame
    sets: pd.DataFrame
    quantiles: pd.DataFrame


def copying(
    lm: LanguageModel,
    statements: pd.DataFrame,
    text: np.ndarray,
    *,
    count: int = 100,
    neurons: Neurons | None = None,
    controls: int = 100,
    k: int | None = None,
    seed: int = 0,
    memory: int = MEMORY,
    facts: Mapping[str, Any] | None = None,
    progress: Progress = lambda what, done, total: None,
) -> Copying:
    """Whether a model repeats its context or its memory where they disagree, and what ablating neurons changes.

    `statements`: from `jaxconf.read_statements`; `count` of them, drawn with `seed`, are asked, of relations with two objects or more.
    `text`: windows, int [s t], whose activations say what the neurons are set to. `neurons`: (layer, index) of the chosen set, all in the
    last layer (by default the ten with the highest ρ). `controls`: random sets of as many others. `k`: size of the null space, for ρ.
    `memory`: bytes that texts which are worked on together may take. `facts`: what else the result should state. Source: Tighidet et al.
    2025 (arXiv 2509.10663). Raises InputError for a model without a tokenizer, for neurons of other layers or that it does not have, for
    prompts that do not fit it, and where none can be made.
    """
    timing = Timing()
    check_runnable(lm.params)
    config, last, tokenizer = lm.config, lm.config.n_layers - 1, lm.tokenizer
    k = null_space_size(config.d_model, k)
    seen_by = readout(config, lm.params)
    own_rho = rho(fetched(seen_by.w_out), spectrum(config, lm.params), k)
    highest = [(last, int(n)) for n in np.argsort(-own_rho)[: min(CANDIDATES, max(1, config.d_mlp // 2))]]
    chosen = check_chosen(config, neurons or highest, controls)
    members = [chosen, *random_sets(config, chosen, controls, np.random.default_rng([seed, 0]))]

    def answered(prompts: pd.Series, given: pd.DataFrame, sets: Ablations, n_new: int, what: str) -> Answers:
        ids, of_given = encoded(tokenizer, prompts.tolist()), encoded_answers(tokenizer, prompts.tolist(), given.to_numpy())
        return fitting(lambda memory: ablated_answers(lm, ids, of_given, sets, n_new, memory, progress, what), memory, progress)

    pool = objects_of(statements)
    usable = statements[statements["relation"].map(pool.map(len)) >= 2]
    asked = usable.sample(min(count, len(usable)), random_state=np.random.default_rng([seed, 1])).sort_index()
    elicited = answered(asked["query"], asked[["object"]], unablated(), NEW_TOKENS, "own objects")
    said = [_text(lm, ids) for ids in elicited.tokens[0]]
    own = [own_object(text, pool[relation]) for text, relation in zip(said, asked["relation"], strict=True)]
    knows = [normal(one) == normal(other) for one, other in zip(own, asked["object"], strict=True)]
    asked = asked.assign(continuation=said, own=own, knows=knows, entropy=elicited.entropy[0])

    candidates = _counterfactuals(tokenizer, asked, pool)
    scores = answered(candidates["query"], candidates[["context"]], unablated(), 0, "counterfactual objects")
    candidates["log_p_query"] = scores.log_p[0, :, 0] / candidates["tokens"]
    prompts = candidates.sort_values(["statement", "log_p_query"], kind="stable").groupby("statement").head(COUNTERFACTUALS)
    prompts = prompts.assign(prompt=prompts["query"] + " " + prompts["context"] + ". " + prompts["query"]).reset_index(drop=True)

    statistics = fitting(lambda memory: activation_statistics(lm, text, last, memory, progress, ordered=True), memory, progress)
    values = pd.DataFrame({kind: Ablation(kind).level(statistics) for kind in ABLATIONS})
    sets = _ablations(members, values)
    found = answered(prompts["prompt"], prompts[["context", "own"]], sets, NEW_TOKENS, "answers of every set")
    texts, classes = _told_apart(lm, found.tokens, prompts)
    log_p = _three(found.log_p)

    def told(c: int) -> pd.DataFrame:
        columns = {"continuation": texts[c], "class": np.array(CLASSES)[classes[c]], "entropy": found.entropy[c]}
        return pd.DataFrame({**columns, **{f"log_p_{name}": log_p[c, :, i] for i, name in enumerate(CLASSES)}})

    answers, transitions, summaries = [], [], []
    place = {"set": ["the set", *(f"random {i + 1}" for i in range(controls))], "kind": ["set"] + ["random"] * controls}
    for i, name in enumerate(ABLATIONS):
        part = slice(1 + i * len(members), 1 + (i + 1) * len(members))
        entropy, moved = found.entropy[part] - found.entropy[0], log_p[part] - log_p[0]
        tables = transition_tables(classes[0], classes[part])
        answers.append(pd.concat([prompts[["statement", "context"]].assign(ablation=name), told(part.start)], axis=1))
        transitions.append(_transitions(tables, means_by_transition(classes[0], classes[part], entropy), {"ablation": name, **place}))
        listed = [",".join(map(name_of, of_set)) for of_set in members]
        summaries.append(pd.DataFrame({"ablation": name, **place, "members": listed, **_measures(tables, entropy, moved)}))
    summary = pd.concat(summaries, ignore_index=True)
    w_norm, own_indices = np.linalg.norm(fetched(seen_by.w_out), axis=1), [n for _, n in chosen]
    return Copying(
        facts=facts_of(
            lm,
            {
                "statements_given": len(statements),
                "statements_of_one_object": len(statements) - len(usable),
                "statements_asked": len(asked),
                "statements": prompts["statement"].nunique(),
                "prompts": len(prompts),
                "new_tokens": NEW_TOKENS,
                "chosen": [name_of(pair) for pair in chosen],
                "chosen_by": "name" if neurons else f"the highest rho of layer {last}",
                "controls": controls,
                "w_norm": float(w_norm[own_indices].mean()),
                "w_norm_layer": float(w_norm.mean()),
                "text_tokens": int(text.size),
                "text_sha256": digest(text),
                "k": k,
                "seed": seed,
            },
            timing,
            len(prompts) * NEW_TOKENS * sum(len(of_set) for of_set in members) * len(ABLATIONS),
            facts,
        ),
        statements=asked[asked.index.isin(prompts["statement"])],
        prompts=prompts.drop(columns=["query", "own", "tokens"]).join(told(0)),
        answers=pd.concat(answers, ignore_index=True),
        neurons=pd.DataFrame({"neuron": list(map(name_of, chosen)), "rho": own_rho[own_indices], "w_norm": w_norm[own_indices]}).join(
            values.loc[own_indices].reset_index(drop=True)
        ),
        transitions=pd.concat(transitions, ignore_index=True),
        sets=summary,
        quantiles=_quantiles(summary),
    )


def check_chosen(config: DecoderConfig, neurons: Neurons, controls: int) -> list[tuple[int, int]]:
    """The set. Raises InputError as `jaxconf.measure.neuron_sets.check_set` does, and for neurons that are not of the last layer."""
    found = check_set(config, neurons, controls)
    for layer, index in found:
        if layer != config.n_layers - 1:
            raise InputError(
                f"neuron {layer}.{index} is not of the last layer, whose sets answer together; name neurons of layer {config.n_layers - 1}"
            )
    return found


def encoded(tokenizer: Tokenizer, prompts: list[str]) -> list[np.ndarray]:
    """Token ids of prompts, which begin with BOS where there is one."""
    bos = np.array([] if tokenizer.bos_id is None else [tokenizer.bos_id], np.int32)
    return [np.concatenate([bos, ids]) for ids in tokenizer.encode_batch(prompts)]


def encoded_answers(tokenizer: Tokenizer, prompts: list[str], answers: np.ndarray) -> list[list[np.ndarray]]:
    """Token ids of answers [p j] as they go on from each prompt."""
    alone = tokenizer.encode_batch(prompts)
    whole = tokenizer.encode_batch(
        [f"{prompt} {answer}" for prompt, of_prompt in zip(prompts, answers, strict=True) for answer in of_prompt]
    )

    def ids(p: int, j: int) -> np.ndarray:
        both, n = whole[p * answers.shape[1] + j], len(alone[p])
        # A tokenizer may split the prompt otherwise where more follows; the answer's own tokens are then those that it has by itself.
        return both[n:] if np.array_equal(both[:n], alone[p]) else tokenizer.encode(f" {answers[p, j]}")

    return [[ids(p, j) for j in range(answers.shape[1])] for p in range(len(prompts))]


def _text(lm: LanguageModel, ids: np.ndarray) -> str:
    """A continuation up to the end of its text."""
    ended = np.flatnonzero(np.isin(ids, list(lm.eos_ids)))
    return lm.tokenizer.decode(ids[: ended[0]] if len(ended) else ids)


def _counterfactuals(tokenizer: Tokenizer, asked: pd.DataFrame, pool: pd.Series) -> pd.DataFrame:
    """A row per statement and object of its relation that is not its own, contradicts what the model says, and can be said in the new tokens."""
    rows = [
        (at, row.query, row.own, other)
        for at, row in zip(asked.index, asked.itertuples(), strict=True)
        for other in pool[row.relation]
        if row.own and normal(other) != normal(row.object) and contradicts(other, row.own)
    ]
    found = pd.DataFrame(rows, columns=["statement", "query", "own", "context"])
    ids = encoded_answers(tokenizer, found["query"].tolist(), found[["context"]].to_numpy())
    found["tokens"] = [len(answer) for [answer] in ids]
    found = found[found["tokens"] <= NEW_TOKENS]
    if found.empty:
        raise InputError(
            "the model answers no query with words that another object could contradict; give other statements, or another model"
        )
    return found


def _ablations(members: Sequence[Neurons], values: pd.DataFrame) -> Ablations:
    """The model as it is, and then every set with each of ABLATIONS."""
    indices = np.array([[n for _, n in of_set] for of_set in members])
    to = [values[name].to_numpy()[values.index.get_indexer(indices.ravel())].reshape(indices.shape) for name in ABLATIONS]
    return Ablations(
        np.concatenate([indices[:1], *[indices] * len(ABLATIONS)]),
        np.concatenate([np.zeros(indices[:1].shape), *to]).astype(np.float32),
        np.arange(1 + len(ABLATIONS) * len(members)) > 0,
    )


def _told_apart(lm: LanguageModel, tokens: np.ndarray, prompts: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """The continuations as text, [c p], and their classes, int [c p]."""
    texts, classes = np.empty(tokens.shape[:2], object), np.zeros(tokens.shape[:2], np.int64)
    for p, (context, own) in enumerate(zip(prompts["context"], prompts["own"], strict=True)):
        different, at = np.unique(tokens[:, p], axis=0, return_inverse=True)
        said = [_text(lm, ids) for ids in different]
        texts[:, p] = np.array(said, object)[at]
        classes[:, p] = np.array([answer_class(one, context, own) for one in said])[at]
    return texts, classes


def _three(log_p: np.ndarray) -> np.ndarray:
    """The log-probabilities of the context's object, of the model's own and of anything else, [c p 3], from those of the first two."""
    rest = 1 - np.exp(log_p.astype(np.float64)).sum(-1, keepdims=True)
    return np.concatenate([log_p, np.log(np.maximum(rest, LEAST))], -1)


def _measures(tables: np.ndarray, entropy: np.ndarray, log_p: np.ndarray) -> dict[str, np.ndarray]:
    """MEASURES of each set, from its table and its changes of the entropy [c p] and of the log-probabilities [c p 3]."""
    shares, conversions = tables.sum(1) / tables.sum((1, 2))[:, None], conversion_ratios(tables)
    columns = [transition_scores(tables), *conversions.T, *shares.T, entropy.mean(1, dtype=np.float64), *log_p.mean(1, dtype=np.float64).T]
    return dict(zip(MEASURES, columns, strict=True))


def _transitions(tables: np.ndarray, entropy: np.ndarray, place: dict[str, Any]) -> pd.DataFrame:
    n = len(CLASSES)
    columns = {name: np.repeat(value, n * n) if isinstance(value, list) else value for name, value in place.items()}
    pairs = {"before": np.tile(np.repeat(CLASSES, n), len(tables)), "after": np.tile(CLASSES, n * len(tables))}
    return pd.DataFrame({**columns, **pairs, "count": tables.ravel(), "entropy_change": entropy.ravel()})


def _quantiles(sets: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for ablation, of_value in sets.groupby("ablation", sort=False):
        random = of_value[of_value["kind"] == "random"]
        for measure in MEASURES:
            own = float(of_value[measure].iloc[0])
            found = dict(zip(("quantile", "quantile_lo", "quantile_hi"), quantile_among(own, random[measure].to_numpy()), strict=True))
            rows.append({"ablation": ablation, "measure": measure, "value": own, "random_mean": random[measure].mean(), **found})
    return pd.DataFrame(rows)
