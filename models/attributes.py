"""`Attributes` reads a Hugging Face `config.json` and accounts for each entry."""

import math
from collections.abc import Callable, Mapping
from typing import Any

from jaxconf.models.config import NO_WINDOW, Activation
from jaxconf.models.errors import InputError, UnknownAttributes
from jaxconf.models.frequencies import Rotary, geometric, llama3, yarn

MOST_LAYERS = 10_000  # some settings become lists over layers, and a corrupt number of layers must not fill the memory

ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_python": "gelu",
    "relu": "relu",
    "relu2": "relu2",
    "silu": "silu",
    "swish": "silu",
}

# Attributes that no decoder's forward pass depends on: bookkeeping, training and generation. Weights of full precision
# often keep the quantization_config of others; those that are quantized show it in their tensors.
IRRELEVANT = frozenset(
    """
    _attn_implementation _attn_implementation_autoset _attn_implementation_internal _commit_hash _name_or_path
    _num_labels _output_attentions architectures attention_dropout attention_probs_dropout_prob attn_implementation
    attn_pdrop auto_map bad_words_ids begin_suppress_tokens bos_token_id chunk_size_feed_forward classifier_dropout
    cross_attention_hidden_size decoder_start_token_id diversity_penalty do_sample dtype early_stopping embd_pdrop
    encoder_no_repeat_ngram_size eos_token_id exponential_decay_length_penalty finetuning_task forced_bos_token_id
    forced_eos_token_id gradient_checkpointing hidden_dropout hidden_dropout_prob id2label initializer_range is_decoder
    is_encoder_decoder label2id length_penalty max_length max_sequence_length min_length model_max_length model_type
    neftune_noise_alpha no_repeat_ngram_size num_beam_groups num_beams num_return_sequences output_attentions
    output_hidden_states output_past output_scores pad_token_id prefix pretraining_tp problem_type remove_invalid_values
    repetition_penalty resid_pdrop return_dict return_dict_in_generate sep_token_id summary_activation
    summary_first_dropout summary_proj_to_labels summary_type summary_use_proj suppress_tokens task_specific_params
    temperature tf_legacy_loss tie_encoder_decoder tokenizer_class top_k top_p torch_dtype torchscript
    transformers.js_config transformers_version typical_p unsloth_fixed unsloth_version use_bfloat16 use_cache
    use_flash_attn
    quantization quantization_config
    """.split()
)

TEXT_MODEL = "text_config of config.json"  # where the attributes of a text model stand beside those of images
# Attributes of every family whose other values change the outputs → the value that the code assumes.
ASSUMED: dict[str, Any] = {"add_cross_attention": False, "is_causal": True, "pruned_heads": {}}


