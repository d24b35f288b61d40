"""Columns that tables and pages show. `jaxconf.analysis.metrics` says what each holds."""

from jaxconf.analysis.metrics import UNABLATED

MAIN_COLUMNS = (
    "w_norm", "logit_var", "rho", "rho_chance", "cos_freq", "ln_mediated", "freq_mediated",
    "loss_abs_delta", "entropy_delta", "entropy_abs_delta", "kl_freq_abs_delta", "top1_change",
)  # fmt: skip

POSITION_COLUMNS = ("window", "position", "token", "target", *UNABLATED)
