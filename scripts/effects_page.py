"""docs/benchmarks.md, from what bench_effects.py, bench_layers.py and bench_sets.py --json and gpu_check.sh write."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gpu_page
from bench_model import STEPS

Column = tuple[str, Callable[[dict[str, Any]], str]]
"""A table's column: its head, and the text of its cell for a run."""

BEGIN = """# Benchmarks

Written by `python scripts/bench_effects.py --page docs/benchmarks.md FILES`. The docstring of that script says how the
inputs are drawn and what is timed. Every row is one run, in which all engines get the same inputs and compute the same
metrics. Entropies, tolerances, errors and bounds are in nats."""
ERRORS = """\
An error is the difference of the adaptive engine from the exact one, over all positions, neurons and metrics in nats.
`redone` is the share of the pairs of a position and a neuron that the adaptive engine computed again with every token.
`memory` is what an engine needs beside its inputs. `exponentials` is the share of the device's highest rate of
exponentials that the exact engine reached."""
LAYERS = "bench_layers"  # the marker of the section on layers below the last one
OF_LAYERS = """\
Written by `scripts/bench_layers.py`, whose docstring says what is timed. Both sides ablate the same neurons, one by
one, and compute the same metrics. The times are for one neuron. In TransformerLens the whole model runs with a hook
on the neuron; in jaxconf only the layers above run. `Δ loss` is the mean change of the loss, without its sign. The
difference is the largest one between the two sides at a position that analyses keep. Both are in nats. `unchanged`
is the share of all pairs of a position and a neuron of the layer whose activation changes the stream by less than
1e-6 of its length, and `from the start` that of the pairs that no larger change precedes in the window. Only those
could be left out of the re-runs, which leave none out."""
SHARES = """\
The models' last layers at positions of a text. Beside the time of a forward pass over about as many tokens, each step's
share in the time of all operations of the engine, from a profile of one run. An analysis runs as many positions
together as the memory allows, and makes the products of neurons and W_U once for all of them."""

SETS = "bench_sets"  # the marker of the section on neuron sets
OF_SETS = """\
Written by `scripts/bench_sets.py`, whose docstring says what is timed. The times are for one set of random neurons.
With whole logits, its ablated stream is multiplied by W_U once for all effects. The difference is the largest one in a
loss or an entropy between the two sides at any position, in nats."""


def page(files: Sequence[Path]) -> str:
    """docs/benchmarks.md."""
    found = [json.loads(file.read_text()) for file in files]
    checks = [x for x in found if "steps" in x]
    rows, grown = [x for x in found if "shape" in x], [x for x in found if "start" in x]
    devices = {x["device"] for x in found if "device" in x} | {gpu_page.device(check) for check in checks}
    rows += [x for check in checks for x in gpu_page.effects(check)]
    on_cpu = all("cores" in name for name in devices)
    no_accelerator = " No accelerator was measured." if on_cpu else ""
    text = [BEGIN, "", "Machines: " + "; ".join(sorted(devices)) + "." + no_accelerator]
    text += ["", "## Effects of every neuron of the last layer", "", *_table(TIMES, rows)]
    text += ["", ERRORS, "", *_table(ACCURACY, rows), *_where_time_goes(rows)]
    if of_layers := [x for x in found if "seconds_hooks" in x]:
        between = [f"<!-- {LAYERS} -->", "", layers(of_layers), "", f"<!-- end of {LAYERS} -->"]
        text += ["", "## Effects of neurons below the last layer", "", *between]
    text += gpu_page.section(checks)
    for x in grown:
        text += _growth(x)
    if of_sets := [x for x in found if "seconds_losses_whole" in x]:
        text += ["", "## Neuron sets of the last layer", "", f"<!-- {SETS} -->", "", sets(of_sets), ""]
        text += [f"<!-- end of {SETS} -->"]
    return "\n".join(text) + "\n"


def layers(rows: Sequence[dict[str, Any]]) -> str:
    """What stands between the markers of the section on layers below the last one."""
    rows = sorted(rows, key=lambda x: (x["model"], x["layer"]))
    return "\n".join([OF_LAYERS, "", *_table(OF_A_NEURON, rows)])


def sets(rows: Sequence[dict[str, Any]]) -> str:
    """What stands between the markers of the section on neuron sets."""
    lines = [(x, name) for x in rows for name in OF_A_SET]
    columns: list[tuple[str, Callable[[Any], str]]] = [
        ("model", lambda of: of[0]["model"]),
        ("neurons", lambda of: f"{of[0]['size']}"),
        ("positions", lambda of: f"{of[0]['set_positions']}"),
        ("result", lambda of: OF_A_SET[of[1]]),
        ("whole logits", lambda of: f"{of[0][f'seconds_{of[1]}_whole']:.2f} s"),
        ("by algebra", lambda of: f"{of[0][f'seconds_{of[1]}']:.3f} s"),
        ("ratio", lambda of: f"{of[0][f'ratio_{of[1]}']:.1f}"),
        ("difference", lambda of: f"{of[0]['error']:.1g}"),
        ("device", lambda of: of[0]["device"]),
    ]
    return "\n".join([OF_SETS, "", *_table(columns, lines)])


