"""Draws the pictures of docs/gallery.md and of the README from finished runs, and writes what they show.

    python scripts/gallery.py --toy FOLDER --bundled FOLDER --smollm2 FOLDER --gemma FOLDER

No model is run. The toy is a folder of `jaxconf train`, the others are run folders of `jaxconf analyze`. The gallery
names the commands that make them.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import tyro
from matplotlib.figure import Figure
from PIL import Image
from plan_tables import between

from jaxconf.models.errors import InputError, listed
from jaxconf.models.files import replacing
from jaxconf.report.optimum_figures import optimum_sets
from jaxconf.report.shown import title
from jaxconf.report.style import DOTS
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.optimum import ABLATED, ABLATED_FROZEN, UNABLATED
from jaxconf.results.run_folder import OPTIMUM
from jaxconf.results.words import model_title, number
from jaxconf.training.emergence import Emergence
from jaxconf.training.events import by_level
from jaxconf.training.figures import emergence_rho, emergence_spectrum
from jaxconf.training.findings import above_chance, over_steps
from jaxconf.training.optimum_figures import emergence_optimum

TOP = Path(__file__).parents[1]
PAGE, PICTURES, README = TOP / "docs" / "gallery.md", TOP / "docs" / "figures", TOP / "README.md"
COLOURS = 128  # of a picture: a palette makes it a third as large, and no eye sees the difference
MARK = "picture"


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Draw the gallery and the README's picture."""

    toy: Path
    """a training run of the noise world, tracked with effects: `jaxconf train --out DIR`"""
    bundled: Path
    """`jaxconf analyze bundled --out DIR`"""
    smollm2: Path
    """`jaxconf analyze HuggingFaceTB/SmolLM2-135M-Instruct --out DIR`"""
    gemma: Path
    """`jaxconf analyze google/gemma-3-270m --out DIR`"""


class Picture(NamedTuple):
    """`name`: of the file. `shows`: a sentence or two, which say what is seen."""

    name: str
    heading: str
    draw: Callable[[], Figure]
    shows: str


def of_toy(folder: Path) -> tuple[str, list[Picture]]:
    run = Emergence.load(folder)
    e = dataclasses.replace(run, facts=run.facts | {"model": "toy of the noise world"})
    met, rho, levels = over_steps(e, "is_entropy_neuron"), over_steps(e, "rho"), by_level(e)
    if levels is None:
        raise InputError(f"{folder} is no run of a world with levels of noise; make one with `jaxconf train`")
    named = list(rho.iloc[-1][met.iloc[-1]].sort_values(ascending=False).index)
    before = int(above_chance(e).iloc[0].sum())
    first, smallest = met.index[met.any(axis=1)][0], e.singular_values[:, -1] / e.singular_values[:, -2]
    text = (
        f"A decoder of {e.facts['n_layers']} layers and width {e.facts['d_model']}, trained for "
        f"{e.steps['step'].iloc[-1]:,} steps on the [noise world](worlds.md), where the right confidence is known at "
        f"every position: `jaxconf train --out runs/first && jaxconf track runs/first`. "
        "[Where confidence neurons come from](emergence.md) has the study."
    )
    spread, best = (float(np.ptp(entropy.iloc[-1])) for entropy in (levels.entropy, levels.best_entropy))
    return text, [
        Picture(
            "rho",
            "Neurons turn into the null space",
            partial(emergence_rho, e),
            f"Before training, {before or 'none'} of the {rho.shape[1]} neurons writes more into the null space than "
            f"chance gives. At step {first:,} the first meets the entropy rule (red), and at the end "
            f"{listed(named, 8)} do.",
        ),
        Picture(
            "spectrum",
            "A direction is set aside",
            partial(emergence_spectrum, e),
            f"While the other singular values of the unembedding grow, the smallest falls back: from "
            f"{number(smallest.max())} of the next one to {number(smallest[-1])} at the end. What is written along it "
            "changes hardly any logit, but it changes the norm.",
        ),
        Picture(
            "optimum",
            "Confidence finds its place",
            partial(emergence_optimum, e),
            "Each line is the mean entropy at one level of noise; the best possible one is dashed. At first the "
            f"model is as unsure everywhere; at the end the levels lie {number(spread)} nats apart, and the best ones "
            f"{number(best)}.",
        ),
    ]


