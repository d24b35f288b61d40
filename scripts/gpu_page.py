"""The section of docs/benchmarks.md on accelerators, from the files of scripts/gpu_check.sh.

A step that did not get far enough has no rows.
"""

from collections.abc import Sequence
from typing import Any

Check = dict[str, Any]  # gpu_check.json
REAL = """\
Both engines on SmolLM2's last layer at 64 positions, with 64 neurons and 1,300 of its tokens, of which 128 are summed
exactly; errors are the differences from float64 sums, in nats:"""
SETS = """\
A set of neurons of the last layer, by algebra and by a product of its stream with W_U:"""
LOADING = """\
A model of Llama 2 7B's shape in bfloat16 is loaded from files that were just written. For comparison, the
same files are only read, and as many bytes are only sent to the device:"""


def of_step(check: Check, step: str) -> dict[str, Any]:
    """The result of a step; empty if it has none."""
    return check["steps"].get(step, {}).get("result") or {}


def effects(check: Check) -> list[dict[str, Any]]:
    """The results of the effects steps, as `bench_effects.main` returns them, if they timed all engines."""
    found = [of_step(check, step) for step in check["steps"] if step.startswith("effects-")]
    return [x for x in found if "seconds_adaptive" in x]


def device(check: Check) -> str:
    """The device's name."""
    found = [of_step(check, step) for step in check["steps"]]
    return next((x["device"] for x in found if "device" in x), "unknown device")


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    lines = ["| " + " | ".join(row) + " |" for row in (columns, *rows)]
    return ["", lines[0], "|" + "---|" * len(columns), *lines[1:]]


def section(checks: Sequence[Check]) -> list[str]:
    """How each step ended, and the tables of the steps' results; empty without checks."""
    if not checks:
        return []
    lines = [
        "",
        "## On accelerators",
        "",
        "Each device was measured in one run of `scripts/gpu_check.sh`. Effects and tests multiply float32 matrices in",
        "float32, and training multiplies them in JAX's default precision. Each step has a time limit, within which",
        "its programs are compiled too:",
        *steps(checks),
    ]
    for text, rows in (
        ("These are the device's highest rates, measured beside the effects:", ceilings(checks)),
        (REAL, real_logits(checks)),
        (SETS, sets(checks)),
        (
            "Several models of the preset `tiny`, which differ in their seeds, are trained in one program:",
            training(checks),
        ),
        (LOADING, loading(checks)),
        ("Outcomes of the tests that are marked `device`:", outcomes(checks)),
    ):
        lines += ["", text, *rows] if rows else []
    return lines


def steps(checks: Sequence[Check]) -> list[str]:
    rows = [
        (device(check), name, step["ended"], f"{step['seconds']:,.0f} s", f"{step['limit']:,.0f} s")
        for check in checks
        for name, step in check["steps"].items()
    ]
    return table(("device", "step", "ended", "after", "limit"), rows)


def ceilings(checks: Sequence[Check]) -> list[str]:
    rows = [
        (x["device"], x["shape"], f"{x['exponentials_per_second']:.3g}", f"{x['bytes_per_second'] / 1e9:,.0f} GB/s")
        for check in checks
        for x in (of_step(check, step) for step in check["steps"])
        if "exponentials_per_second" in x
    ]
    return table(("device", "shape", "exponentials per second", "bytes copied"), rows)


def real_logits(checks: Sequence[Check]) -> list[str]:
    rows = []
    for check in checks:
        found = of_step(check, "real-logits")
        for x in found.get("rows", []):
            errors = (f"{value:.1g}" for value in (x["error_max"], x["bound_max"], found["error_exact"]))
            rows.append((found["device"], f"{x['tolerance']:g}", *errors, f"{x['redone']:.1%}"))
    return table(("device", "tolerance", "largest error", "largest bound", "error, exact engine", "redone"), rows)


def sets(checks: Sequence[Check]) -> list[str]:
    rows = []
    for check in checks:
        x = of_step(check, "sets")
        if "difference" in x:
            sizes = (f"{x[name]:,}" for name in ("width", "vocabulary", "positions", "members"))
            times = (f"{x[name] * 1e3:,.1f} ms" for name in ("seconds_algebra", "seconds_products"))
            rows.append((x["device"], *sizes, *times, f"{x['difference']:.1g}"))
    columns = ("width", "vocabulary", "positions", "neurons of a set", "algebra", "product", "difference, nats")
    return table(("device", *columns), rows)


def training(checks: Sequence[Check]) -> list[str]:
    rows = []
    for check in checks:
        found = of_step(check, "seeds")
        one = next((x["seconds_per_step"] for x in found.get("rows", []) if x["seeds"] == 1), float("nan"))
        for x in found.get("rows", []):
            took, rate = x["seconds_per_step"], x["tokens_per_second"]
            row = (f"{x['seeds']}", f"{took * 1e3:,.1f} ms", f"{took / one:.2f}", f"{rate:,.0f}")
            rows.append((found["device"], *row))
    return table(("device", "seeds", "a step", "times a step of one", "tokens per second"), rows)


def loading(checks: Sequence[Check]) -> list[str]:
    rows = []
    for check in checks:
        found = of_step(check, "load")
        for x in found.get("rows", []):
            seconds = (x["seconds"], x["seconds_reading"], x["bytes"] / found["sent_per_second"])
            row = (f"{x['layers']}", f"{x['bytes'] / 1e9:,.2f} GB", *(f"{s:,.2f} s" for s in seconds))
            rows.append((found["device"], *row))
    return table(("device", "layers", "weights", "loading", "reading alone", "sending alone"), rows)


def outcomes(checks: Sequence[Check]) -> list[str]:
    rows = []
    for check in checks:
        if found := of_step(check, "tests"):
            passed, failed = found["passed"], len(found["failed"])
            rest = found["collected"] - passed - failed
            rows.append((device(check), f"{passed}", f"{failed}", f"{rest}"))
    return table(("device", "passed", "failed", "not run"), rows)
