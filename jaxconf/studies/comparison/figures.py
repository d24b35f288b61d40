"""Pictures of how further training changed a model's neurons, in Du et al.'s layout, and the same in a few paragraphs. Each picture is a matplotlib
Figure, drawn without a display: the base model's candidates in red, a tuned model's ringed.
"""

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxconf.report.style import (
    ENTROPY,
    HUES,
    INK,
    NORMAL,
    QUIET,
    STYLE,
    floor_of,
    label_points,
    log_axes,
    model_name,
    on_log_axis,
    save_figures,
    say,
)
from jaxconf.results.words import number
from jaxconf.studies.comparison.study import Comparison

COLUMNS = 3  # panels in a row
MEASURES = {"loss": "loss, nats", "entropy": "entropy, nats", "brier": "Brier score", "accuracy": "accuracy", "ece": "ECE"}
LABELS = {
    "ratio": "‖w_out‖ / log LogitVar",
    "rho": "ρ",
    "ln_mediated": "ln_mediated",
    "entropy_delta": "mean change of entropy, nats",
}


@mpl.rc_context(STYLE)
def comparison_norm_logitvar(found: Comparison) -> Figure:
    """Norm against LogitVar of each model's neurons, with the candidates of both."""
    models = [found.facts["base"], *found.facts["tuned"]]
    note = "red: candidates of the base model, and the neurons that they are matched with\nringed: the model's own candidates; dashed: "
    note += f"the top {found.facts['share']:.0%} by norm begin here"
    figure, panels = _canvas(found, "Norm and LogitVar", note, len(models), share=True)
    frames = []
    for model, axes in zip(models, panels, strict=True):
        rows = found.neurons[found.neurons["model"] == model]
        rows = rows.set_axis([f"{layer}.{neuron}" for layer, neuron in zip(rows["layer"], rows["neuron"], strict=True)])
        own = rows["is_candidate"]
        of_base = own if model == models[0] else rows["neuron"].isin(_matched(found, model))
        x, y = rows["w_norm"], on_log_axis(rows["logit_var"])
        axes.scatter(x[~of_base], y[~of_base], s=6, color=NORMAL, alpha=0.6, linewidths=0)
        axes.scatter(x[of_base], y[of_base], s=16, color=ENTROPY, linewidths=0)
        axes.scatter(x[own], y[own], s=44, facecolor="none", edgecolor=INK, linewidths=0.9)
        axes.axvline(x.quantile(1 - found.facts["share"]), color=QUIET, linewidth=0.8, linestyle="--")
        log_axes(axes, y=found.neurons["logit_var"])
        axes.set_title(_short(model), fontsize=9, loc="left", parse_math=False)
        axes.set_xlabel("‖w_out‖", parse_math=False)
        axes.set_ylabel("LogitVar")
        frames.append((axes, x, y, list(rows.index[own])))
    for axes, x, y, names in frames:  # once all share their scales
        label_points(figure, axes, x, y, names, INK)
    return figure


@mpl.rc_context(STYLE)
def comparison_overlap(found: Comparison) -> Figure:
    """IoU of the candidates over the grid of thresholds, with what chance gives."""
    shares = sorted(found.overlaps["share"].unique())
    note = "solid: neurons matched by index, dotted: by cosine; shaded: 95% of all permutations (grey), and of the choice among large norms (red)"
    figure, panels = _canvas(found, "Overlap of the candidates", note, len(shares) * len(found.facts["tuned"]), len(shares), share=True)
    for place, (tuned, share) in enumerate((tuned, share) for tuned in found.facts["tuned"] for share in shares):
        axes = panels[place]
        rows = found.overlaps[(found.overlaps["model"] == tuned) & (found.overlaps["share"] == share)]
        by_index, by_cosine = (rows[rows["by"] == by].reset_index(drop=True) for by in ("index", "cosine"))
        x = np.arange(len(by_index))
        for name, colour in (("chance", NORMAL), ("norm_chance", ENTROPY)):
            axes.fill_between(x, by_index[f"{name}_lo"], by_index[f"{name}_hi"], color=colour, alpha=0.25, linewidth=0)
            axes.plot(x, by_index[name], color=colour, linewidth=0.9, linestyle="--")
        axes.plot(x, by_index["iou"], color=INK, marker="o", markersize=4, linewidth=1.2)
        axes.plot(x, by_cosine["iou"], color=HUES[0], marker="s", markersize=3, linewidth=1.2, linestyle=":")
        axes.set_xticks(x, [str(n) for n in by_index["lowest"]])
        axes.set_ylim(-0.03, 1.05)
        axes.set_title(f"{_short(tuned, 22)}, top {share:.0%} by norm", fontsize=9, loc="left", parse_math=False)
        axes.set_xlabel("lowest LogitVar")
        axes.set_ylabel("IoU")
    return figure