def of_bundled(folder: Path) -> tuple[str, list[Picture]]:
    table, sets = NeuronTable.load(folder), pd.read_parquet(folder / OPTIMUM)
    text = (
        "The model that comes with jaxconf, on the text that it was trained on: `make demo`. "
        "[The bundled model](bundled_model.md) has the numbers, and [a page](play/index.html) lets you play with it."
    )
    levels = sets[(sets["level"] >= 0) & sets["set"].isin(["no set", "entropy"]) & (sets["kind"] != "random")]
    spread = {how: rows["entropy"].max() - rows["entropy"].min() for how, rows in levels.groupby("how")}
    return text, [
        Picture(
            "entropy_and_prediction",
            "The entropy changes, the prediction stays",
            table.plot.entropy_and_prediction,
            _of_changes(table),
        ),
        Picture("mediation", "They act through the norm", table.plot.mediation, _of_mediation(table)),
        Picture(
            "optimum",
            "They tell where to be sure",
            partial(optimum_sets, sets, title(table)),
            f"Over the levels of noise, the model's entropy ranges over {number(spread[UNABLATED])} nats "
            f"(black; a perfect "
            f"model lies on the diagonal). With its entropy neurons ablated (red) it ranges over "
            f"{number(spread[ABLATED])}; with the norm frozen meanwhile, over {number(spread[ABLATED_FROZEN])}.",
        ),
    ]


def of_smollm2(folder: Path) -> tuple[str, list[Picture]]:
    table = NeuronTable.load(folder)
    frequency = table.frame["freq_mediated"].max(), table.nulls["freq_mediated"].max()
    reach = (table.nulls["ln_mediated"].max(), table.members("entropy")["ln_mediated"].min())
    return _of_real(table), [
        Picture(
            "mediation",
            f"{len(table.members('entropy'))} of {len(table.frame):,} neurons stand apart",
            table.plot.mediation,
            _of_mediation(table),
        ),
        Picture(
            "entropy_and_prediction",
            "The entropy changes, the prediction stays",
            table.plot.entropy_and_prediction,
            _of_changes(table),
        ),
        Picture(
            "nulls",
            "Beside random directions",
            table.plot.nulls,
            f"Of {len(table.nulls)} nulls, which have the activations of neurons and random directions, none has an "
            f"ln_mediated above {number(reach[0])}; the entropy neurons have {number(reach[1])} and more. The "
            f"largest freq_mediated of a neuron is {number(frequency[0])}, and that of a null {number(frequency[1])}.",
        ),
    ]


def of_gemma(folder: Path) -> tuple[str, list[Picture]]:
    table = NeuronTable.load(folder)
    knee, count = table.facts["knee"], len(table.singular_values)
    strongest, frame, entropy = table.cosine_neurons[0], table.frame, table.members("entropy")
    shorter = (frame["w_norm"] < entropy["w_norm"].iloc[0]).mean()
    ratio = frame["logit_var"].median() / entropy["logit_var"].iloc[0]
    return _of_real(table), [
        Picture(
            "null_space",
            "One direction that the unembedding hardly sees",
            table.plot.null_space,
            f"At k = {knee['k']} of {count}, the singular values fall by "
            f"a factor of {number(knee['ratio'])}. The output weights of {strongest} have a cosine of "
            f"{number(abs(table.cosines[0, -1]))} with the direction of the smallest.",
        ),
        Picture(
            "norm_and_logit_var",
            "Large weights that move no logit",
            table.plot.norm_and_logit_var,
            f"The output weights of {entropy.index[0]} are longer than those of {shorter:.1%} of the layer's neurons, "
            f"but their LogitVar, which says how differently they act on the logits of the tokens, is {number(ratio)} "
            f"times smaller than the median one.",
        ),
        Picture("mediation", "In the null space, and through the norm", table.plot.mediation, _of_mediation(table)),
    ]


