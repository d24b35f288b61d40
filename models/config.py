"""What a decoder is (`DecoderConfig`), and how a Hugging Face `config.json` is read without losing a word of it (`Attributes`)."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

from jaxconf.models.errors import InputError


@dataclasses.dataclass(frozen=True)
class Rotary:
    """Rotary position embedding of the first `dim` entries of each head.

    Source: Su et al. 2021 (arXiv 2104.09864); `llama3` frequencies as released with Llama 3.1.
    """

    dim: int  # rotated entries of a head (an odd number counts as the next even one); the rest pass through
    base: float  # wavelengths run from 2π to 2π·base
    pairs: bool = False  # neighbouring entries turn together (GPT-J's layout), not those that are half of `dim` apart
    scaling: Literal["none", "linear", "llama3"] = "none"
    factor: float = 1.0  # positions (linear) or long wavelengths (llama3) are stretched by this
    low_freq_factor: float = 1.0  # llama3: wavelengths above original_positions / low are stretched in full
    high_freq_factor: float = 4.0  # llama3: wavelengths below original_positions / high are left alone
    original_positions: int = 8192  # llama3: the context before stretching


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Everything that the forward pass depends on, for every family. Hashable, so it can be a static argument of `jax.jit`."""

    model_type: str  # the Hugging Face name of the family, which names the checkpoint's tensors
    n_layers: int
    d_model: int
    n_heads: int
    n_kv_heads: int  # fewer than n_heads: grouped-query attention
    d_head: int
    d_mlp: int
    vocab_size: int
    n_positions: int  # the longest sequence that the model takes

    norm: Literal["layer", "rms"]
    norm_eps: float
    norm_gain: bool = True
    norm_bias: bool = False
    gain_offset: float = 0.0  # the gain is this plus the parameter

    activation: Literal["gelu", "gelu_tanh", "relu", "silu"]  # "gelu" is the exact one, by erf
    gated: bool = False  # the MLP is act(gate)·in instead of act(in)
    parallel: bool = False  # attention and MLP both read the stream before the block …
    shared_norm: bool = False  # … through one norm, ln1
    mlp_bias: bool = False

    learned_positions: bool = False  # a table of positions is added to the embedding
    rotary: Rotary | None = None
    unrotated: tuple[int, ...] = ()  # layers whose queries and keys are not turned

    attn_scale: float  # factor on q·k
    attn_scale_by_layer: bool = False  # layer i divides its scores by i + 1
    windows: tuple[int, ...] = ()  # of each layer: how many positions a query sees, its own and those before it; empty: all
    qk_norm: bool = False  # RMSNorm of each query and key head
    qkv_clip: float | None = None  # queries, keys and values are cut to ± this
    qkv_bias: bool = False
    attn_out_bias: bool = False

    embed_scale: float = 1.0  # factor on the embedding
    residual_scale: float = 1.0  # factor on what attention and MLP add to the stream
    logit_scale: float = 1.0  # factor on the logits
    head_bias: bool = False  # the unembedding adds a bias
    tied: bool  # the unembedding is the embedding, transposed

    def axis_sizes(self) -> dict[str, int]:
        """Sizes of the logical axes that parameters are made of."""
        return {
            "layers": self.n_layers,
            "embed": self.d_model,
            "heads": self.n_heads,
            "kv_heads": self.n_kv_heads,
            "head_dim": self.d_head,
            "mlp": self.d_mlp,
            "vocab": self.vocab_size,
            "positions": self.n_positions,
        }


NO_WINDOW = 2**30  # of a layer without one among others that have one

ACTIVATIONS: dict[str, Literal["gelu", "gelu_tanh", "relu", "silu"]] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}

# Attributes that no decoder's forward pass depends on: bookkeeping, training and generation.
IRRELEVANT = frozenset(
    """
    _attn_implementation_autoset _commit_hash _name_or_path _num_labels architectures attn_pdrop attention_dropout bad_words_ids begin_suppress_tokens
    bos_token_id chunk_size_feed_forward classifier_dropout decoder_start_token_id diversity_penalty do_sample dtype early_stopping
    embd_pdrop encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty finetuning_task forced_bos_token_id
    forced_eos_token_id gradient_checkpointing hidden_dropout id2label initializer_range label2id length_penalty max_length min_length
    model_type is_encoder_decoder no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_attentions output_hidden_states output_past output_scores
    pad_token_id prefix problem_type pruned_heads remove_invalid_values repetition_penalty resid_pdrop return_dict return_dict_in_generate
    sep_token_id suppress_tokens task_specific_params temperature tf_legacy_loss tie_encoder_decoder tokenizer_class top_k top_p torch_dtype torchscript
    transformers_version typical_p unsloth_fixed unsloth_version use_bfloat16 use_cache
    """.split()
)


