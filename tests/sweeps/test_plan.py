"""What `jaxconf sweep --plan` expects against what is held, what XLA plans and counts, and what small runs take.

Also the scripts that use it.
"""

import dataclasses
import functools
import math
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import check_plan
import jax
import jax.numpy as jnp
import plan_tables
import pytest
from commands import SCRIPTS, options_of, refusal, script
from meshes import on_mesh
from parameters import marked
from plans import MEDIUM, MEMORY, ONE, array, config_of, folder_of, frequencies, planned, reran, used
from random_models import random_model
from refusals import check_error

from jaxconf.analysis.ablated_logits import PostNorm
from jaxconf.analysis.activations import activations
from jaxconf.analysis.adaptive_tail import Block
from jaxconf.analysis.effects import Adaptive, effects
from jaxconf.analysis.rerun import Frozen
from jaxconf.analysis.unembedding import Readout, readout
from jaxconf.cli import main
from jaxconf.cli.main import COMMANDS
from jaxconf.measure.last_layer import group_of_a_device, rows_together
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import abstract_params
from jaxconf.models.errors import InputError
from jaxconf.runtime import placement
from jaxconf.sweeps.definition import read_sweep
from jaxconf.sweeps.estimate import SMALL, Devices, sets_again
from jaxconf.sweeps.plan import Need, needs

pytestmark = pytest.mark.usefixtures("compiled_quickly")


@pytest.mark.parametrize(("kind", "mesh"), [("layer", (1, 1)), ("rms", (1, 4)), ("layer", (2, 2)), ("capped", (1, 8))])
def test_weights_are_those_that_a_device_holds(kind: str, mesh: tuple[int, int]) -> None:
    lm = on_mesh(random_model(kind), *mesh)
    found = planned(lm.config, dataclasses.replace(ONE, count=math.prod(mesh)), sizes=mesh)
    first = lm.mesh.devices.flat[0]
    held = [
        shard.data.nbytes
        for leaf in jax.tree.leaves(lm.params)
        for shard in leaf.addressable_shards
        if shard.device == first
    ]
    assert found.weights == sum(held)
    assert found.unembedding == readout(lm.config, lm.params).W_U.nbytes
    assert found.mesh == mesh