@mpl.rc_context(STYLE)
def comparison_changes(found: Comparison) -> Figure:
    """Ratio, ρ, mediated share and effect of each neuron in the base model against those of the neuron it is matched with."""
    pairs = {tuned: found.pairs(tuned) for tuned in found.facts["tuned"]}
    names = [name for name in LABELS if any(frame[f"{name}_tuned"].notna().any() for frame in pairs.values())]
    note = "each point is a pair of neurons matched by cosine\nred: candidates of the base model; on the line, nothing has changed"
    figure, panels = _canvas(found, "Before and after", note, len(names) * len(pairs), 2)
    for place, (tuned, name) in enumerate((tuned, name) for tuned in pairs for name in names):
        axes, frame, label = panels[place], pairs[tuned], LABELS[name]
        both = frame[[f"{name}_base", f"{name}_tuned"]].astype(float)
        known = both.notna().all(axis=1)
        if name == "ln_mediated" and known.any():
            floor = floor_of(both.stack())
            label += f" (lower ones at {floor:g})" if (both < floor).any(axis=None) else ""
            both = both.clip(lower=floor)
        for own, colour, size in ((~frame["is_candidate_base"], NORMAL, 6), (frame["is_candidate_base"], ENTROPY, 18)):
            x, y = both[own & known].to_numpy().T
            axes.scatter(x, y, s=size, color=colour, alpha=0.7, linewidths=0)
        if known.any():
            ends = [both[known].min(axis=None), both[known].max(axis=None)]
            axes.plot(ends, ends, color=QUIET, linewidth=0.7)
        else:
            say(axes, "only the weights were compared")
        axes.set_title(_short(tuned), fontsize=9, loc="left", parse_math=False)
        axes.set_xlabel(f"{label}, base", parse_math=False)
        axes.set_ylabel(f"{label}, tuned", parse_math=False)
    return figure


@mpl.rc_context(STYLE)
def comparison_matching(found: Comparison) -> Figure:
    """How alike the write directions of matched neurons are."""
    note = "share of the neurons whose cosine is at most this\ndashed: what the best of as many random directions stays below in 99 of 100 draws"
    figure, panels = _canvas(found, "Write directions", note, len(found.facts["tuned"]), share=True)
    for tuned, axes in zip(found.facts["tuned"], panels, strict=True):
        rows = found.neurons[found.neurons["model"] == tuned]
        for column, colour, line, label in (
            ("cosine", HUES[0], "-", "matched one to one"),
            ("cosine_index", INK, ":", "of the same index"),
        ):
            axes.ecdf(rows[column], color=colour, linestyle=line, linewidth=1.3, label=label)
        axes.axvline(found.facts["chance_cosine"], color=QUIET, linewidth=0.8, linestyle="--")
        axes.set_title(_short(tuned), fontsize=9, loc="left", parse_math=False)
        axes.set_xlabel("cosine of the write directions")
        axes.set_ylabel("share of the neurons")
        axes.set_ylim(-0.03, 1.03)
        axes.legend(loc="upper left")
    return figure


