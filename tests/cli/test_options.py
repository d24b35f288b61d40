"""The options of the commands beside the arguments of the functions that they call."""

import inspect
from collections.abc import Callable
from typing import Any, get_args, get_type_hints

import pytest
from commands import defaults_of, options_of

import jaxconf
from jaxconf.analysis.ablation import Ablation
from jaxconf.analysis.kinds import Kind
from jaxconf.analysis.rerun import Frozen
from jaxconf.analysis.unembedding import Convention
from jaxconf.cli.main import COMMANDS
from jaxconf.measure.groups import HeadAblation
from jaxconf.measure.last_layer import Engine
from jaxconf.measure.options import AnalyzeOptions
from jaxconf.runtime.memory import read_size
from jaxconf.sweeps.definition import KNOWN

CALLED: dict[str, Callable[..., Any]] = {
    "analyze": jaxconf.analyze,
    "induction": jaxconf.induction,
    "compare": jaxconf.compare,
    "universal": jaxconf.universal,
    "copying": jaxconf.copying,
    "carry": jaxconf.carry,
    "tasks": jaxconf.tasks,
    "steer": jaxconf.steer,
    "unigram": jaxconf.unigram,
    "sweep": jaxconf.sweep,
    "track": jaxconf.track,
}


@pytest.mark.parametrize("name", CALLED)
def test_a_command_and_its_function_have_the_same_defaults(name: str) -> None:
    options = defaults_of(COMMANDS[name])
    if "memory" in options:
        options["memory"] = read_size(options["memory"], "--memory")
    if "ablation" in options:
        options["ablation"] = Ablation(options["ablation"])
    parameters = inspect.signature(CALLED[name]).parameters
    shared = options.keys() & parameters.keys()
    assert len(shared) >= 3
    different = {option for option in shared if parameters[option].default != options[option]}
    assert {option for option in different if parameters[option].default is not inspect.Parameter.empty} == set()


def test_what_depends_on_the_frequency_direction_takes_counts() -> None:
    """The others measure nothing that depends on it; the option of a sweep is in its file."""
    taking = {name for name, command in COMMANDS.items() if "counts" in options_of(command)}
    assert taking == {"analyze", "universal", "track", "train"}
    assert "counts" in KNOWN


def test_choices_are_those_of_the_functions() -> None:
    hints = get_type_hints(AnalyzeOptions)
    for option, kinds in (
        ("ablation", Kind),
        ("head_ablation", HeadAblation),
        ("convention", Convention),
        ("frozen", Frozen),
        ("engine", Engine),
    ):
        assert get_args(hints[option]) == get_args(kinds)


def test_what_shows_its_progress_can_be_quiet() -> None:
    quick = {"sweep-report", "report", "models", "export", "doctor", "completion"}
    assert {name for name, command in COMMANDS.items() if "quiet" in options_of(command)} == COMMANDS.keys() - quick


def test_every_command_can_answer_in_json() -> None:
    assert all("json" in options_of(command) for command in COMMANDS.values())
