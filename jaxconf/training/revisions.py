"""Measure the revisions of one hub model, which are stages of its training, one after the other.

Letters: s window, t position, v vocabulary.
"""

import dataclasses
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
from huggingface_hub import constants, scan_cache_dir
from huggingface_hub.errors import CacheNotFound
from jax.sharding import Mesh

from jaxconf.analysis.selection import Shape
from jaxconf.analysis.weights import null_space_size
from jaxconf.data.corpus import Documents, documents_of
from jaxconf.data.documents import reading_facts
from jaxconf.data.own_text import OWN, source_for
from jaxconf.data.token_counts import count_tokens, counts_of_source, first_documents
from jaxconf.data.windows import Windows, digest, kept_positions, windows
from jaxconf.measure.facts import accepted_facts, shape_facts
from jaxconf.measure.inputs import (
    FIRST,
    check_amounts,
    counts_facts,
    given_counts,
    refuse_mixture,
    tokens_counted,
    window_length,
)
from jaxconf.models.config import DecoderConfig
from jaxconf.models.errors import InputError
from jaxconf.models.families import accepted, config_from_hf
from jaxconf.models.language_model import find, load, local_folder, read_config, text_folder
from jaxconf.models.tokenizer import Tokenizer
from jaxconf.results.rules import Rules
from jaxconf.results.run_folder import COMPONENTS, writable
from jaxconf.runtime.hosts import copied
from jaxconf.runtime.placement import placement
from jaxconf.runtime.progress import Progress
from jaxconf.runtime.version import __version__
from jaxconf.training.emergence import FILE, Emergence, append, append_rows
from jaxconf.training.measurements import (
    NEURON_COLUMNS,
    check_others,
    measure_effects,
    measure_predictions,
    measure_weights,
)