@mpl.rc_context(STYLE)
def comparison_calibration(found: Comparison) -> Figure:
    """Loss, entropy and calibration of each model on the same positions, and how often its confidence is right."""
    note = f"on the same {found.facts['positions']:,} positions; bars: 95% intervals over windows; below right: accuracy by confidence"
    figure, panels = _canvas(found, "Calibration", note, len(MEASURES) + 1, share=False)
    models = list(dict.fromkeys(found.calibration["model"]))
    colours = [INK, *(HUES[i % len(HUES)] for i in range(len(models) - 1))]
    for axes, (measure, label) in zip(panels, MEASURES.items(), strict=False):
        rows = found.calibration[found.calibration["measure"] == measure]
        for place, (row, colour) in enumerate(zip(rows.to_dict("records"), colours, strict=True)):
            span = [[max(0.0, row["value"] - row["value_lo"])], [max(0.0, row["value_hi"] - row["value"])]]
            axes.errorbar([place], [row["value"]], yerr=np.nan_to_num(span), fmt="o", color=colour, markersize=4, capsize=3)
        axes.set_xticks(range(len(models)), [_short(model, 14) for model in models], fontsize=8, parse_math=False)
        axes.set_xlim(-0.6, len(models) - 0.4)
        axes.set_ylabel(label)
    axes = panels[len(MEASURES)]
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.7)
    for model, colour in zip(models, colours, strict=True):
        rows = found.reliability[found.reliability["model"] == model]
        axes.plot(rows["confidence"], rows["accuracy"], color=colour, marker="o", markersize=2.5, linewidth=1, label=_short(model, 22))
    axes.set_xlabel("confidence")
    axes.set_ylabel("accuracy")
    for text in axes.legend(loc="upper left").get_texts():
        text.set_parse_math(False)
    return figure


DRAWN: dict[str, Callable[[Comparison], Figure]] = {
    draw.__name__: draw for draw in (comparison_norm_logitvar, comparison_overlap, comparison_changes, comparison_matching)
}


def save_comparison_figures(found: Comparison, folder: Path) -> list[Path]:
    return save_figures(DRAWN | ({"comparison_calibration": comparison_calibration} if len(found.calibration) else {}), found, folder)


def paragraphs(found: Comparison) -> list[str]:
    """What the numbers show, a paragraph for each tuned model, and what they do not."""
    return [" ".join(_of_model(found, tuned)) for tuned in found.facts["tuned"]] + [LIMITS]


LIMITS = (
    "What this does not show: candidates are named by their weights alone, and a high overlap says that training left large, little visible write "
    "directions where they were, not that these neurons regulate confidence in either model; LogitVar follows from the write direction, so neurons "
    "matched by cosine agree in it to some extent by construction; and calibration, measured on the next tokens of this text, can change through any "
    "of the weights."
)