def test_the_mesh_is_that_on_which_the_model_is_put(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(num_attention_heads=8)
    for model in (1, 2, 4, 8):
        memory = placement.bytes_needed(config, model)
        monkeypatch.setattr(placement, "memory_of_a_device", lambda memory=memory: memory)
        mesh = placement.placement(config)
        found = planned(config, Devices(8, memory, 1.0, 1.0))
        assert found.mesh == (mesh.shape["data"], mesh.shape["model"]) == (8 // model, model)
        assert found.held == memory
    assert planned(config, Devices(8, 1, 1.0, 1.0)).mesh == (1, 8)  # which is still too little
    check_error(
        lambda: planned(config, dataclasses.replace(ONE, count=4), sizes=(3, 2)),
        "data=3,model=2 has 6 devices",
        "plan is for 4",
    )


@pytest.mark.parametrize(
    ("kind", "adaptive"),
    marked([("llama", False), ("llama", True), ("gemma2", False), ("gemma2", True)], quick=[("llama", False)]),
)
def test_the_engines_take_what_is_planned(kind: str, adaptive: bool) -> None:
    """By XLA's own plan: a tenth more at most, and no less than a quarter."""
    config = config_of(kind, **({"head_dim": 64, "num_key_value_heads": 1} if kind == "gemma2" else {}))
    config = dataclasses.replace(config, logit_softcap=None)
    d, N, V = config.d_model, config.d_mlp, config.vocab_size
    group, rows = group_of_a_device(config, 64, 16, MEMORY, adaptive)
    rows = rows_together(group * 60, rows, adaptive)
    assert 1 < rows <= group * 64
    readout = Readout(array(d, V), array(V), array(N, d), array(N, d), 1.0)
    how = Adaptive(1e-4, (array(8, dtype=jnp.int32), array(64, dtype=jnp.int32))) if adaptive else None
    post = PostNorm(array(rows, d), array(rows, 1)) if kind == "gemma2" else None
    rest = array(rows, d), array(rows, N), array(rows, dtype=jnp.int32), array(group, rows), post, how
    compiled = jax.jit(functools.partial(effects, config)).lower(readout, frequencies(V), *rest).compile()
    working = planned(config, adaptive=adaptive).working
    assert working / 4 < used(compiled) < 1.1 * working <= 1.1 * MEMORY


def test_layers_that_run_again_take_what_is_planned() -> None:
    config, sets, compiled = reran("final")
    working = planned(config, layers=[0], tokens=64).working
    assert sets > 3
    assert working / 4 < used(compiled) < 1.1 * working <= 1.1 * MEMORY


@pytest.mark.parametrize("kind", ["llama", "gpt_neox"])
def test_operations_of_a_pass_are_those_that_xla_counts(kind: str) -> None:
    config = config_of(kind)
    tokens = array(16, 64, dtype=jnp.int32)
    for layer in (0, 2):
        counted: Any = activations.lower(config, abstract_params(config), tokens, layer).cost_analysis()
        expected = planned(config).seconds_forward * (layer + 1) / 3
        assert 0.9 < counted["flops"] / expected < 1.2


@pytest.mark.parametrize("frozen", ["final", "all"])
def test_operations_of_layers_that_run_again_are_those_that_xla_counts(frozen: Frozen) -> None:
    """XLA counts a loop once, so all of the vocabulary is one block; and it counts the logits' maxima, which only a
    second attempt at the sums needs."""
    config, sets, compiled = reran(frozen, MEDIUM["vocab_size"])
    counted: Any = compiled.cost_analysis()
    one = planned(config, layers=[], again=[(0, sets)], frozen=frozen, tokens=64)
    maxima = sets * 64 * 2 * config.d_model * config.vocab_size * (1 if frozen == "final" else 2)
    assert 0.95 < SMALL * (counted["flops"] - maxima) / one.seconds < 1.2


@pytest.mark.parametrize("cap", [None, 30.0])
@pytest.mark.parametrize("post", [False, True])
def test_the_adaptive_engine_forms_as_many_products(post: bool, cap: float | None) -> None:
    T, v = 3, 5
    tail, offsets, of_rows = array(T, v), [array(v)] * 3, [array(T, 1)] * 2

    def factors(of: Callable[[Block], Any]) -> int:
        """How many arrays it has for a block."""
        found = jax.eval_shape(
            lambda *block: of(Block.of(*block, cap)), tail, tail if post else None, offsets, *of_rows
        )
        return len(jax.tree.leaves(found))

    linear, squares = factors(Block.along), factors(Block.squares)
    norm = {"model_type": "gemma2", "head_dim": 64, "num_key_value_heads": 1} if post else {"model_type": "llama"}
    config = dataclasses.replace(config_of(**norm), logit_softcap=cap)
    adaptive, exact = (planned(config, adaptive=how, memory=2 * MEMORY) for how in (True, False))
    operations = adaptive.seconds_effects - exact.seconds_effects
    of_a_position = linear * config.d_model + squares * config.d_mlp
    positions = operations / (SMALL * 2 * config.vocab_size * of_a_position)
    # No fewer than there are, and few that only fill blocks.
    assert 16 * 60 <= positions < 20 * 60


@pytest.mark.parametrize(
    ("adaptive", "rates"), [(False, (math.inf, 1.0)), (True, (math.inf, 1.0)), (True, (1.0, math.inf))]
)
def test_time_grows_with_what_is_asked(adaptive: bool, rates: tuple[float, float]) -> None:
    devices = Devices(1, math.inf, *rates)
    config, twice = (config_of(vocab_size=2**15, hidden_size=64, intermediate_size=N) for N in (4096, 8192))

    def seconds(config: DecoderConfig, devices: Devices = devices, **how: Any) -> float:
        return planned(config, devices, adaptive=adaptive, memory=10**12, **how).seconds_effects

    assert seconds(config, tokens=2048) == pytest.approx(2 * seconds(config), rel=0.15)
    assert seconds(twice) == pytest.approx(2 * seconds(config), rel=0.15)
    assert seconds(config, layers=[2, 2]) == 2 * seconds(config)
    assert seconds(config, dataclasses.replace(devices, count=8), sizes=(8, 1)) == pytest.approx(
        seconds(config) / 8, rel=0.15
    )
    assert seconds(config, layers=[0], tokens=2048) == 2 * seconds(config, layers=[0])
    assert seconds(config, layers=[], again=[(0, 20)]) == 2 * seconds(config, layers=[], again=[(0, 10)])
    assert seconds(
        config, layers=[], again=sets_again([[(1, 3)], [(2, 5), (0, 2)]], 20, [(1, 1), (1, 2)])
    ) == pytest.approx(sum(seconds(config, layers=[], again=[one]) for one in ((1, 21), (0, 21), (1, 2))))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "change"),
    [
        (check_plan.LAST, {"tokens": 2048}),
        (check_plan.LAST, {"N": 1024}),
        (check_plan.WIDE, {"tokens": 2048}),
        (check_plan.BELOW, {"tokens": 1024}),
    ],
)
@pytest.mark.usefixtures("compiled_well")
def test_runs_grow_as_expected(start: dict[str, int], change: dict[str, int]) -> None:
    """The time itself, and what a change does to it, in seconds of the processor, which other work hardly affects."""
    alone, more = check_plan.measured(start), check_plan.measured(start | change)
    factors = [x.measured / x.expected for x in (alone, more)]
    assert 1 / 4 < min(factors) < max(factors) < 4
    assert 1 / 1.6 < factors[1] / factors[0] < 1.6


