"""`DecoderConfig` describes a decoder."""

import dataclasses
from typing import Literal

from jaxconf.models.frequencies import Rotary

# "gelu" is the exact form, with erf; "relu2" is the square of "relu".
Activation = Literal["gelu", "gelu_tanh", "relu", "relu2", "silu"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Every setting that the forward pass of any family depends on.

    It is hashable, so it can be a static argument of `jax.jit`.
    """

    model_type: str  # the family, as Hugging Face names it; it decides how the stored tensors are named
    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int  # fewer than n_heads: grouped-query attention
    d_head: int
    d_mlp: int
    vocab_size: int
    n_positions: int  # the longest sequence that the model takes

    norm: Literal["layer", "rms", "none"]  # LayerNorm or RMSNorm; "none" only in `final`
    # Where a layer has norms: before attention and MLP ("pre"), after them ("post"), before and after them ("both"), or
    # on the residual stream after each addition ("sum"). With "sum" the last layer's ln2 is the final norm.
    norm_place: Literal["pre", "post", "both", "sum"] = "pre"
    norm_eps: float
    norm_gain: bool = True
    norm_bias: bool = False
    final_norm: bool = True  # a norm stands before the unembedding
    gain_offset: float = 0.0  # the gain is this plus the parameter

    activation: Activation
    gated: bool = False  # the MLP is act(gate)·in instead of act(in)
    parallel: bool = False  # attention and MLP both read the stream that enters the block
    shared_norm: bool = False  # in a parallel block, both read it through the same norm, ln1
    mlp_bias: bool = False
    silu_beta: float = 1.0  # silu is x·sigmoid(this·x)
    mlp_clip: float | None = None  # in a gated MLP, the gate is clipped to at most this, and `in` to ± this
    linear_offset: float = 0.0  # a gated MLP is act(gate)·(in + this)

    # In a mixture of experts: the width of each expert of a layer. Their neurons stand one after the other on the axis
    # of neurons, so d_mlp is the sum. Empty: the MLP is not a mixture.
    experts: tuple[int, ...] = ()
    experts_per_token: int = 0  # how many experts the router chooses for each token
    router_normalized: bool = False  # the weights of a token's chosen experts sum to 1
    router_bias: bool = False  # a bias is added to the scores by which the router chooses
    shared_expert: bool = False  # the last expert takes every token, with the weight of a gate of its own

    # The embedding's width, if it differs from d_model. The model then has two projections: from the embedding to the
    # stream, and from the stream to the unembedding.
    d_embed: int | None = None
    embed_norm: bool = False  # a norm follows the embedding
    learned_positions: bool = False  # a learned vector for each position is added to the embedding
    sinusoidal_positions: bool = False  # so are sines and cosines of the position
    # A bias that grows with the source's position is added to the scores: after attn_scale ("exact"), or rounded to
    # bfloat16 and before attn_scale ("rounded").
    alibi: Literal["none", "exact", "rounded"] = "none"
    rotary: Rotary | None = None
    local_rotary: Rotary | None = None  # the rotation in layers with a window, if it differs
    unrotated: tuple[int, ...] = ()  # layers whose queries and keys are not rotated

    attn_scale: float  # factor on q·k
    attn_scale_by_layer: bool = False  # layer i divides its scores by i + 1
    # For each layer, how many positions a query attends to, its own included. Empty: no layer has a window.
    windows: tuple[int, ...] = ()
    attn_sinks: bool = False  # each head's softmax has a further entry, a learned score, whose share is dropped
    attn_softcap: float | None = None  # scores become cap·tanh(score/cap)
    qk_norm: Literal["none", "head", "all"] = "none"  # norms on queries and keys, over each head or over all
    qk_norm_bias: bool = False
    qkv_clip: float | None = None  # queries, keys and values are clipped to ± this, after their norms
    qkv_bias: bool = False
    attn_out_bias: bool = False

    embed_scale: float = 1.0  # factor on the embedding
    residual_scale: float = 1.0  # factor on what attention and MLP add to the stream
    logit_scale: float = 1.0  # factor on the logits
    logit_softcap: float | None = None  # logits become cap·tanh(logit/cap)
    head_bias: bool = False  # the unembedding has a bias
    tied: bool  # the unembedding is the embedding, transposed

    @property
    def final(self) -> "DecoderConfig":
        """This config as the final norm sees it: with the norm "none", which has no parameters, if there is none."""
        return self if self.final_norm else dataclasses.replace(self, norm="none", norm_gain=False, norm_bias=False)

    @property
    def frozen_scale(self) -> float | None:
        """What every norm divides by if that is a constant: √norm_eps where no variance counts beside it; 1 if there is
        no norm.

        GPT-2s without LayerNorm are published with an epsilon of 1e12, and with gains that make up for it. Source:
        Heimersheim 2024 (arXiv 2409.13710); Baroni et al. 2025 (arXiv 2507.02559).
        """
        if self.norm == "none":
            return 1.0
        return self.norm_eps**0.5 if self.norm_eps >= NO_VARIANCE else None

    @property
    def routed_experts(self) -> int:
        """How many experts the router chooses from."""
        return len(self.experts) - self.shared_expert

    def axis_sizes(self) -> dict[str, int]:
        """The size of each logical axis that a parameter can have."""
        experts = {"experts": self.routed_experts} if self.experts else {}
        return experts | {
            "layers": self.n_layers,
            "embed": self.d_model,
            "token_embed": self.d_embed or self.d_model,
            "heads": self.n_heads,
            "kv_heads": self.n_kv_heads,
            "head_dim": self.d_head,
            "mlp": self.d_mlp,
            "vocab": self.vocab_size,
            "positions": self.n_positions,
        }


NO_VARIANCE = 1e12  # an epsilon of this size is one that a norm is switched off with
NO_WINDOW = 2**30  # the entry in `windows` of a layer without a window, in a model whose other layers have one
