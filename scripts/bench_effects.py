"""The exact effects engine against forming each neuron's logits with a d×V product: same inputs, same metrics, one run.

    python scripts/bench_effects.py --shape gpt2-small --json figures.json

The slow side runs on a few neurons and is scaled to all; with torch installed it is also timed there. Peak memory is what the engine adds
to the process (or the accelerator) over its inputs. Letters: r position, d width, n neuron, v vocabulary.
"""

import dataclasses
import functools
import importlib.util
import json
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from jaxconf.analysis.ablated_softmax import compiler_options
from jaxconf.analysis.effects import METRICS, effects
from jaxconf.analysis.frequency import Frequency, frequency
from jaxconf.analysis.unembedding import Readout
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import config_from_hf
from jaxconf.models.files import replacing

SHAPES = {"gpt2-small": {"n_embd": 768, "n_layer": 12, "vocab_size": 50257}, "tiny": {"n_embd": 64, "n_layer": 2, "vocab_size": 512}}


@dataclasses.dataclass(frozen=True)
class Bench:
    """Time the exact engine against the naive form."""

    shape: Literal["gpt2-small", "tiny"] = "gpt2-small"
    positions: int = 256
    naive_neurons: int = 8
    """neurons that the naive form runs on; its time is scaled to all"""
    json: Path | None = None
    """where to write the figures"""


def inputs(config: DecoderConfig, positions: int) -> tuple[Readout, Frequency, jax.Array, jax.Array, jax.Array]:
    """Random weights with logits of a standard deviation of 4, which gives confident predictions."""
    d, V, N = config.d_model, config.vocab_size, config.d_mlp
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> jax.Array:
        array = rng.standard_normal(shape, dtype=np.float32)
        return jnp.asarray(array - array.mean(-1 if shape[-1] == d else 0, keepdims=True))

    readout = Readout(normal(d, V) * (4 / d**0.5), jnp.asarray(rng.standard_normal(V, dtype=np.float32)), normal(N, d) * 0.1)
    freq = frequency(np.round(1e7 / np.arange(1, V + 1)).astype(np.int64))
    delta = jnp.asarray(rng.standard_normal((positions, N), dtype=np.float32))
    return readout, freq, normal(positions, d), delta, jnp.asarray(rng.integers(0, V, positions))


def scale(config: DecoderConfig, y: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.mean(y * y, 1, keepdims=True) + config.norm_eps)


def figures(freq: Frequency, target: jax.Array, logits: jax.Array) -> tuple[jax.Array, ...]:
    """Loss, entropy, divergence, top token and reciprocal rank of logits [r v]."""
    lp = jax.nn.log_softmax(logits)
    own = jnp.take_along_axis(lp, target[:, None], 1)
    kl = jnp.sum(freq.f * (freq.log_f - lp), 1)
    return -own[:, 0], -jnp.sum(jnp.exp(lp) * lp, 1), kl, jnp.argmax(lp, 1), 1 / (1 + jnp.sum(lp > own, 1))


def unablated(config: DecoderConfig, readout: Readout, freq: Frequency, x: jax.Array, target: jax.Array) -> Any:
    """What the naive form needs of the unablated model, once for all neurons: its figures and its coordinate along u."""
    logits = x / scale(config, x) @ readout.W_U + readout.b_U
    return figures(freq, target, logits), logits @ freq.u


def naive(
    config: DecoderConfig, readout: Readout, freq: Frequency, x: jax.Array, target: jax.Array, before: Any, change: jax.Array, w: jax.Array
) -> dict[str, jax.Array]:
    """METRICS of one neuron with write direction `w` [d] and change of activation `change` [r], from whole logit matrices [r v]."""
    (loss0, entropy0, kl0, top0, rr0), coordinate = before
    moved = x + change[:, None] * w
    total = moved / scale(config, moved) @ readout.W_U + readout.b_U
    frozen = moved / scale(config, x) @ readout.W_U + readout.b_U
    back = total + (coordinate - total @ freq.u)[:, None] * freq.u
    loss, entropy, kl, top, rr = figures(freq, target, total)
    loss_ln, entropy_ln, *_ = figures(freq, target, frozen)
    loss_fr = figures(freq, target, back)[0]
    changes = (
        loss - loss0,
        jnp.abs(loss - loss0),
        jnp.abs(loss_ln - loss0),
        jnp.abs(loss_fr - loss0),
        entropy - entropy0,
        jnp.abs(entropy - entropy0),
        jnp.abs(entropy_ln - entropy0),
        kl - kl0,
        jnp.abs(kl - kl0),
        (top != top0).astype(jnp.float32),
        jnp.abs(rr - rr0),
    )
    return {name: value.mean() for name, value in zip(METRICS, changes, strict=True)}