def test_a_sweep_is_planned_without_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)
    large = folder_of(tmp_path / "large", plan_tables.SHAPES["meta-llama/Llama-2-7b-hf"])
    file = tmp_path / "sweep.toml"
    lists = f"models = ['bundled', '{large}']\nablations = ['mean', 'zero']\nlayers = ['last', 0]\n"
    file.write_text(f"{lists}[options]\ntokens = 1024\n")
    rates = ["--flops", "1e12", "--exponentials", "1e10"]
    main(["sweep", str(file), "--plan", "--devices", "2", "--device-memory", "16GB", *rates])
    said = capsys.readouterr().out
    assert re.findall(r"(bundled|large) +(last|0) +2 +(exact|adaptive|reruns)", said) == [
        ("bundled", "last", "exact"),
        ("bundled", "0", "exact"),  # its only layer
        ("large", "last", "adaptive"),
        ("large", "0", "reruns"),
    ]
    assert len(re.findall(r"large +\w+ +1×2 +13\.5 GB +0\.5 GB", said)) == 2
    assert re.search(r"total +8 ", said)
    assert "2 devices of 16.0 GB, each of which does 1e+12 operations and 1e+10 exponentials" in said
    assert "large may take" in said
    assert "bundled may" not in said
    main(["sweep", str(file), "--plan", "--devices", "1", "--device-memory", "16GB", *rates])
    said = capsys.readouterr().out
    assert "large needs 27.5 GB on each of 1 devices, with its weights split 1 ways, and each has 16.0 GB" in said
    assert {path.name for path in tmp_path.iterdir()} == {"large", "sweep.toml"}  # no folder for the sweep