def track_revisions(
    model: str,
    revisions: Sequence[str],
    data: str | Documents,
    out: str | Path,
    *,
    accept: str | Sequence[str] = (),
    effects: bool = False,
    components: str = "",
    tokens: int = 4096,
    counts: np.ndarray | str | Path | None = None,
    k: int | None = None,
    mesh: tuple[int, int] | None = None,
    delete: bool = False,
    force: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> Emergence:
    """Measure revisions of a hub model, add a row for each to the emergence.parquet in `out`, and return the track.

    The options are those of `jaxconf.track`. Raises InputError if no revision is given, if one is given twice or is
    unknown, for a local folder as `model`, for numbers out of range, and if `out` cannot be written. Also raises it if
    `out` holds a track of other options or other text, or a track that ends after a revision that is still to be
    measured. Rows that were measured before an error stay in the file.
    """
    out, steps = Path(out), steps_of(revisions)
    check_amounts(1, tokens=tokens)
    if components and not effects:
        raise InputError("components are measured with the effects only; give effects too")
    _check_model(model, delete)
    with writable(out):
        progress("reading the text", 0, 0)
        data = _own_text(model, next(iter(steps)), delete) if data == OWN else data
        asked = {
            "model": model,
            "effects": effects,
            "tokens_asked": tokens if effects else None,
            "text_sha256": _text_digest(read := documents_of(data)()),
            **({"components": components} if components else {}),
        }
        passed = _accepted(model, list(steps), accept, delete)
        facts, measured = _begun(out, asked, steps, counts, k, force)
        text = None
        for place, (revision, step) in enumerate(steps.items()):
            progress("revisions", place, len(steps))
            if revision in measured:
                continue
            with _downloaded(model, revision, delete) as folder:
                config = config_from_hf(read_config(folder), passed[revision])
                if components:
                    check_others(config, components)
                text = text or _read_text(text_folder(folder), config, data, counts, tokens if effects else None)
                of_counts = text.counts_facts
                found = {**asked, **_facts(config, k, text.windows), "counts_sha256": of_counts["counts_sha256"]}
                # A track of an earlier version does not say what was counted; its text is the same.
                said = {name: value for name, value in found.items() if name != "counts_sha256" or name in facts}
                _check_same(out, facts, said)
                how = (placement(config, mesh), passed[revision], text, found["k"], components)
                row, others = _measure(folder, *how)
                if force and not facts:
                    for name in (FILE, COMPONENTS):  # only now, when a new row is there to replace them
                        (out / name).unlink(missing_ok=True)
                if others is not None:
                    append_rows(out, COMPONENTS, step, others)
                facts = {**found, **of_counts, **reading_facts(read), **accepted_facts(*passed.values())}
                versions = {"jaxconf": __version__, "jax": jax.__version__}
                append(out, {"step": step, "revision": revision, **row}, {**facts, "versions": versions})
        progress("revisions", len(steps), len(steps))
        return Emergence.load(out)


def _begun(
    out: Path,
    asked: Mapping[str, Any],
    steps: Mapping[str, int],
    counts: np.ndarray | str | Path | None,
    k: int | None,
    force: bool,
) -> tuple[dict[str, Any], dict[str, int]]:
    """The facts of the track that `out` holds, and its revisions with their steps; nothing if a new one is to begin.

    Raises InputError for a track of other options.
    """
    for name in (FILE, COMPONENTS):
        copied(out / name)
    if force or not (out / FILE).is_file():
        return {}, {}
    facts, measured = _saved(out, asked, k)
    if counts is not None:
        of_given = given_counts(counts, facts["vocab_size"])[1]
        _check_same(out, facts, {"counts_sha256": of_given["counts_sha256"]})
    _check_order(out, measured, steps)
    return facts, measured


def _check_model(model: str, delete: bool) -> None:
    if delete and jax.process_count() > 1:
        raise InputError(
            "several hosts may share a cache, and one would delete what another still reads; leave out --delete, or "
            "use one host"
        )
    if local_folder(model).is_dir():
        raise InputError(f"{model} is a local folder, which has no revisions to measure; give the hub id of a model")


def steps_of(revisions: Sequence[str]) -> dict[str, int]:
    """Revision → step, ascending.

    The step of a revision is the number at the end of its name. If a name has none, or if two have the same, the steps
    are instead the places in `revisions`, counted from 0. Raises InputError if no revision is given, or if one is given
    twice.
    """
    if not revisions:
        raise InputError(
            "no revisions are given to measure; give branches or tags of the model, such as step0,step1000"
        )
    for name in revisions:
        if revisions.count(name) > 1:
            raise InputError(f"the revision {name} is given twice; give each once")
    # The digits at the end of a commit's hash are no step. Steps are stored as 64-bit integers, hence 18 digits.
    named = [name for name in revisions if not re.fullmatch("[0-9a-f]{40}", name)]
    ends = [re.search("(?<![0-9])[0-9]{1,18}$", name) for name in named]
    numbers = [int(end[0]) for end in ends if end]
    if len(set(numbers)) < len(revisions):
        numbers = list(range(len(revisions)))
    return dict(sorted(zip(revisions, numbers, strict=True), key=lambda item: item[1]))


def _text_digest(documents: Iterator[str]) -> str:
    """The SHA-256 of the text whose tokens are counted. It needs no tokenizer, so no revision must be downloaded."""
    key = hashlib.sha256()
    for text in first_documents(documents):
        data = text.encode()
        key.update(len(data).to_bytes(8) + data)
    return key.hexdigest()


def _saved(out: Path, asked: Mapping[str, Any], k: int | None) -> tuple[dict[str, Any], dict[str, int]]:
    """The facts of the track in the folder, and its revision → step.

    Raises InputError if the track was measured with other options.
    """
    saved = Emergence.load(out)
    _check_same(out, saved.facts, asked)
    _check_same(out, saved.facts, {"k": null_space_size(_shape(saved.facts), k)})
    return saved.facts, dict(zip(saved.steps["revision"], saved.steps["step"].tolist(), strict=True))


def _shape(facts: Mapping[str, Any]) -> Shape:
    return Shape(*(facts[name] for name in ("model_type", "n_layers", "d_model", "n_neurons", "vocab_size")))


def _check_same(out: Path, saved: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if saved and saved.get(name) != value:
            what = f"{name} is {saved.get(name)!r} there and {value!r} here"
            if name.endswith("sha256"):
                what = f"its {'token counts are' if name == 'counts_sha256' else 'text is'} not the same"
            raise InputError(
                f"{out} holds another track: {what}; give the same options, another --out, or --force to replace it"
            )


def _check_order(out: Path, measured: Mapping[str, int], steps: Mapping[str, int]) -> None:
    """Raises InputError unless all revisions that are still to be measured come after those of the folder.

    Adding a row deletes the rows of later steps, and this call may not measure those again.
    """
    last = max(measured, key=measured.__getitem__)
    for revision, step in steps.items():
        if measured.get(revision, step) != step or (revision not in measured and step <= measured[last]):
            raise InputError(
                f"{out} ends with {last} at step {measured[last]}, and {revision} at step {step} cannot be added to "
                "it; give first the revisions that it holds and then only later ones, or give another --out, or "
                "--force to measure all again"
            )


def _own_text(model: str, revision: str, delete: bool) -> str:
    """The source of the text that a revision was trained on, for which its weights are not downloaded."""
    with _downloaded(model, revision, delete, weights=False) as folder:
        return source_for(OWN, text_folder(folder))


def _accepted(
    model: str, revisions: Sequence[str], accept: str | Sequence[str], delete: bool
) -> dict[str, tuple[str, ...]]:
    """Revision → the attributes of its config.json that are passed over; the weights are not downloaded for it."""
    if not accept:
        return dict.fromkeys(revisions, ())
    configs = []
    for revision in revisions:
        with _downloaded(model, revision, delete, weights=False) as folder:
            configs.append(read_config(folder))
    return dict(zip(revisions, accepted(configs, accept), strict=True))


@contextmanager
def _downloaded(model: str, revision: str, delete: bool, weights: bool = True) -> Iterator[Path]:
    """The folder of a revision in the hub's cache, whose weights may be left out.

    With `delete`, the files that were downloaded for it are deleted when the block ends.
    """
    if not delete:
        yield find(model, revision, weights)[0]
        return
    before = {file.file_path for repo in _cached() for cached in repo.revisions for file in cached.files}
    folder, _ = find(model, revision, weights)
    try:
        yield folder
    finally:
        _delete(folder, before)


def _cached() -> frozenset[Any]:
    """The repositories in the hub's cache."""
    try:
        return scan_cache_dir(constants.HF_HUB_CACHE).repos
    except CacheNotFound:
        return frozenset()


def _delete(folder: Path, before: set[Path]) -> None:
    """Delete a revision from the hub's cache.

    Files that were there `before` stay, and so do blobs that other revisions use too.
    """
    cache = scan_cache_dir(constants.HF_HUB_CACHE)
    every = [(repo, cached) for repo in cache.repos for cached in repo.revisions]
    found = [(repo, cached) for repo, cached in every if cached.snapshot_path.samefile(folder)]
    if not found:
        raise InputError(
            f"{folder.parents[1]} in the hub's cache is damaged, so {folder} could not be deleted; delete the damaged "
            "folder, or leave out --delete"
        )
    [(repo, cached)] = found
    new = {file for file in cached.files if file.file_path not in before}
    if len(new) == len(cached.files):
        # The cache holds a renamed model under each of its names, with the same commits. Only this name's is deleted.
        dataclasses.replace(cache, repos=frozenset([repo])).delete_revisions(cached.commit_hash).execute()
        return
    kept = {file.blob_path for other in repo.revisions for file in other.files - (new if other is cached else set())}
    for file in new:
        file.file_path.unlink()
        if file.blob_path not in kept:
            file.blob_path.unlink(missing_ok=True)


class _Text(NamedTuple):
    """The text that all revisions are measured on."""

    counts: np.ndarray  # int64 [v]
    counts_facts: dict[str, Any]  # with the name of the text as `data`, if it has one
    windows: Windows | None  # None if only the weights are measured


def _read_text(
    folder: Path,
    config: DecoderConfig,
    data: str | Documents,
    counts: np.ndarray | str | Path | None,
    tokens: int | None,
) -> _Text:
    """The text, split by the tokenizer in a model's folder, with windows of `tokens` tokens in all if that is given.

    `counts`: the given token counts; by default the text's tokens are counted.
    """
    refuse_mixture(config, "the track of revisions")
    data = source_for(data, folder) if isinstance(data, str) else data
    tokenizer, size, documents = Tokenizer.from_folder(folder, config.vocab_size), config.vocab_size, documents_of(data)
    if counts is not None:
        found, facts = given_counts(counts, size, tokens_counted(folder))
    elif isinstance(data, str):
        found = counts_of_source(data, tokenizer, size)
        facts = counts_facts(found, f"{data}, {FIRST}")
    else:
        found = count_tokens(first_documents(documents()), tokenizer, size)
        facts = counts_facts(found, f"the text, {FIRST}")
    facts |= {"data": data} if isinstance(data, str) else {}
    if tokens is None:
        return _Text(found, facts, None)
    return _Text(found, facts, windows(documents(), tokenizer, tokens, window_length(tokens, config)))


def _facts(config: DecoderConfig, k: int | None, text: Windows | None) -> dict[str, Any]:
    """The facts that all revisions of a track share. Raises InputError for a `k` that does not fit."""
    facts = {**shape_facts(config), "k": null_space_size(config, k), "rules": dataclasses.asdict(Rules())}
    return facts if text is None else {**facts, "data_sha256": digest(text.tokens), "tokens": int(text.tokens.size)}


def _measure(
    folder: Path, mesh: Mesh, accept: Sequence[str], text: _Text, k: int, components: str
) -> tuple[dict[str, Any], pd.DataFrame | None]:
    """The values of a revision's row, without its name and step, and the rows of its `components`, if there are some.

    This is a function of its own so that the weights are freed when it returns.
    """
    if text.windows is None:
        lm = load(folder, dtype=None, mesh=mesh, layers="last", accept=accept)
        return {**dict.fromkeys(NEURON_COLUMNS), **measure_weights(lm.config, lm.params, text.counts, k)}, None
    lm = load(folder, mesh=mesh, accept=accept)
    kept = kept_positions(text.windows.tokens, lm.special_ids)
    neurons, others = measure_effects(lm, text.windows, kept, text.counts, k, components)
    return {**measure_predictions(lm.config, lm.params, text.windows.tokens, kept), **neurons}, others