def naive_torch(config: DecoderConfig, readout: Readout, freq: Frequency, x: Any, change: Any, target: Any) -> Callable[[int], Any]:
    """The same in PyTorch: neuron → what its metrics are made of."""
    import torch

    torch.set_grad_enabled(False)
    W_U, b, w_out, f, log_f, u, x, change = (
        torch.from_numpy(np.array(a)) for a in (readout.W_U, readout.b_U, readout.w_out, freq.f, freq.log_f, freq.u, x, change)
    )
    target = torch.from_numpy(np.array(target)).long()

    def norm(y: Any) -> Any:
        return (y.pow(2).mean(1, keepdim=True) + config.norm_eps).sqrt()

    def loss_of(lp: Any) -> Any:
        return -lp.gather(1, target[:, None])

    coordinate = (x / norm(x) @ W_U + b) @ u

    def one(n: int) -> Any:
        moved = x + change[:, n, None] * w_out[n]
        total = moved / norm(moved) @ W_U + b
        back = total + (coordinate - total @ u)[:, None] * u
        te, ln, fr = total.log_softmax(1), (moved / norm(x) @ W_U + b).log_softmax(1), back.log_softmax(1)
        entropies = [-(lp.exp() * lp).sum(1) for lp in (te, ln)]
        rest = (f * (log_f - te)).sum(1), te.argmax(1), (te > -loss_of(te)).sum(1)
        return [loss_of(lp) for lp in (te, ln, fr)], entropies, rest

    return one


def seconds(run: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - begun


def held_bytes() -> int:
    """What the accelerator, or on a CPU this process (Linux), holds now."""
    stats = jax.devices()[0].memory_stats()
    return stats["bytes_in_use"] if stats else int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def peak_bytes() -> int:
    """The most that was ever held."""
    stats = jax.devices()[0].memory_stats()
    return stats["peak_bytes_in_use"] if stats else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(bench: Bench) -> dict[str, Any]:
    config = config_from_hf({"model_type": "gpt2", **SHAPES[bench.shape]})
    readout, freq, x, delta, target = jax.block_until_ready(inputs(config, bench.positions))
    member = jnp.full((1, bench.positions), 1 / bench.positions)
    held = held_bytes()

    begun = time.perf_counter()
    engine = (
        jax.jit(functools.partial(effects, config), compiler_options=compiler_options())
        .lower(readout, freq, x, delta, target, member)
        .compile()
    )
    seconds_compile = time.perf_counter() - begun
    exact, before = engine(readout, freq, x, delta, target, member)
    jax.block_until_ready(exact)
    peak_memory = peak_bytes() - held

    base = jax.jit(functools.partial(unablated, config))(readout, freq, x, target)
    slow = jax.jit(functools.partial(naive, config), compiler_options=compiler_options())
    chosen = np.linspace(0, config.d_mlp - 1, bench.naive_neurons).astype(int)
    run_slow = [functools.partial(slow, readout, freq, x, target, base, delta[:, n], readout.w_out[n]) for n in chosen]
    jax.block_until_ready(run_slow[0]())
    times_naive, times_exact = [], []
    for half in (run_slow[::2], run_slow[1::2]):  # in turn, so that both sides see the machine at the same speed
        times_naive += [seconds(run) for run in half]
        times_exact.append(seconds(lambda: engine(readout, freq, x, delta, target, member)))
    errors = [max(abs(float(value - exact[name][0, n])) for name, value in run().items()) for n, run in zip(chosen, run_slow, strict=True)]

    seconds_naive, seconds_exact = statistics.median(times_naive) * config.d_mlp, statistics.median(times_exact)
    result = {
        "shape": bench.shape,
        "positions": bench.positions,
        "neurons": config.d_mlp,
        "vocabulary": config.vocab_size,
        "entropy": float(before.entropy.mean()),
        "device": jax.devices()[0].device_kind,
        "jax": jax.__version__,
        "naive_neurons": len(chosen),
        "seconds_naive": seconds_naive,
        "seconds_exact": seconds_exact,
        "seconds_compile": seconds_compile,
        "ratio_exact": seconds_naive / seconds_exact,
        "peak_memory": peak_memory,
        "error_max": max(errors),
    }
    if importlib.util.find_spec("torch"):
        one = naive_torch(config, readout, freq, x, delta, target)
        one(0)
        result["seconds_naive_torch"] = statistics.median(seconds(functools.partial(one, n)) for n in chosen) * config.d_mlp
        result["ratio_exact_torch"] = result["seconds_naive_torch"] / seconds_exact
    if bench.json:
        with replacing(bench.json) as path:
            path.write_text(json.dumps(result, indent=1) + "\n")
    return result


if __name__ == "__main__":
    for name, value in main(tyro.cli(Bench)).items():
        print(f"{name:20s} {value:.4g}" if isinstance(value, float) else f"{name:20s} {value}")
