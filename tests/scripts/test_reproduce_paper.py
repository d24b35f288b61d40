"""The comparison with the paper's named neurons, on models whose answer is known because it was planted."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reproduce_paper
import tyro
from hub import Hub, hub
from planted_model import PLANTED_ENTROPY, PLANTED_FREQUENCY, planted_model
from planted_table import planted_table
from refusals import check_sentence
from reproduce_paper import PAPER, Named, Reproduce, compared
from rich.console import Console

from jaxconf import weight_statistics
from jaxconf.analysis.induction import repeated
from jaxconf.data.corpus import END, train_tokenizer
from jaxconf.data.documents import documents
from jaxconf.data.token_counts import count_tokens
from jaxconf.data.windows import windows
from jaxconf.models.checkpoint import save_params
from jaxconf.models.language_model import load
from jaxconf.models.sites import Replace
from jaxconf.models.tokenizer import Tokenizer
from jaxconf.results.neuron_table import NeuronTable

pytestmark = pytest.mark.usefixtures("compiled_quickly", "drawn_quickly")

NAME = "pythia-410m"  # of the planted model's family
DATA = "hf://datasets/owner/text"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A text, and a model in Hugging Face layout with planted neurons, four of which write along the frequencies of
    that text's tokens; and a part of the text.
    """
    model, data, part = (tmp_path_factory.mktemp(name) for name in ("model", "data", "part"))
    text = [f"def f{i}(x):\n    return x * {i * i} + {i % 7}\n" for i in range(400)]
    lines = [json.dumps({"text": document}) + "\n" for document in text]
    (data / "text.jsonl").write_text("".join(lines))
    (part / "text.jsonl").write_text("".join(lines[::4]))
    train_tokenizer(iter(text), 280).save(str(model / "tokenizer.json"))
    (model / "tokenizer_config.json").write_text(json.dumps({"bos_token": END, "eos_token": END}))
    lm, _ = planted_model("layer", count_tokens(iter(text), Tokenizer.from_folder(model), 280))
    save_params(lm.config, lm.params, model / "model.safetensors")
    (model / "config.json").write_text(json.dumps({**lm.hf_config, "max_position_embeddings": 256}))
    return {"model": model, "data": data, "part": part}


@pytest.fixture
def server(folders: dict[str, Path], tmp_path: Path) -> Iterator[Hub]:
    repos = {
        f"models/{PAPER[NAME].model}": {"main": folders["model"]},
        "datasets/owner/text": {"main": folders["part"]},
    }
    with hub(repos, tmp_path / "cache") as server:
        yield server


def run(*arguments: object) -> int:
    """The exit code."""
    with pytest.raises(SystemExit) as stopped:
        reproduce_paper.main(tyro.cli(Reproduce, args=[str(a) for a in arguments]))
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence on standard error, after what the hub's library says of its downloads."""
    said = capsys.readouterr().err
    assert "Traceback" not in said
    sentence = said.splitlines()[-1]
    check_sentence(sentence)
    return sentence


def verdicts(said: str) -> dict[str, str]:
    """Neuron → verdict, of the lines that have one."""
    words = [line.split() for line in said.splitlines()]
    return {line[0]: line[-1] for line in words if line and line[-1] in ("agrees", "differs")}


@pytest.mark.command
def test_named_neurons_that_are_planted_agree(server, folders, tmp_path, capsys, monkeypatch):
    named = dataclasses.replace(
        PAPER[NAME], layer=0, entropy=tuple(PLANTED_ENTROPY), frequency=tuple(PLANTED_FREQUENCY), k=2
    )
    monkeypatch.setitem(PAPER, NAME, named)
    counts = count_tokens(documents(str(folders["data"])), Tokenizer.from_folder(folders["model"]), 280)
    np.save(tmp_path / "counts.npy", counts)
    assert run(NAME, "--data", DATA, "--counts", tmp_path / "counts.npy", "--out", tmp_path / "run") == 0
    said = capsys.readouterr().out
    assert verdicts(said) == {f"0.{n}": "agrees" for n in PLANTED_ENTROPY + PLANTED_FREQUENCY}
    assert "6 of 6 neurons that the paper names agree." in said
    assert "2 of 2 are among the layer's 10 largest rho" in said
    facts = NeuronTable.load(tmp_path / "run").facts
    assert (facts["model"], facts["k"], facts["data"]) == (named.model, 2, DATA)
    assert (facts["counts"], facts["counts_tokens"]) == (str(tmp_path / "counts.npy"), counts.sum())


@pytest.mark.slow
def test_others_differ(server, folders, tmp_path, capsys, monkeypatch):
    """Also: another copy of the model, and no frequency neurons named."""
    server.repos = {"models/owner/copy": {"v1": folders["model"]}}
    monkeypatch.setitem(PAPER, NAME, Named("owner/gone", 0, (PLANTED_ENTROPY[0], PLANTED_FREQUENCY[0])))
    options = ("--data", folders["data"], "--out", tmp_path / "run", "--model", "owner/copy", "--revision", "v1")
    assert run(NAME, *options) == 1
    said = capsys.readouterr().out
    assert verdicts(said) == {f"0.{PLANTED_ENTROPY[0]}": "agrees", f"0.{PLANTED_FREQUENCY[0]}": "differs"}
    assert f"1 of 2 neurons that the paper names agree; these differ: 0.{PLANTED_FREQUENCY[0]}." in said
    assert "Frequency neurons that" not in said
    assert NeuronTable.load(tmp_path / "run").facts["k"] == 1