def _table(columns: Sequence[tuple[str, Callable[[Any], str]]], rows: Sequence[Any]) -> list[str]:
    heads = " | ".join(head for head, _ in columns)
    lines = [" | ".join(says(row) for _, says in columns) for row in rows]
    return [f"| {heads} |", "|---" * len(columns) + "|", *(f"| {line} |" for line in lines)]


def _where(x: dict[str, Any]) -> str:
    """The shape of a row's model, and the device if it is an accelerator."""
    return x["shape"] if "cores" in x["device"] else f"{x['shape']}, {x['device']}"


def _where_time_goes(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The section on the adaptive engine's steps, if models were timed."""
    profiled = [x for x in rows if "shares" in x]
    if not profiled:
        return []
    steps: list[Column] = [
        (STEPS.get(name, name), lambda x, name=name: f"{x['shares'][name]:.0%}") for name in profiled[0]["shares"]
    ]
    columns = [("model", _where), ("forward pass", lambda x: f"{x['seconds_forward']:.2f} s"), *steps]
    return ["", "## Where the adaptive engine's time goes", "", SHARES, "", *_table(columns, profiled)]


def _growth(x: dict[str, Any]) -> list[str]:
    """The section on how the exact engine's time grows with each size."""
    start = ", ".join(f"{name} = {value:,}" for name, value in x["start"].items())
    lines = ["", f"## How the exact engine's time grows ({x['device']})", ""]
    lines += [f"In each row one size changes, and the others are {start}.", "", "| size | seconds |", "|---|---|"]
    for name in x["start"]:
        sizes = ", ".join(f"{int(value):,}" for value in x[name])
        lines.append(f"| {name} = {sizes} | {', '.join(f'{took:.2f}' for took in x[name].values())} |")
    return lines


TIMES: tuple[Column, ...] = (
    ("shape", _where),
    ("logits", lambda x: x["logits"]),
    ("positions", lambda x: f"{x['positions']}"),
    ("tolerance", lambda x: f"{x['tolerance']:g}"),
    ("naive", lambda x: f"{x['seconds_naive']:,.0f} s"),
    ("naive, PyTorch", lambda x: f"{x['seconds_naive_torch']:,.0f} s" if "seconds_naive_torch" in x else ""),
    ("exact", lambda x: f"{x['seconds_exact']:.1f} s"),
    ("adaptive", lambda x: f"{x['seconds_adaptive']:.1f} s"),
    ("naive / exact", lambda x: f"{x['ratio_exact']:.0f}"),
    ("naive / adaptive", lambda x: f"{x['ratio_adaptive']:.0f}"),
)
ACCURACY: tuple[Column, ...] = (
    ("shape", _where),
    ("logits", lambda x: x["logits"]),
    ("entropy", lambda x: f"{x['entropy']:.2f}"),
    ("tolerance", lambda x: f"{x['tolerance']:g}"),
    ("mean error", lambda x: f"{x['error_mean']:.1g}"),
    ("largest error", lambda x: f"{x['error_max']:.1g}"),
    ("largest bound", lambda x: f"{x['bound_max']:.1g}"),
    ("redone", lambda x: f"{x['redone']:.1%}"),
    ("memory, exact", lambda x: f"{x['memory_exact'] / 1e9:.2f} GB"),
    ("memory, adaptive", lambda x: f"{x['memory_adaptive'] / 1e9:.2f} GB"),
    ("exponentials", lambda x: f"{x['exact_share_of_exponentials']:.0%}"),
)
OF_A_NEURON: tuple[Column, ...] = (
    ("model", lambda x: x["model"]),
    ("layer", lambda x: f"{x['layer']} of {x['layers']}"),
    ("windows × tokens", lambda x: f"{x['windows']} × {x['length']}"),
    ("TransformerLens", lambda x: f"{x['seconds_hooks']:.2f} s"),
    ("jaxconf", lambda x: f"{x['seconds_reruns']:.2f} s"),
    ("ratio", lambda x: f"{x['ratio']:.1f}"),
    ("Δ loss", lambda x: f"{x['loss_abs_delta']:.1g}"),
    ("difference", lambda x: f"{x['error']:.1g}"),
    ("unchanged", lambda x: f"{x['unchanged']:.2%}"),
    ("from the start", lambda x: f"{x['unchanged_from_the_start']:.2%}"),
    ("device", lambda x: x["device"]),
)
OF_A_SET = {"losses": "loss and entropy, also with the norm frozen", "changes": "all metrics of the three effects"}
"""What is timed for a set, and what it is called."""
