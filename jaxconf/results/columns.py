"""The columns of the neuron table, and what each of them says. Losses, entropies and divergences are in nats."""

COLUMNS: dict[str, str] = {
    "layer": "index of the neuron's layer, counted from 0",
    "neuron": "index of the neuron in its layer, counted from 0",
    "w_norm": "norm of the output weights w_out",
    "logit_var": "variance over the vocabulary of the cosine between w_out and each token's unembedding vector",
    "rho": "share (0 to 1) of w_out's norm that lies in the unembedding's effective null space, its k weakest directions",
    "rho_chance": "99% quantile of the largest rho among as many random directions as the layer has neurons; one value a layer",
    "cos_freq": "cosine (-1 to 1) between the logits that w_out writes and the token-frequency direction",
    "vocab_skew": "skewness over the vocabulary of the cosines whose variance is logit_var",
    "vocab_kurtosis": "kurtosis over the vocabulary of the cosines whose variance is logit_var",
    "weight_cost": "what weight decay charges for the neuron: the sum of the squares of its weights, in, gate and out, without biases",
    "activation_mean": "mean activation over the tokens",
    "activation_std": "standard deviation of the activation over the tokens",
    "loss_delta": "mean change of the loss when the neuron is ablated, nats (total effect)",
    "loss_abs_delta": "mean absolute change of the loss, nats (total effect)",
    "loss_abs_delta_ln_frozen": "mean absolute change of the loss while the final norm keeps its scale, nats (direct effect)",
    "loss_abs_delta_freq_frozen": "mean absolute change of the loss while logits stay put along the frequency direction, nats",
    "ln_mediated": "share of the effect that passes through the norm's scale: 1 - loss_abs_delta_ln_frozen / loss_abs_delta",
    "freq_mediated": "share of the effect along the frequency direction: 1 - loss_abs_delta_freq_frozen / loss_abs_delta",
    "entropy_delta": "mean change of the output entropy, nats (total effect)",
    "entropy_abs_delta": "mean absolute change of the output entropy, nats (total effect)",
    "entropy_abs_delta_ln_frozen": "mean absolute change of the output entropy while the final norm keeps its scale, nats",
    "kl_freq_delta": "mean change of D_KL(P_freq || P_model), the divergence of the output from the token frequencies, nats",
    "kl_freq_abs_delta": "mean absolute change of D_KL(P_freq || P_model), nats",
    "top1_change": "share (0 to 1) of positions at which the most likely token changes",
    "rr_abs_delta": "mean absolute change of the reciprocal rank (0 to 1) of the token that follows",
    "is_entropy_neuron": "whether the neuron meets the entropy rule",
    "is_frequency_neuron": "whether the neuron meets the frequency rule",
}

# Each of these may come with a bootstrap interval, in columns that end in _lo and _hi.
INTERVAL_COLUMNS = tuple(list(COLUMNS)[list(COLUMNS).index("loss_delta") : list(COLUMNS).index("is_entropy_neuron")])

MAIN_COLUMNS = (
    "w_norm", "logit_var", "rho", "rho_chance", "cos_freq", "ln_mediated", "freq_mediated",
    "loss_abs_delta", "entropy_delta", "entropy_abs_delta", "kl_freq_abs_delta", "top1_change",
)  # fmt: skip

POSITION_COLUMNS = ("window", "position", "token", "target", "loss", "entropy", "kl_freq")