def test_cells_whose_model_cannot_be_read_need_an_unknown_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They do not keep the other revisions of the model from being estimated."""
    asked: list[tuple[str, str | None]] = []

    def read(model: str, revision: str | None, accept: tuple[str, ...]) -> DecoderConfig:
        asked.append((model, revision))
        if revision == "wrong" or model == "missing":
            raise InputError("there is no such revision")
        return config_of()

    monkeypatch.setattr("jaxconf.sweeps.plan.config_of", read)
    cells: dict[str, dict[str, Any]] = {
        "a": {"model": "of/hub", "revision": "wrong", "mesh": "data=4"},
        "b": {"model": "of/hub", "revision": "wrong"},
        "c": {"model": "of/hub", "revision": "right"},
        "d": {"model": "of/hub", "revision": "other"},
        "e": {"model": "missing"},
    }
    found = needs(cells)
    assert found["a"] == Need(0, 4, math.inf)
    assert found["b"] == found["e"] == Need(0, 1, math.inf)
    assert found["c"] == found["d"]
    assert 0 < found["c"].seconds < math.inf
    assert asked == [("of/hub", "wrong"), ("of/hub", "right"), ("missing", None)]


def test_wrong_plans_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rates = ["--flops", "1e12", "--exponentials", "1e10"]
    for text, arguments, words in (
        ("", ["--devices", "2"], "--plan"),
        ("", ["--plan", "--status"], "--status shows"),
        ("", ["--plan", "--devices", "0", *rates], "--devices is 0"),
        ("", ["--plan", "--flops", "1e12"], "--exponentials is not given; give both"),
        ("", ["--plan", "--flops", "0", "--exponentials", "1"], "--flops is 0"),
        ("", ["--plan", "--device-memory", "much", *rates], "--device-memory is 'much'"),
        ("layers = [7]", ["--plan", *rates], "bundled: layer is 7"),
        ("[options]\nmesh = 'data=3'", ["--plan", "--devices", "4", *rates], "has 3 devices and the plan is for 4"),
        ("[options]\nset = ['9.1']", ["--plan", *rates], "no neuron 9.1"),
        ("revisions = ['main']", ["--plan", *rates], "no revisions"),
    ):
        (tmp_path / "sweep.toml").write_text("models = ['bundled']\n" + text)
        assert words in refusal(capsys, "sweep", "sweep.toml", *arguments)


README = SCRIPTS / "README.md"


def test_the_readme_names_every_script_and_has_the_tables_of_now() -> None:
    text = README.read_text()
    assert all(f"`{file.name}`" in text for file in SCRIPTS.iterdir() if file.suffix in (".py", ".sh"))
    assert plan_tables.written(text) == text


def test_the_readme_sweeps_can_be_read(tmp_path: Path) -> None:
    for toml in plan_tables.tomls(README.read_text()):
        (tmp_path / "sweep.toml").write_text(toml)
        cells = read_sweep(tmp_path / "sweep.toml")
        assert {cell["model"] for cell in cells.values()} <= plan_tables.SHAPES.keys()


def test_the_readme_commands_have_their_options() -> None:
    lines = [
        line.strip()
        for line in README.read_text().splitlines()
        if line.startswith("    ") and re.search(r"jaxconf |scripts/", line)
    ]
    seen = set()
    for line in lines:
        words = shlex.split(line)
        for word in words:
            if word.startswith("scripts/"):
                assert (SCRIPTS.parent / word).is_file()
        if "jaxconf" not in words:
            continue
        at = words.index("jaxconf") + 1
        name = "sweep-report" if words[at : at + 2] == ["sweep", "report"] else words[at]
        options = {word[2:].replace("-", "_") for word in words[at:] if word.startswith("--")}
        assert options <= options_of(COMMANDS[name])
        seen |= {name}
    assert seen >= {"analyze", "sweep", "sweep-report"}


def test_a_pod_runs_the_command_on_every_host() -> None:
    said = script("tpu_pod.sh", "my pod", "zone-a", "--", "jaxconf", "analyze", "a model", "--out", "x;y").stdout
    *gcloud, remote = shlex.split(said)
    assert gcloud == [
        "gcloud",
        "compute",
        "tpus",
        "tpu-vm",
        "ssh",
        "my pod",
        "--zone",
        "zone-a",
        "--worker=all",
        "--command",
    ]
    assert shlex.split(remote) == ["jaxconf", "analyze", "a model", "--out", "x;y", "--coordinator", "auto"]
    for wrong in ([], ["pod", "zone"], ["pod", "zone", "--"], ["pod", "zone", "jaxconf", "analyze"]):
        refused = script("tpu_pod.sh", *wrong)
        assert (refused.returncode, refused.stdout) == (2, "")
        assert "usage: " in refused.stderr
