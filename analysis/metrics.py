"""The metrics of a neuron. METRICS has a row for each, from which the tables, the pages and the engines are made.

Letters as in docs/measures.md: t position, n neuron, v vocabulary, d width, w the neuron's write direction, h its
activation, W the folded unembedding, u the frequency direction. A mean is over the kept positions. Δ is the change of a
value when the neuron is ablated. Nothing here needs JAX, so that reading a result does not load it.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jax

    from jaxconf.analysis.whole_logits import Changes


@dataclasses.dataclass(frozen=True)
class Metric:
    """One column of the neuron table.

    If the metric is an effect, it is the mean of `change` (a field of `jaxconf.analysis.whole_logits.Changes`), or of
    its absolute value if `absolute`. If it is a mediated share, it is 1 − part/whole, where `part` and `whole` name two
    effects.
    """

    name: str
    formula: str
    unit: str
    description: str
    change: str = ""
    absolute: bool = False
    part: str = ""
    whole: str = ""


RHO_AT = {"rho_at_0.5%": 0.005, "rho_at_1%": 0.01, "rho_at_2%": 0.02, "rho_at_5%": 0.05}
"""Column of rho at another size of the null space → that size as a share of the width."""

PUBLISHED, TIGHIDET = "rho_at_published", "rho_at_tighidet"

METRICS = (
    Metric("layer", "", "index", "index of the neuron's layer, counted from 0"),
    Metric("neuron", "", "index", "index of the neuron in its layer, counted from 0"),
    Metric("w_norm", "‖w‖", "weight", "norm of the output weights w_out"),
    Metric(
        "logit_var",
        "variance over v (V − 1 in the denominator) of cos(w, `W[:, v]`)",
        "cosine²",
        "variance over the vocabulary of the cosine between w_out and each token's unembedding vector",
    ),
    Metric(
        "rho",
        "‖U_kᵀw‖/‖w‖, U_k the k left singular vectors of W with the smallest singular values, in float64; k is that "
        "of Stolfo et al. for their models, or else 1% of d; for LayerNorm the all-ones direction is left out",
        "share",
        "share (0 to 1) of w_out's norm that lies in the unembedding's effective null space, which is spanned by the k "
        "directions with the smallest singular values",
    ),
    Metric(
        "rho_chance",
        "the exact 99% quantile of the largest ρ of N random directions; ρ² of one of them has the distribution "
        "Beta(k/2, (D − k)/2), where D is d, or d − 1 for LayerNorm",
        "share",
        "99% quantile of the largest rho of as many random directions as the layer has neurons; the same for all "
        "neurons of a layer",
    ),
    *(
        Metric(
            name, f"as rho, with k = {100 * share:g}% of d, at least 1", "share", f"rho at k = {100 * share:g}% of d"
        )
        for name, share in RHO_AT.items()
    ),
    Metric(
        PUBLISHED,
        "as rho, with the k of Stolfo et al.",
        "share",
        "rho at the k that Stolfo et al. use for a model of this shape, if they do (for GPT-2 Small 11: their 12 "
        "includes the all-ones direction, which is left out here)",
    ),
    Metric(
        TIGHIDET,
        "as rho, with the k of Tighidet et al., or else 3/128 of d",
        "share",
        "rho at the k that Tighidet et al. use for a model of this shape, or else at their share of the width",
    ),
    Metric(
        "rho_p",
        "probability that one random direction has a ρ as large; by the same distribution",
        "p",
        "probability that a single random direction has as large a rho",
    ),
    Metric(
        "rho_z",
        "(ρ − median)/(1.4826 · median of |ρ − median|), over the neurons of the layer",
        "standard deviations",
        "how far rho lies above the median of the layer's own neurons, in robust standard deviations",
    ),
    Metric(
        "cos_freq",
        "cos(w·W, u)",
        "cosine",
        "cosine (-1 to 1) between the logits that w_out writes and the token-frequency direction",
    ),
    Metric(
        "vocab_skew",
        "third standardised moment of the cosines of logit_var",
        "",
        "skewness over the vocabulary of the cosines whose variance is logit_var",
    ),
    Metric(
        "vocab_kurtosis",
        "fourth standardised moment of the cosines of logit_var (3 for a Gaussian)",
        "",
        "kurtosis over the vocabulary of the cosines whose variance is logit_var",
    ),
    Metric(
        "null_proxy",
        "1/(1 + ‖w·W − its mean over v‖/‖w‖)",
        "share",
        "how little (0 to 1) w_out writes to the logits for its length (Zahrivyi 2026)",
    ),
    Metric(
        "weight_cost",
        "‖w_in‖² + ‖w_gate‖² + ‖w_out‖², as stored",
        "weight²",
        "the neuron's part of the penalty of weight decay: the sum of the squares of its input, gate and output "
        "weights, without biases",
    ),
    Metric("activation_mean", "mean of h over all tokens", "activation", "mean activation over the tokens"),
    Metric(
        "activation_std",
        "√ mean of (h − its mean)²",
        "activation",
        "standard deviation of the activation over the tokens",
    ),
    Metric(
        "entropy_corr",
        "Pearson correlation of h and H",
        "correlation",
        "correlation (-1 to 1) over the kept positions of the activation and the output entropy",
    ),
    Metric(
        "loss_corr",
        "Pearson correlation of h and the loss",
        "correlation",
        "correlation (-1 to 1) over the kept positions of the activation and the loss",
    ),
    Metric(
        "loss_delta",
        "mean Δloss",
        "nats",
        "mean change of the loss when the neuron is ablated, nats (total effect)",
        change="loss",
    ),
    Metric(
        "loss_abs_delta",
        "mean |Δloss|",
        "nats",
        "mean absolute change of the loss, nats (total effect)",
        change="loss",
        absolute=True,
    ),
    Metric(
        "loss_abs_delta_ln_frozen",
        "mean |Δloss|, norm frozen",
        "nats",
        "mean absolute change of the loss while the final norm keeps its scale, nats (direct effect)",
        change="loss_ln_frozen",
        absolute=True,
    ),
    Metric(
        "loss_abs_delta_freq_frozen",
        "mean |Δloss|, frequency frozen",
        "nats",
        "mean absolute change of the loss while the logits keep their coordinate along the frequency direction, nats",
        change="loss_freq_frozen",
        absolute=True,
    ),
    Metric(
        "ln_mediated",
        "1 − loss_abs_delta_ln_frozen / loss_abs_delta",
        "share",
        "share of the effect that passes through the norm's scale: 1 - loss_abs_delta_ln_frozen / loss_abs_delta",
        part="loss_abs_delta_ln_frozen",
        whole="loss_abs_delta",
    ),
    Metric(
        "ln_mediated_p",
        "(1 + nulls with a share as large)/(1 + nulls)",
        "p",
        "share of the layer's nulls (the activations of a neuron with a random write direction of its length) whose "
        "ln_mediated is as large",
    ),
    Metric(
        "ln_mediated_q",
        "Benjamini and Hochberg's correction, over the layer, of ln_mediated_p; beyond the 10th largest null, p is "
        "that of a generalised Pareto tail",
        "q",
        "false discovery rate of ln_mediated among the neurons of the layer",
    ),
    Metric(
        "freq_mediated",
        "1 − loss_abs_delta_freq_frozen / loss_abs_delta",
        "share",
        "share of the effect that passes through the logits' coordinate along the frequency direction: "
        "1 - loss_abs_delta_freq_frozen / loss_abs_delta",
        part="loss_abs_delta_freq_frozen",
        whole="loss_abs_delta",
    ),
    Metric(
        "freq_mediated_p",
        "as ln_mediated_p",
        "p",
        "share of the layer's nulls whose freq_mediated is as large",
    ),
    Metric(
        "freq_mediated_q",
        "as ln_mediated_q",
        "q",
        "false discovery rate of freq_mediated among the neurons of the layer",
    ),
    Metric(
        "freq_mediated_chance",
        "99% quantile of freq_mediated over the layer's nulls",
        "share",
        "the share that 1% of the layer's nulls reach; the same for all neurons of a layer",
    ),
    Metric(
        "entropy_delta", "mean ΔH", "nats", "mean change of the output entropy, nats (total effect)", change="entropy"
    ),
    Metric(
        "entropy_abs_delta",
        "mean |ΔH|",
        "nats",
        "mean absolute change of the output entropy, nats (total effect)",
        change="entropy",
        absolute=True,
    ),
    Metric(
        "entropy_abs_delta_ln_frozen",
        "mean |ΔH|, norm frozen",
        "nats",
        "mean absolute change of the output entropy while the final norm keeps its scale, nats",
        change="entropy_ln_frozen",
        absolute=True,
    ),
    Metric(
        "entropy_mediated",
        "1 − entropy_abs_delta_ln_frozen / entropy_abs_delta",
        "share",
        "share of the effect on the entropy that passes through the norm's scale: 1 - entropy_abs_delta_ln_frozen / "
        "entropy_abs_delta",
        part="entropy_abs_delta_ln_frozen",
        whole="entropy_abs_delta",
    ),
    Metric(
        "confidence_sign",
        "sign of mean ΔH; 0 where its interval includes 0",
        "sign",
        "1 if the neuron, as the model uses it, lowers the output entropy (ablated, it rises), -1 if it raises it, 0 "
        "if the interval of entropy_delta includes 0",
    ),
    Metric(
        "scale_delta",
        "mean (σ'/σ − 1)",
        "share",
        "mean relative change of the final norm's scale",
        change="scale",
    ),
    Metric(
        "norm_delta",
        "mean √d·(σ' − σ)",
        "length",
        "mean change of the length of the stream that enters the final norm (centred for LayerNorm)",
        change="norm",
    ),
    Metric(
        "kl_freq_delta",
        "mean ΔD_KL(P_freq ‖ P_model)",
        "nats",
        "mean change of D_KL(P_freq || P_model), the divergence of the output from the token frequencies, nats",
        change="kl_freq",
    ),
    Metric(
        "kl_freq_abs_delta",
        "mean |ΔD_KL(P_freq ‖ P_model)|",
        "nats",
        "mean absolute change of D_KL(P_freq || P_model), nats",
        change="kl_freq",
        absolute=True,
    ),
    Metric(
        "top1_change",
        "mean [another token is the most likely]",
        "share",
        "share (0 to 1) of positions at which the most likely token changes",
        change="top",
    ),
    Metric(
        "rr_abs_delta",
        "mean |Δ(1/rank of the target)|",
        "share",
        "mean absolute change of the reciprocal rank (0 to 1) of the token that follows",
        change="reciprocal_rank",
        absolute=True,
    ),
    Metric(
        "gate_entropy_delta",
        "mean ΔH over the positions where h exceeds its 0.9 quantile, h clipped there to its mean",
        "nats",
        "mean change of the output entropy where the activation is high, if it is clipped there to its mean, nats; "
        "measured in the last layer, for the neurons whose null_proxy lies above its 98th percentile",
    ),
    Metric(
        "gate_top1_change",
        "mean [another token is the most likely], as gate_entropy_delta",
        "share",
        "share (0 to 1) of those positions at which that changes the most likely token",
    ),
    Metric(
        "gate_norm_delta",
        "mean √d·(σ' − σ), as gate_entropy_delta",
        "length",
        "mean change at those positions of the length of the stream that enters the final norm",
    ),
    Metric("is_entropy_neuron", "by the entropy rule", "bool", "whether the neuron meets the entropy rule"),
    Metric("is_frequency_neuron", "by the frequency rule", "bool", "whether the neuron meets the frequency rule"),
)

COLUMNS = {metric.name: metric.description for metric in METRICS}
"""The columns of the neuron table in their order, each with its description."""

ROUTED = "_where_routed"

MIXTURE_COLUMNS = {
    "expert": "index of the neuron's expert in its layer; a shared expert is the last",
    "routed_share": "share (0 to 1) of the kept positions at which the neuron's expert is chosen",
    **{
        f"{metric.name}{ROUTED}": f"{metric.name} / routed_share: its mean over the positions at which the expert is "
        "chosen; at the others a neuron of the last layer changes nothing"
        for metric in METRICS
        if metric.change
    },
}
"""The further columns of a mixture of experts, each with its description."""

EFFECTS = tuple(metric.name for metric in METRICS if metric.change)
"""The metrics that are means over the kept positions of what an ablation changes."""

SHARES = {metric.name: (metric.part, metric.whole) for metric in METRICS if metric.part}
"""Name of a mediated share → the names of the effects `part` and `whole` in 1 − part/whole."""

INTERVAL_COLUMNS = tuple(metric.name for metric in METRICS if metric.change or metric.part)
"""The metrics that may come with a bootstrap interval, in columns that end in _lo and _hi."""

GATES = {"gate_entropy_delta": "entropy_delta", "gate_top1_change": "top1_change", "gate_norm_delta": "norm_delta"}
"""Column that the rule `gates` asks for → the effect that it is the mean of, where the activation is high."""

CHANGES_IN_NATS = tuple(dict.fromkeys(metric.change for metric in METRICS if metric.change and metric.unit == "nats"))
"""The changes that are losses, entropies or divergences."""

UNABLATED = ("loss", "entropy", "kl_freq")
"""The values of the unablated model that are kept for every position, in nats: fields of `whole_logits.Prediction`."""


def effects_of(change: "Changes") -> dict[str, "jax.Array"]:
    """EFFECTS before the mean over positions: a value for each entry of the changes, float32."""
    found = {}
    for metric in METRICS:
        if metric.change:
            value = getattr(change, metric.change)
            found[metric.name] = abs(value) if metric.absolute else value.astype("float32")
    return found


def table_in_markdown(metrics: Sequence[Metric] = METRICS) -> str:
    """The table of docs/measures.md, with a row for each metric."""
    cells = [(f"`{metric.name}`", metric.formula, metric.unit, metric.description) for metric in metrics]
    rows = [" | ".join(cell.replace("|", "\\|") for cell in row) for row in cells]
    return "\n".join(f"| {row} |" for row in ("column | formula | unit | meaning", "--- | --- | --- | ---", *rows))