class Attributes:
    """The attributes of a `config.json`, each to be taken, expected or known as irrelevant; `finish` raises on the rest.

    Raises InputError, naming the attribute, for one that is missing, unknown, or unequal to the value that the code assumes.
    """

    def __init__(self, values: Mapping[str, Any], within: str = "config.json"):
        self._values = {name: value for name, value in values.items() if name not in IRRELEVANT}
        self._within = within

    def take(self, name: str, default: Any = ...) -> Any:
        """The attribute's value; `default` where it is absent or null."""
        value = self._values.pop(name, None)
        if value is not None:
            return value
        if default is ...:
            raise InputError(f"{self._within} lacks {name!r}; complete it from the model's original config.json")
        return default

    def expect(self, name: str, value: Any) -> None:
        """Raise unless the attribute is absent, null or equal to `value`, which is what the code assumes."""
        found = self.take(name, value)
        if found != value:
            raise InputError(f"{self._within} sets {name!r} to {found!r}, but only {value!r} is supported; use a model without it")

    def ignore(self, *names: str) -> None:
        """Attributes of this family that do not change its forward pass."""
        for name in names:
            self._values.pop(name, None)

    def divides(self, n_heads: int, d_model: int) -> None:
        if n_heads < 1 or d_model % n_heads:
            raise InputError(f"{self._within} splits a width of {d_model} into {n_heads} heads, which does not divide; give other numbers")

    def activation(self, name: str, default: str) -> Literal["gelu", "gelu_tanh", "relu", "silu"]:
        found = self.take(name, default)
        if found not in ACTIVATIONS:
            raise InputError(
                f"{self._within} sets {name!r} to {found!r}, but only {', '.join(ACTIVATIONS)} are supported; use another model"
            )
        return ACTIVATIONS[found]

    def shape(self, n_kv_heads: int | None = None, n_positions: int = 2048) -> dict[str, Any]:
        """The sizes that Llama and its many kin name alike, but for that of a head."""
        heads = self.take("num_attention_heads")
        return {
            "n_layers": self.take("num_hidden_layers"),
            "d_model": self.take("hidden_size"),
            "n_heads": heads,
            "n_kv_heads": self.take("num_key_value_heads", n_kv_heads or heads),
            "d_mlp": self.take("intermediate_size"),
            "vocab_size": self.take("vocab_size"),
            "n_positions": self.take("max_position_embeddings", n_positions),
        }

    def windows(self, n_layers: int, sliding: Callable[[int], bool] = lambda layer: True, size: int = 0) -> tuple[int, ...]:
        """`windows` from `sliding_window` (`size` where absent) and `layer_types`, or else those layers for which `sliding` holds."""
        size = self.take("sliding_window", 0) if "sliding_window" in self._values else size
        kinds = self.take("layer_types", ["sliding_attention" if sliding(i) else "full_attention" for i in range(n_layers)])
        if len(kinds) != n_layers or not {*kinds} <= {"sliding_attention", "full_attention"}:
            raise InputError(
                f"{self._within} sets layer_types to {kinds!r}; give sliding_attention or full_attention for each of {n_layers} layers"
            )
        if not size or "sliding_attention" not in kinds:
            return ()
        return tuple(size if kind == "sliding_attention" else NO_WINDOW for kind in kinds)

    def rotary(
        self,
        d_head: int,
        base_name: str = "rope_theta",
        share_name: str = "partial_rotary_factor",
        share: float = 1.0,
        base: float = 10000.0,
    ) -> Rotary:
        """Rotary settings, from `rope_parameters` or from the older flat names with `rope_scaling`."""
        nested = self.take("rope_parameters", {})
        flat = {"rope_theta": self.take(base_name, base), "partial_rotary_factor": self.take(share_name, share)}
        scaling = self.take("rope_scaling", {})  # where both are given, transformers lets this one win
        rope = Attributes({**flat, **(scaling or nested)}, "the rotary settings of config.json")
        kind = rope.take("rope_type", rope.take("type", "default"))
        rope.ignore("type")
        dim = int(d_head * rope.take("partial_rotary_factor"))
        base = float(rope.take("rope_theta"))
        if kind == "default":
            rotary = Rotary(dim, base)
        elif kind == "linear":
            rotary = Rotary(dim, base, scaling="linear", factor=rope.take("factor"))
        elif kind == "llama3":
            rotary = Rotary(
                dim,
                base,
                scaling="llama3",
                factor=rope.take("factor"),
                low_freq_factor=rope.take("low_freq_factor"),
                high_freq_factor=rope.take("high_freq_factor"),
                original_positions=rope.take("original_max_position_embeddings"),
            )
        else:
            raise InputError(f"rotary scaling {kind!r} in config.json is not supported, only default, linear and llama3; use another model")
        rope.finish()
        return rotary

    def finish(self) -> None:
        left = sorted(name for name, value in self._values.items() if value is not None)
        if left:
            raise InputError(
                f"{self._within} has {left[0]!r}, an attribute unknown for this model_type; remove it if it does not change the model's outputs"
            )