def _of_real(table: NeuronTable) -> str:
    facts = table.facts
    return (
        f"{facts['tokens']:,} tokens of {Path(facts['data']).name}, layer {facts['layer']}: `jaxconf analyze MODEL "
        f"--data FILE --tokens {facts['tokens']}`. [Two real models](real_model.md) has the numbers and other rules."
    )


def _of_mediation(table: NeuronTable) -> str:
    shares = table.members("entropy")["ln_mediated"]
    range_ = number(shares.max()) if len(shares) == 1 else f"{number(shares.min())} to {number(shares.max())}"
    above = int((table.frame["rho"] > table.frame["rho_chance"]).sum())
    return (
        f"Each point is a neuron. {above:,} of {len(table.frame):,} have more of their output weights in the null "
        f"space than chance gives (right of the dashed line). The rest of the entropy rule is met by "
        f"{listed(list(table.members('entropy').index), 8)}: with the norm's scale frozen, {range_} of the effect on "
        f"the loss is gone."
    )


def _of_changes(table: NeuronTable) -> str:
    frame, members = table.to_pandas(), table.members("entropy")
    name = members["entropy_abs_delta"].idxmax()
    row = frame.loc[name]
    as_large = frame[frame["entropy_abs_delta"] >= row["entropy_abs_delta"]].drop(index=members.index, errors="ignore")
    others = f"; neurons that change it as much change the most likely token at {as_large['top1_change'].median():.1%}"
    return (
        f"Ablating {name} changes the entropy by {number(row['entropy_abs_delta'])} nats on average, and the "
        f"most likely "
        f"token at {row['top1_change']:.1%} of the positions{others * bool(len(as_large))}."
    )


SECTIONS: dict[str, tuple[str, Callable[[Path], tuple[str, list[Picture]]]]] = {
    "toy": ("A toy in which they emerge", of_toy),
    "bundled": ("The bundled model", of_bundled),
    "smollm2": ("SmolLM2-135M-Instruct", of_smollm2),
    "gemma": ("Gemma 3 270M", of_gemma),
}


def save(figure: Figure, path: Path) -> None:
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=DOTS)
    with replacing(path) as temporary:
        Image.open(picture).convert("RGB").quantize(COLOURS).save(temporary, "png", optimize=True)


def section(name: str, folder: Path) -> list[str]:
    heading, describe = SECTIONS[name]
    text, pictures = describe(folder)
    lines = [f"## {heading}", "", text, ""]
    for picture in pictures:
        file = PICTURES / f"gallery_{name}_{picture.name}.png"
        save(picture.draw(), file)
        shown = f"![{picture.heading}: {heading}](figures/{file.name})"
        lines += [f"### {picture.heading}", "", shown, "", picture.shows, ""]
    return lines


def opening(folder: Path) -> str:
    """The README's picture, which is the first one of SmolLM2, and what it shows."""
    _, [picture, *_] = of_smollm2(folder)
    model = model_title(NeuronTable.load(folder).facts)
    alt = f"Neurons of {model}: share of the output weights in the null space, and share of the effect through the norm"
    return (
        f"![{alt}](docs/figures/gallery_smollm2_{picture.name}.png)\n\n"
        f"*The last layer of {model}. {picture.shows} More in the [gallery](docs/gallery.md).*"
    )


def main(how: Gallery) -> None:
    sections = [line for name in SECTIONS for line in section(name, getattr(how, name))]
    lines = [
        "# Gallery",
        "",
        "What entropy neurons look like in four models; [concepts](concepts.md) says what the words mean. Written "
        "by `scripts/gallery.py` from finished runs.",
        "",
        *sections,
    ]
    with replacing(PAGE) as path:
        path.write_text("\n".join(lines), encoding="utf-8")
    with replacing(README) as path:
        path.write_text(between(README.read_text("utf-8"), MARK, opening(how.smollm2)), encoding="utf-8")


if __name__ == "__main__":
    main(tyro.cli(Gallery))