@pytest.mark.slow
def test_the_neuron_that_cuts_the_entropy_of_repeats_is_compared(server, folders, tmp_path, capsys, monkeypatch):
    """Which one it is, the model says when each candidate's activations are edited."""
    lm = load(str(folders["model"]))
    text = windows(documents(str(folders["data"])), lm.tokenizer, 64 * 101, 101).tokens[:, 1:]
    tokens = repeated(text, lm.bos_id)
    site = "blocks.0.mlp.hook_post"
    h = np.asarray(lm.apply(tokens, capture=[site]).captured[site])

    def entropy(h: np.ndarray) -> float:
        lp = jax.nn.log_softmax(lm.apply(tokens, edits={site: Replace(jnp.asarray(h))}).logits[:, 101:-1])
        return float(-(jnp.exp(lp) * lp).sum(-1).mean())

    cut = {}
    for n in weight_statistics(lm, k=2)["rho"].nlargest(10).index:
        first, second = h[:, 1:101, n], h[:, 101:, n]
        edited = h.copy()
        edited[..., n] = (np.minimum if second.mean() > first.mean() else np.maximum)(h[..., n], first.mean())
        cut[n] = entropy(edited) - entropy(h)
    right, *others = sorted(cut, key=cut.get)

    named = dataclasses.replace(PAPER[NAME], layer=0, entropy=(PLANTED_ENTROPY[0],), frequency=(), k=2, induction=right)
    monkeypatch.setitem(PAPER, NAME, named)
    assert run(NAME, "--data", folders["data"], "--out", tmp_path / "run") == 0
    said = capsys.readouterr().out
    assert "agrees Clipped to their means" in said
    assert "1 of 1 neurons that the paper names agree." in said

    assert not reproduce_paper.repeats(tmp_path / "run", dataclasses.replace(named, induction=others[0]), Console())
    said = capsys.readouterr().out
    assert "differs Clipped to their means" in said
    assert said.index(f"0.{right} by") < said.index(f"0.{others[0]} by")


NOTHING = Named("", 3, (5,))


@pytest.mark.parametrize(
    ("named", "column", "value", "rank", "agrees"),
    [
        (NOTHING, "rho", 0.8, 1, True),
        (NOTHING, "rho", 0.65, 2, True),
        (NOTHING, "rho", 0.4, 2, False),  # not above chance
        (NOTHING, "rho", np.nan, 60, False),
        (NOTHING, "ln_mediated_lo", 0.29, 1, False),
        (NOTHING, "ln_mediated_q", 0.02, 1, False),
        (Named("", 3, (), (8,)), "freq_mediated_lo", 0.14, 1, False),
        (Named("", 3, (), (8,)), "kl_freq_abs_delta", 0.3, 1, True),
        (Named("", 3, (), (8,)), "kl_freq_abs_delta", 0.0, 60, False),
    ],
)
def test_a_neuron_agrees_by_the_rule_of_its_kind(named, column, value, rank, agrees):
    table = planted_table()
    index = (named.entropy + named.frequency)[0]
    table.frame.loc[index, column] = value
    table.frame = table.rules.apply(table.frame)
    row = compared(table, named).loc[f"3.{index}"]
    assert (row["rank"], row["agrees"]) == (rank, agrees)


@pytest.mark.parametrize(
    "changes",
    [{}, {"layer": 0, "entropy": (7,), "frequency": (120,)}, {"layer": 1, "entropy": (7,), "frequency": ()}],
)
def test_a_model_without_the_named_neurons_is_refused_before_its_weights_are_fetched(
    changes, server, tmp_path, capsys, monkeypatch
):
    named = dataclasses.replace(PAPER[NAME], **changes)
    monkeypatch.setitem(PAPER, NAME, named)
    assert run(NAME, "--data", DATA, "--out", tmp_path / "run") == 2
    neuron = f"{named.layer}.{max(named.entropy + named.frequency)}"
    words = f"reproduce_paper: {named.model} has the last layer 0, with 120 neurons, but in {NAME} the paper names "
    words += f"neuron {neuron} "
    assert refusal(capsys).startswith(words)
    assert not any(request.endswith(".safetensors") for request in server.requests)
    assert not (tmp_path / "run").exists()


def test_a_run_is_replaced_only_if_asked(server, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(PAPER, NAME, dataclasses.replace(PAPER[NAME], layer=0, entropy=(7,), frequency=()))
    (tmp_path / "neurons.parquet").touch()
    assert run(NAME, "--data", DATA, "--out", tmp_path) == 2
    assert "exists already" in refusal(capsys)
    assert run(NAME, "--data", "nowhere.txt", "--out", tmp_path, "--force") == 2
    assert "nowhere.txt" in refusal(capsys)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("gpt-2-small", "--data", DATA), "'gpt2-small'"),
        (("gpt2-small", "--data", DATA), "no model openai-community/gpt2"),
        (("gpt2-small", "--data", DATA, "--model", "."), "config.json"),
    ],
)
def test_other_mistakes_are_one_sentence(arguments, words, server, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(*arguments, "--out", tmp_path / "run") == 2
    assert words in refusal(capsys)
    assert not (tmp_path / "run").exists()
