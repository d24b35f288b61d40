"""Columns that summaries and tables show; `jaxconf.analysis.metrics` says what each of them means."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from jaxconf.analysis.metrics import METRICS, MIXTURE_COLUMNS, UNABLATED

if TYPE_CHECKING:
    from jaxconf.results.rules import Kind

MAIN_COLUMNS = (
    "w_norm", "logit_var", "rho", "rho_chance", "cos_freq", "ln_mediated", "freq_mediated",
    "loss_abs_delta", "entropy_delta", "entropy_abs_delta", "kl_freq_abs_delta", "top1_change",
)  # fmt: skip
"""The columns of a neuron in the summary and in hover texts."""

EVIDENCE_COLUMNS = ("ln_mediated_q", "freq_mediated_chance", "freq_mediated_q")
"""Further columns of a neuron in the summary, if there were nulls."""

BY_RULE_COLUMNS = (
    "confidence_sign", "rho", "ln_mediated", "ln_mediated_q", "entropy_abs_delta", "w_norm", "logit_var", "null_proxy",
    "gate_entropy_delta", "gate_top1_change", "gate_norm_delta",
)  # fmt: skip
"""The columns of the table which shows the neurons that each rule names."""

NAMED_COLUMNS: "dict[Kind, tuple[str, ...]]" = {
    "entropy": (
        "rho", "rho_chance", "ln_mediated", "ln_mediated_q", "entropy_abs_delta", "w_norm", "logit_var",
        "loss_abs_delta", "entropy_delta", "top1_change",
    ),
    "frequency": (
        "freq_mediated", "freq_mediated_chance", "freq_mediated_q", "kl_freq_abs_delta", "kl_freq_delta", "cos_freq",
        "loss_abs_delta", "entropy_delta", "top1_change",
    ),
}  # fmt: skip
"""The columns of the table of entropy neurons and of that of frequency neurons."""

SET_COLUMNS = ("loss_delta", "entropy_delta", "kl_freq_delta", "loss_abs_delta", "ln_mediated", "top1_change")
"""The effects that are shown of a neuron set."""

POSITION_COLUMNS = ("window", "position", "token", "target", *UNABLATED)
"""The columns of the table of positions."""


def meanings(columns: Iterable[str]) -> list[tuple[str, str, str]]:
    """Each column of a neuron table with its unit and its description; both are "" for one that is not known."""
    known = {metric.name: (metric.unit, metric.description) for metric in METRICS}
    known |= {name: ("", description) for name, description in MIXTURE_COLUMNS.items()}
    known |= {"component": ("", "kind of component"), "name": ("", "name of the component")}
    ends = {"_lo": "lower", "_hi": "upper"}
    found = []
    for column in columns:
        unit, description = known.get(column, ("", ""))
        if column not in known and column[:-3] in known and column[-3:] in ends:
            unit, description = known[column[:-3]][0], f"{ends[column[-3:]]} end of the 95% interval of {column[:-3]}"
        found.append((column, unit, description))
    return found
