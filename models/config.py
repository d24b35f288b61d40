"""What a decoder is (`DecoderConfig`), and how a Hugging Face `config.json` is read without losing a word of it (`Attributes`)."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from jaxconf.models.errors import InputError


@dataclasses.dataclass(frozen=True)
class Rotary:
    """Rotary position embedding of the first `dim` entries of each head, in the half-split layout.

    Source: Su et al. 2021 (arXiv 2104.09864); `llama3` frequencies as released with Llama 3.1.
    """

    dim: int  # rotated entries of a head (an odd number counts as the next even one); the rest pass through
    base: float  # wavelengths run from 2π to 2π·base
    scaling: Literal["none", "linear", "llama3"] = "none"
    factor: float = 1.0  # positions (linear) or long wavelengths (llama3) are stretched by this
    low_freq_factor: float = 1.0  # llama3: wavelengths above original_positions / low are stretched in full
    high_freq_factor: float = 4.0  # llama3: wavelengths below original_positions / high are left alone
    original_positions: int = 8192  # llama3: the context before stretching


@dataclasses.dataclass(frozen=True)
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
    activation: Literal["gelu", "gelu_tanh", "relu", "silu"]  # "gelu" is the exact one, by erf
    gated: bool  # the MLP is act(gate)·in instead of act(in)
    parallel: bool  # attention and MLP both read the stream before the block
    learned_positions: bool  # a table of positions is added to the embedding
    rotary: Rotary | None
    attn_scale: float  # factor on q·k
    attn_scale_by_layer: bool  # layer i divides its scores by i + 1
    qkv_bias: bool
    attn_out_bias: bool
    mlp_bias: bool
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

    def rotary(self, d_head: int, base_name: str = "rope_theta", share_name: str = "partial_rotary_factor", share: float = 1.0) -> Rotary:
        """Rotary settings, from `rope_parameters` or from the older flat names with `rope_scaling`."""
        nested = self.take("rope_parameters", {})
        flat = {"rope_theta": self.take(base_name, 10000.0), "partial_rotary_factor": self.take(share_name, share)}
        scaling = self.take("rope_scaling", {})  # where both are given, transformers lets this one win
        rope = Attributes({**flat, **(scaling or nested)}, "the rotary settings of config.json")
        kind = rope.take("rope_type", rope.take("type", "default"))
        rope.ignore("type")
        dim = int(d_head * rope.take("partial_rotary_factor"))
        base = float(rope.take("rope_theta"))
        if kind == "default":
            rotary = Rotary(dim, base)
        elif kind == "linear":
            rotary = Rotary(dim, base, "linear", rope.take("factor"))
        elif kind == "llama3":
            low, high = rope.take("low_freq_factor"), rope.take("high_freq_factor")
            rotary = Rotary(dim, base, "llama3", rope.take("factor"), low, high, rope.take("original_max_position_embeddings"))
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