def _of_model(found: Comparison, tuned: str) -> list[str]:
    facts, base = found.facts, _short(found.facts["base"])
    here = _short(tuned)
    grid = found.overlaps[(found.overlaps["model"] == tuned)].set_index(["by", "share", "lowest"])
    by_index, by_cosine = (grid.loc[(by, facts["share"], facts["candidates"])] for by in ("index", "cosine"))
    said = [
        f"{here} shares {by_index['common']:.0f} of {base}'s {by_index['base']:.0f} candidates (the lowest LogitVar among the top {facts['share']:.0%} "
        f"by norm): IoU {number(by_index['iou'])}, {_beside(by_index, 'chance')} permuting the neurons gives, and {_beside(by_index, 'norm_chance')} "
        "drawing from those with a large norm gives."
    ]
    rows = found.neurons[found.neurons["model"] == tuned]
    said.append(
        f"Matched one to one by the cosine of their write directions, {(rows['match'] == rows['neuron']).sum():,} of {len(rows):,} neurons keep their "
        f"index, the median cosine is {number(rows['cosine'].median())} ({(rows['cosine'] > facts['chance_cosine']).sum():,} are above the "
        f"{number(facts['chance_cosine'])} that chance gives), and the IoU is {number(by_cosine['iou'])}."
    )
    changes = found.changes[found.changes["model"] == tuned].set_index("measure")
    run = tuned not in facts["weights_only"]
    words = {"ratio": "norm/log(LogitVar)", "rho": "rho"}
    if run:
        words |= {"ln_mediated": "ln_mediated", "entropy_delta": "the change of entropy by ablation (nats)"}
    told = [
        f"{what} goes from {number(row['base'])} to {number(row['tuned'])}, by {number(row['change'])} ({number(row['random_lo'])} to "
        f"{number(row['random_hi'])})"
        for what, row in ((what, changes.loc[name]) for name, what in words.items())
    ]
    beyond = [what for name, what in words.items() if _outside(changes.loc[name])]
    verdict = (
        "no more than chance explains" if changes.loc[list(words), "random_lo"].notna().all() else "with no others to compare them with"
    )
    if beyond:
        verdict = f"more than chance explains for {' and '.join(beyond)}"
    said.append(
        f"Means over {base}'s candidates, in brackets the 95% range of the change of as many random neurons with a large norm: {'; '.join(told)}: {verdict}."
    )
    if not run:
        return [*said, "Its tokenizer is not the same, so only the weights are compared: no effects and no calibration on the same tokens."]
    pairs = found.pairs(tuned)
    rule = [int(pairs[f"is_entropy_neuron_{side}"].sum()) for side in ("base", "tuned")]
    both = [int((pairs[f"is_entropy_neuron_{side}"] & pairs[f"is_candidate_{side}"]).sum()) for side in ("base", "tuned")]
    said.append(
        f"By their effects {rule[0]:,} neurons of {base} meet the entropy rule, {both[0]} of them candidates, and {rule[1]:,} of {here}, {both[1]} of them "
        "candidates."
        if any(rule)
        else "By their effects no neuron of either meets the entropy rule."
    )
    calibrated = found.calibration[found.calibration["model"] == tuned].set_index("measure")
    moved = [
        f"{MEASURES[str(name)].split(',')[0]} from {number(row['value'] - row['change'])} to {number(row['value'])} (by {number(row['change_lo'])} to "
        f"{number(row['change_hi'])})"
        for name, row in calibrated.iterrows()
    ]
    said.append(f"On the same {facts['positions']:,} positions, with 95% intervals of the change: {', '.join(moved)}.")
    return said


def _outside(row: pd.Series) -> bool:
    return bool(row["change"] < row["random_lo"] or row["change"] > row["random_hi"])


def _beside(row: pd.Series, name: str) -> str:
    more = "more than" if row["iou"] > row[f"{name}_hi"] else "no more than"
    return f"{more} the {number(row[name])} (95%: {number(row[f'{name}_lo'])} to {number(row[f'{name}_hi'])}) that"


def _matched(found: Comparison, tuned: str) -> pd.Series:
    pairs = found.pairs(tuned)
    return pairs.loc[pairs["is_candidate_base"], "neuron_tuned"]


def _short(model: str, most: int = 36) -> str:
    name = model_name({"model": model})
    return name if len(name) <= most else f"…{name[1 - most :]}"


def _canvas(
    found: Comparison, subject: str, note: str, count: int, columns: int = COLUMNS, share: bool = False
) -> tuple[Figure, list[Axes]]:
    """A figure with that many panels."""
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(1 + 3.3 * max(columns, 2), 0.9 + 3 * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False, sharex=share, sharey=share).ravel())
    for axes in panels[count:]:
        axes.axis("off")
    # Mathtext off: a model's name may hold a dollar sign.
    figure.suptitle(f"{subject}: {_short(found.facts['base'])}\n{note}", fontsize=9, x=0.02, ha="left", parse_math=False)
    return figure, panels[:count]
