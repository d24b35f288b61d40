"""What ablating neurons of any layer does, by running all that lies above them again: every set of neurons at once, under vmap.

Letters: c set of neurons, s window, t position, n neuron, d width, v vocabulary. The three effects are those of `jaxconf.analysis.effects`.
With the norm frozen the final norm keeps its unablated scale, or if that is asked for, every norm above the ablated neurons does.
Source: Stolfo et al. 2024 (arXiv 2406.16254), section 3.2.
"""

from collections.abc import Mapping
from typing import Literal

import jax

from jaxconf.analysis.frequency import Frequency
from jaxconf.analysis.whole_logits import Changes, Figures, changes, figures
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Params, final_norm_name, forward, site_shapes
from jaxconf.models.sites import Ablate, Edit, Replace

Frozen = Literal["final", "all"]


def rerun(
    config: DecoderConfig,
    params: Params,
    frequency: Frequency,
    resid: jax.Array,
    target: jax.Array,
    values: Mapping[int, jax.Array],
    sets: Mapping[int, jax.Array],
    frozen: Frozen = "final",
) -> tuple[Changes, Figures]:
    """What each set of neurons changes, [c s t], and the unablated figures, [s t]; nats.

    `resid` [s t d]: the stream that enters the first of the layers in `values`. `target` int [s t]: the token that follows. `values`: layer →
    what its activations are set to, [s t n]; `sets`: layer → bool [c n], which of them are.
    """
    first = min(values)
    scales = [site for site in site_shapes(config) if site.endswith("hook_scale") and _above(config, site, first, frozen)]
    unablated = forward(config, params, resid, start_at_layer=first, capture=scales)
    z0 = unablated.logits
    assert z0 is not None
    before = figures(z0, frequency, target)
    norms: dict[str, Edit] = {site: Replace(unablated.captured[site]) for site in scales}

    def one(masks: Mapping[int, jax.Array]) -> Changes:
        def after(edits: Mapping[str, Edit]) -> jax.Array:
            ablated = {f"blocks.{layer}.mlp.hook_post": Ablate(masks[layer], value) for layer, value in values.items()}
            logits = forward(config, params, resid, start_at_layer=first, edits={**edits, **ablated}).logits
            assert logits is not None
            return logits

        te, ln = after({}), after(norms)
        fr = te + ((z0 - te) @ frequency.u)[..., None] * frequency.u
        return changes(before, *(figures(z, frequency, target) for z in (te, ln, fr)))

    with jax.default_matmul_precision("highest"):
        return jax.vmap(one)(dict(sets)), before


def _above(config: DecoderConfig, site: str, layer: int, frozen: Frozen) -> bool:
    """Whether the norm of this site stands above the MLPs of `layer` and is to keep its scale."""
    if site.startswith(final_norm_name(config)):
        return True
    if frozen == "final" or not site.startswith("blocks."):
        return False
    of, name = int(site.split(".")[1]), site.split(".")[2]
    return of > layer or (of == layer and (name == "ln2_post" or (name == "ln2" and config.norm_place == "sum")))