class Attributes:
    """The attributes of a `config.json`. A family takes, expects or ignores each of them.

    Those in IRRELEVANT are ignored for every family, and `finish` raises UnknownAttributes if any other attribute is
    left. The other methods raise InputError, naming the attribute, if it is missing or has a value that is not
    supported.
    """

    def __init__(self, values: Mapping[str, Any], within: str = "config.json"):
        self._values = {name: value for name, value in values.items() if name not in IRRELEVANT}
        self.model_type = values.get("model_type")
        self.pad_token_id = values.get("pad_token_id")  # irrelevant in every family but one
        self._within = within
        self._nested: list[Attributes] = []

    def take(self, name: str, default: Any = ...) -> Any:
        """The attribute's value; `default` where it is absent or null."""
        value = self._values.pop(name, None)
        if value is not None:
            return value
        if default is ...:
            raise InputError(f"{self._within} lacks {name!r}; complete it from the model's original config.json")
        return default

    def take_or_null(self, name: str, default: Any) -> Any:
        """The attribute's value, None where it is null; `default` only where it is absent."""
        return self._values.pop(name, default)

    def text_model(self, defaults: Mapping[str, Any]) -> "Attributes":
        """The attributes in text_config, or `defaults` where they are absent; `finish` is of these too."""
        text = Attributes({**defaults, **self.take("text_config")}, TEXT_MODEL)
        self._nested.append(text)
        return text

    def expect(self, name: str, value: Any) -> None:
        """Raise unless the attribute is absent, null or equal to `value`, which is what the code assumes."""
        found = self.take(name, value)
        if found != value:
            raise InputError(
                f"{self._within} sets {name!r} to {found!r}, but only {value!r} is supported; use a model without it"
            )

    def ignore(self, *names: str) -> None:
        """Drop attributes that do not change this family's forward pass."""
        for name in names:
            self._values.pop(name, None)

    def split(self, d_model: int, n_heads: int) -> int:
        """The width of each of the heads that the model's width is split into."""
        if n_heads < 1 or d_model % n_heads:
            raise InputError(
                f"{self._within} gives a width of {d_model}, which does not divide into {n_heads} heads; "
                "correct one of the two"
            )
        return d_model // n_heads

    def activation(self, name: str, default: str, **meant: Activation) -> Activation:
        """The activation that the attribute names. `meant`: what names mean where the family departs from the usual."""
        found, known = self.take(name, default), ACTIVATIONS | meant
        if found not in known:
            raise InputError(
                f"{self._within} sets {name!r} to {found!r}, but only {', '.join(known)} are supported; "
                "use another model"
            )
        return known[found]

    def attention_biases(self, default: bool = False) -> dict[str, Any]:
        """The biases of attention, from the attribute that most families with such a switch have."""
        bias = self.take("attention_bias", default)
        return {"qkv_bias": bias, "attn_out_bias": bias}

    def shape(
        self, n_kv_heads: int | None = None, n_positions: int = 2048, head_dim: int | None = None
    ) -> dict[str, Any]:
        """The sizes of a decoder, from the names that Llama and most families use.

        `head_dim`: the default of that attribute, where 0 stands for `d_model / n_heads`, as null in config.json does;
        None in families whose heads always have that width.
        """
        d_model, heads, layers = (
            self.take("hidden_size"),
            self.take("num_attention_heads"),
            self.take("num_hidden_layers"),
        )
        if layers > MOST_LAYERS:
            raise InputError(f"{self._within} gives the model {layers} layers, more than {MOST_LAYERS}; correct it")
        if head_dim is None:
            d_head = self.split(d_model, heads)
            self.expect("head_dim", d_head)
        else:
            d_head = self.take_or_null("head_dim", head_dim) or d_model // heads
        return {
            "n_layers": layers,
            "d_model": d_model,
            "n_heads": heads,
            "n_kv_heads": self.take("num_key_value_heads", n_kv_heads or heads),
            "d_head": d_head,
            "d_mlp": self.take("intermediate_size"),
            "vocab_size": self.take("vocab_size"),
            "n_positions": self.take("max_position_embeddings", n_positions),
        }

    def windows(
        self, n_layers: int, sliding: Callable[[int], bool] = lambda layer: True, size: int = 0
    ) -> tuple[int, ...]:
        """`DecoderConfig.windows`, from `sliding_window` and `layer_types`.

        `size`: the window where `sliding_window` is absent; a null there means no window. `sliding`: whether a layer
        has a window, where `layer_types` is absent.
        """
        size = self.take("sliding_window", 0) if "sliding_window" in self._values else size
        kinds = self.take(
            "layer_types", ["sliding_attention" if sliding(i) else "full_attention" for i in range(n_layers)]
        )
        if len(kinds) != n_layers or not {*kinds} <= {"sliding_attention", "full_attention"}:
            raise InputError(
                f"{self._within} sets layer_types to {kinds!r}; "
                f"give sliding_attention or full_attention for each of {n_layers} layers"
            )
        if not size or "sliding_attention" not in kinds:
            return ()
        return tuple(size if kind == "sliding_attention" else NO_WINDOW for kind in kinds)

    def rotary_values(
        self,
        base_name: str = "rope_theta",
        share_name: str = "partial_rotary_factor",
        share: float = 1.0,
        base: float = 10000.0,
    ) -> dict[str, Any]:
        """The rotary settings, from `rope_parameters` or from the older flat names with `rope_scaling`."""
        nested = self.take("rope_parameters", {})
        flat = {"rope_theta": self.take(base_name, base), "partial_rotary_factor": self.take(share_name, share)}
        scaling = self.take("rope_scaling", {})  # transformers prefers it where both are given
        values = {**flat, **(scaling or nested)}
        for name, own in flat.items():  # some versions of transformers save these beside the family's own names
            self.expect(name, own if self._values.get(name) == own else values[name])
        return values

    def rotary(self, shape: Mapping[str, Any], pairs: bool = False, **names: Any) -> Rotary:
        """The rotation that `rotary_values(**names)` describes, for the sizes that `shape` returns."""
        return read_rotary(self.rotary_values(**names), shape["d_head"], shape["n_positions"], pairs)

    def without_windows(self) -> None:
        """Drop what describes windows, in a model that has none, if it says so."""
        for text in self._nested:
            text.without_windows()
        if self._values.get("sliding_window") is None or self._values.get("use_sliding_window") is False:
            self.ignore("sliding_window", "use_sliding_window", "max_window_layers")
        if {*(self._values.get("layer_types") or ())} <= {"full_attention"}:
            self.ignore("layer_types")

    def finish(self) -> None:
        """Raise UnknownAttributes if any attribute is left that is not null.

        Raises InputError if one has another value than ASSUMED.
        """
        for text in self._nested:
            text.finish()
        for name, value in ASSUMED.items():
            self.expect(name, value)
        left = sorted(name for name, value in self._values.items() if value is not None)
        if left:
            raise UnknownAttributes(self._within, left)


