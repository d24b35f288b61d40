"""Train a small decoder from scratch and save it in Hugging Face layout. Letters: b batch, t position."""

import functools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import tokenizers

from jaxconf.models.checkpoint import save_params
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Decoder, Params, forward
from jaxconf.models.errors import InputError
from jaxconf.models.families import config_from_hf, leaves
from jaxconf.models.files import replacing
from jaxconf.models.leaves import nest
from jaxconf.train_config import TrainConfig

END = "<|endoftext|>"
HELD_OUT = 0.05  # the last share of the text, on which the held-out loss is measured


def hf_config(config: TrainConfig) -> dict[str, Any]:
    """The config.json of the model to be trained."""
    return {
        "architectures": ["GPTNeoXForCausalLM"],
        "model_type": "gpt_neox",
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.neurons,
        "max_position_embeddings": config.context,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "rotary_pct": 1.0,
        "rotary_emb_base": 10000,
        "use_parallel_residual": False,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "torch_dtype": "float32",
    }


def train_tokenizer(documents: Iterator[str], vocab_size: int) -> tokenizers.Tokenizer:
    """A byte-level BPE tokenizer; token 0 is both beginning and end of text."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=[END], initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(documents, trainer)
    return tokenizer


def train(
    config: TrainConfig,
    documents: Callable[[], Iterator[str]],
    out: Path,
    report: Callable[[int, dict[str, float]], None] = lambda step, figures: None,
) -> dict[str, float]:
    """Train a tokenizer and a model on the documents and write config.json, model.safetensors and the tokenizer's files to `out`.

    `documents` is called twice, for the tokenizer and for the text. `report(step, figures)` gets the training loss (nats per token) and
    the throughput (tokens/s) every 50 steps. Returns the final figures, `held_out_loss` (nats per token) among them. The same config,
    text and device give the same weights. Raises InputError if the text is too short for the vocabulary or for one batch.
    """
    tokenizer = train_tokenizer(documents(), config.vocab_size)
    size = tokenizer.get_vocab_size()
    if size > config.vocab_size:
        raise InputError(f"vocab_size is {config.vocab_size}, but the bytes alone need {size}; give at least that")
    if size < config.vocab_size:
        raise InputError(f"the text gives a vocabulary of only {size} tokens; give more text or a smaller vocab_size")
    text = _encode(tokenizer, documents())
    n_train = int(len(text) * (1 - HELD_OUT))
    if len(text) - n_train <= config.context:
        raise InputError(f"the text gives {len(text)} tokens, too few to hold out {HELD_OUT:.0%} and still fill a sequence; give more text")
    decoder = config_from_hf(hf_config(config))
    params = jax.jit(Decoder(decoder).init)(jax.random.key(config.seed), jnp.zeros((1, 2), jnp.int32))["params"]
    optimizer = _optimizer(config, decoder)
    state = jax.jit(optimizer.init)(params)
    step_fn = jax.jit(functools.partial(_step, decoder, optimizer), donate_argnums=(0, 1))

    rng = np.random.default_rng(config.seed)
    figures: dict[str, float] = {}
    begun, losses = time.perf_counter(), []
    for step in range(1, config.steps + 1):
        params, state, loss = step_fn(params, state, _batch(text[:n_train], rng, config))
        losses.append(loss)
        if step % 50 == 0 or step == config.steps:
            mean = float(jnp.stack(losses).mean())
            rate = len(losses) * config.batch * config.context / (time.perf_counter() - begun)
            figures = {"loss": mean, "tokens_per_second": rate}
            report(step, figures)
            begun, losses = time.perf_counter(), []
    figures["held_out_loss"] = _held_out_loss(decoder, params, text[n_train:], config)
    _save(config, decoder, params, tokenizer, out)
    return figures


def _encode(tokenizer: tokenizers.Tokenizer, documents: Iterator[str]) -> np.ndarray:
    end = tokenizer.token_to_id(END)
    return np.concatenate([np.array([*tokenizer.encode(text).ids, end], np.int32) for text in documents])


def _batch(text: np.ndarray, rng: np.random.Generator, config: TrainConfig) -> np.ndarray:
    starts = rng.integers(0, len(text) - config.context, config.batch)
    return _windows(text, starts, config.context)


def _windows(text: np.ndarray, starts: np.ndarray, context: int) -> np.ndarray:
    """Sequences [b t+1]: the beginning-of-text token, then `context` tokens."""
    rows = text[starts[:, None] + np.arange(context)]
    return np.pad(rows, ((0, 0), (1, 0)))


def _loss(decoder: DecoderConfig, params: Params, batch: jax.Array) -> jax.Array:
    logits = forward(decoder, params, batch[:, :-1]).logits
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch[:, 1:]).mean()


def _step(
    decoder: DecoderConfig, optimizer: optax.GradientTransformation, params: Params, state: Any, batch: jax.Array
) -> tuple[Params, Any, jax.Array]:
    loss, gradient = jax.value_and_grad(functools.partial(_loss, decoder))(params, batch)
    updates, state = optimizer.update(gradient, state, params)
    return optax.apply_updates(params, updates), state, loss


def _optimizer(config: TrainConfig, decoder: DecoderConfig) -> optax.GradientTransformation:
    warmup = max(1, config.steps // 50)
    schedule = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, warmup, max(config.steps, warmup + 1), config.learning_rate / 10
    )
    matrices = nest((leaf.path, leaf.init in ("normal", "residual")) for leaf in leaves(decoder))
    return optax.chain(
        optax.clip_by_global_norm(config.clip), optax.adamw(schedule, b2=0.95, weight_decay=config.weight_decay, mask=matrices)
    )


def _held_out_loss(decoder: DecoderConfig, params: Params, text: np.ndarray, config: TrainConfig) -> float:
    starts = np.arange(0, len(text) - config.context, config.context)
    loss = jax.jit(functools.partial(_loss, decoder))
    chunks = [starts[i : i + config.batch] for i in range(0, len(starts), config.batch)]
    return float(
        np.average([float(loss(params, _windows(text, chunk, config.context))) for chunk in chunks], weights=[len(c) for c in chunks])
    )


def _save(config: TrainConfig, decoder: DecoderConfig, params: Params, tokenizer: tokenizers.Tokenizer, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    save_params(decoder, params, out / "model.safetensors")
    with replacing(out / "tokenizer.json") as path:
        tokenizer.save(str(path))
    names = {"bos_token": END, "eos_token": END, "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": config.context}
    for name, content in (("tokenizer_config.json", names), ("config.json", hf_config(config))):
        with replacing(out / name) as path:
            path.write_text(json.dumps(content, indent=1) + "\n")
