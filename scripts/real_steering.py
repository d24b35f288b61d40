"""Measures which handle calibrates best, on the bundled model and a real one, and puts it into docs/steering.md.

    python scripts/real_steering.py --model FOLDER --text FILE --set 29.830,29.1022

The model is in Hugging Face layout; the set is of its neurons. It is steered at temperature 0.7, and as it is. The sets
of the bundled model are those that its analysis names.
"""

import dataclasses
import tempfile
from pathlib import Path

import tyro
from bench_output import write
from plan_tables import between
from real_models import markdown

import jaxconf
from jaxconf.cli.common import speaking
from jaxconf.measure.neuron_sets import read_sets
from jaxconf.report.style import save_figures
from jaxconf.results.words import number
from jaxconf.studies.steering.figures import FIGURES
from jaxconf.studies.steering.sentences import sentences
from jaxconf.studies.steering.study import Steering

PAGE = Path(__file__).parents[1] / "docs" / "steering.md"
MEASURES = ("ece", "loss", "entropy", "accuracy")


@dataclasses.dataclass(frozen=True)
class Describe:
    """Measure the models, and write the sections of docs/steering.md."""

    model: Path
    """the folder of the real model"""
    text: Path
    """its text"""
    set: str
    """its neurons, such as 29.830,29.1022"""
    tokens: int = 8192
    """tokens of each text"""


def section(found: Steering) -> list[str]:
    facts, best = found.facts, found.best[found.best["kind"] != "random"]
    heads = [
        "treatment",
        "dose",
        *(f"{name} (change)" for name in MEASURES),
        "written: entropy",
        "written: loss, as loaded",
    ]
    text, rows = found.text.set_index("treatment"), []
    for row in best.to_dict("records"):
        cells = [f"{number(row[name])} ({row[f'{name}_change']:+.3f})" for name in MEASURES]
        of = text.loc[row["treatment"]]
        rows.append(
            [row["treatment"], f"{row['dose']:.3g}", *cells, number(of["entropy"]), number(of["loss_as_loaded"])]
        )
    plain = text.loc["unsteered"]
    rows.append(["(unsteered)", "", *[""] * len(MEASURES), number(plain["entropy"]), number(plain["loss_as_loaded"])])
    of_text = f"{facts['tokens']:,} tokens of {Path(facts['data']).name}, {facts['positions']:,} kept positions"
    return [
        f"### {facts['model']}, temperature {facts['model_temperature']:g}",
        "",
        f"{of_text}, {facts['controls']} random sets. Sets: "
        f"{'; '.join(f'{name}: {neurons}' for name, neurons in facts['sets'].items())}. Nats.",
        "",
        *markdown(heads, rows),
        "",
        *(f"* {said}" for said in sentences(found)),
        "",
    ]


def main(how: Describe) -> None:
    lm, bundled = jaxconf.load(how.model), jaxconf.load("bundled")
    with speaking("tokens", False) as (_, progress), tempfile.TemporaryDirectory() as folder:
        jaxconf.analyze(bundled, how.tokens, progress=progress).save(folder)
        of_bundled = jaxconf.steer(bundled, how.tokens, run=folder, facts={"model": "bundled"}, progress=progress)
        of_real = [
            jaxconf.steer(
                lm,
                how.tokens,
                data=str(how.text),
                sets=read_sets([how.set]),
                temperature=temperature,
                facts={"model": how.model.name},
                progress=progress,
            )
            for temperature in (0.7, 1.0)
        ]
    page = between(PAGE.read_text("utf-8"), "bundled", "\n".join(section(of_bundled)).strip())
    write(PAGE, between(page, "real_steering", "\n".join(line for of in of_real for line in section(of)).strip()))
    for name, found in (("bundled", of_bundled), ("real", of_real[0])):
        save_figures({f"steering_{name}": FIGURES["steer_doses"]}, found, PAGE.parent / "figures")


if __name__ == "__main__":
    main(tyro.cli(Describe))