def read_rotary(values: Mapping[str, Any], d_head: int, n_positions: int, pairs: bool = False) -> Rotary:
    """A model's rotation from Hugging Face's rotary settings, which hold `rope_theta` and `partial_rotary_factor`.

    Raises InputError for settings that are not understood. `finetuned` and `attn_factor`, which YaRN's authors saved,
    are ignored, as transformers ignores them.
    """
    rope = Attributes(values, "the rotary settings of config.json")
    kind = rope.take("rope_type", rope.take("type", "default"))
    rope.ignore("type", "finetuned", "attn_factor")
    dim, base = int(d_head * rope.take("partial_rotary_factor")), float(rope.take("rope_theta"))
    freqs = geometric(dim, base)
    magnitude, long, original = 1.0, (), 0
    match kind:
        case "default":
            pass
        case "dynamic":
            # They change only sequences that are longer than the model's positions.
            rope.ignore("factor", "original_max_position_embeddings")
        case "linear":
            freqs = freqs / rope.take("factor")
        case "llama3":
            stretch = (rope.take("factor"), rope.take("low_freq_factor"), rope.take("high_freq_factor"))
            freqs = llama3(freqs, *stretch, rope.take("original_max_position_embeddings"))
        case "yarn":
            original_positions = rope.take("original_max_position_embeddings", n_positions)
            factor = rope.take("factor", n_positions / original_positions)
            magnitude = _yarn_magnitude(rope, factor)
            turns = (rope.take("beta_fast", 32), rope.take("beta_slow", 1))
            freqs = yarn(freqs, dim, base, factor, *turns, original_positions, rope.take("truncate", True))
        case "longrope":
            import numpy as np

            original = rope.take("original_max_position_embeddings")
            factor = rope.take("factor", n_positions / original)
            magnitude = rope.take(
                "attention_factor", math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
            )
            short_factors, long_factors = (
                np.array(rope.take(name), np.float64) for name in ("short_factor", "long_factor")
            )
            if {short_factors.shape, long_factors.shape} != {freqs.shape}:
                raise InputError(
                    f"the rotary settings of config.json need {len(freqs)} numbers in short_factor and in long_factor; "
                    "correct them"
                )
            freqs, long = freqs / short_factors, tuple((freqs / long_factors).tolist())
        case _:
            known = "default, dynamic, linear, llama3, longrope and yarn"
            raise InputError(
                f"rotary scaling {kind!r} in config.json is not supported, only {known}; use another model"
            )
    rope.finish()
    return Rotary(tuple(freqs.tolist()), pairs, float(magnitude), long, original)


def _yarn_magnitude(rope: Attributes, factor: float) -> float:
    """The factor on the rotated entries: `attention_factor` if it is given, else a function of `factor`.

    The function is DeepSeek's if mscale and mscale_all_dim are given, else that of YaRN's authors.
    """
    given, above, below = rope.take("attention_factor", None), rope.take("mscale", 0), rope.take("mscale_all_dim", 0)
    log = math.log(factor) if factor > 1 else 0.0
    found = (0.1 * above * log + 1) / (0.1 * below * log + 1) if above and below else 0.1 * log + 1
    return found if given is None else given
