"""Times the exact and the adaptive effects engine against the naive form, on the same inputs and metrics in one run.

    python scripts/bench_effects.py --shape gpt2-small --json gpt2-small.json
    python scripts/bench_effects.py --model FOLDER --data TEXT --json real.json   # a model's own last layer
    python scripts/bench_effects.py --scaling   # how the exact engine's time grows with d, N, T and V
    python scripts/bench_effects.py --page docs/benchmarks.md *.json   # the page, from such files and gpu_check.json

The naive form computes the logits of each ablated neuron with a d×V product. It runs on a few neurons, and its time is
scaled to all; if torch is installed, it is also timed in PyTorch. Without --model the inputs are random: logits whose
mean entropy is 3 nats (or uniform ones), a residual stream with an rms of 10, output weights of norm 3, and activations
gelu(N(-1, 1.2²)) that are set to their mean, so that most of them change little and some much. The device's highest
rates (`ceilings`) are measured in the same run: exponentials of numbers that stay on the chip, and bytes copied. The
exact engine needs three exponentials for each position, neuron and token. Letters: r position, d width, n neuron, v
vocabulary; N neurons, T positions and V tokens where their numbers are meant.
"""

import dataclasses
import functools
import importlib.util
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import bench_model
import effects_page
import jax
import jax.numpy as jnp
import numpy as np
import tyro
from bench_output import report, write

from jaxconf.analysis.ablated_logits import PostNorm
from jaxconf.analysis.adaptive_softmax import neurons_at_once
from jaxconf.analysis.effects import Adaptive, effects
from jaxconf.analysis.frequency import Frequency, frequency
from jaxconf.analysis.metrics import EFFECTS
from jaxconf.analysis.programs import compiler_options
from jaxconf.analysis.unembedding import Readout
from jaxconf.data.own_text import OWN
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import config_from_hf

SHAPES = {  # model type, d, N, V
    "gpt2-small": ("gpt_neox", 768, 3072, 50257),
    "pythia-410m": ("gpt_neox", 1024, 4096, 50304),
    "gemma-2b": ("llama", 2048, 16384, 256000),
    "llama-2-7b": ("llama", 4096, 11008, 32000),
    "tiny": ("gpt_neox", 64, 256, 2048),
}
ENTROPY = 3.0  # nats


@dataclasses.dataclass(frozen=True)
class Bench:
    """Time the engines against the naive form."""

    pages: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """with --page: the files that --json wrote, and gpu_check.json of scripts/gpu_check.sh"""
    page: Path | None = None
    """write the page of the documentation, and time nothing"""
    shape: Literal["gpt2-small", "pythia-410m", "gemma-2b", "llama-2-7b", "tiny"] = "gpt2-small"
    logits: Literal["realistic", "uniform"] = "realistic"
    model: Path | None = None
    """the folder of a model whose last layer is timed, at positions of a text, instead of a shape"""
    data: str = OWN
    """the text, with --model; as for `jaxconf analyze --data`"""
    positions: int = 256
    tolerance: float = 1e-4
    """the largest error of the adaptive engine, in nats"""
    naive_neurons: int = 8
    """neurons that the naive form runs on; its time is scaled to all"""
    torch: bool = True
    """time the naive form in PyTorch too, on the CPU, where it is installed"""
    scaling: bool = False
    """time only the exact engine, at several sizes"""
    json: Path | None = None
    """the file to write the results to"""


def last_layer(model_type: str, d: int, N: int, V: int) -> DecoderConfig:
    """A model of which only the last layer's shape matters: LayerNorm for gpt_neox, RMSNorm for llama."""
    shape = {"hidden_size": d, "num_attention_heads": 1, "intermediate_size": N, "vocab_size": V}
    return config_from_hf({"model_type": model_type, "num_hidden_layers": 1, "max_position_embeddings": 2048, **shape})


def inputs(
    config: DecoderConfig, positions: int, logits: str
) -> tuple[Readout, Frequency, jax.Array, jax.Array, jax.Array]:
    d, V, N = config.d_model, config.vocab_size, config.d_mlp
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> jax.Array:
        array = rng.standard_normal(shape, dtype=np.float32)
        return jnp.asarray(array - array.mean(-1 if shape[-1] == d else 0, keepdims=True))

    x, W_U, b, w = 10 * normal(positions, d), normal(d, V) / d**0.5, normal(V), 3 * normal(N, d) / d**0.5
    if logits == "uniform":
        W_U, b = W_U * 1e-3, b * 0
    else:
        some = x[:32] / scale(config, x[:32]) @ W_U
        low, high = 1.0, 20.0
        for _ in range(20):  # of the logits' standard deviation
            middle = (low + high) / 2
            p = jax.nn.log_softmax(some * middle + b * 0.3)
            low, high = (middle, high) if -(jnp.exp(p) * p).sum(1).mean() > ENTROPY else (low, middle)
        W_U, b = W_U * low, b * 0.3
    pre = 1.2 * rng.standard_normal((positions, N), dtype=np.float32) - 1
    h = jax.nn.gelu(pre)
    freq = frequency(np.round(1e7 / np.arange(1, V + 1)).astype(np.int64))
    return Readout(W_U, b, w, w, 1.0), freq, x, h.mean(0) - h, jnp.asarray(rng.integers(0, V, positions))


def scale(config: DecoderConfig, y: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.mean(y * y, 1, keepdims=True) + config.norm_eps)


def metrics(freq: Frequency, target: jax.Array, logits: jax.Array) -> tuple[jax.Array, ...]:
    """Loss, entropy, divergence, top token and reciprocal rank of logits [r v]."""
    lp = jax.nn.log_softmax(logits)
    own = jnp.take_along_axis(lp, target[:, None], 1)
    kl = jnp.sum(freq.f * (freq.log_f - lp), 1)
    return -own[:, 0], -jnp.sum(jnp.exp(lp) * lp, 1), kl, jnp.argmax(lp, 1), 1 / (1 + jnp.sum(lp > own, 1))


def unablated(config: DecoderConfig, readout: Readout, freq: Frequency, x: jax.Array, target: jax.Array) -> Any:
    """What the naive form needs of the unablated model: its `metrics` and its logits' coordinate along u."""
    logits = x / scale(config, x) @ readout.W_U + readout.b_U
    return metrics(freq, target, logits), logits @ freq.u


def naive(
    config: DecoderConfig,
    readout: Readout,
    freq: Frequency,
    x: jax.Array,
    target: jax.Array,
    before: Any,
    change: jax.Array,
    n: int,
    post: PostNorm | None,
) -> dict[str, jax.Array]:
    """EFFECTS of one neuron, from whole logit matrices [r v].

    `before`: the result of `unablated`. `change`: the change of the activation of neuron `n` [r]. `post`: the outputs
    of a norm after the MLP, if there is one.
    """
    (loss0, entropy0, kl0, top0, rr0), coordinate = before
    if post is None:
        moved = x + change[:, None] * readout.w_out[n]
    else:
        mlp = post.normalized * post.scale + change[:, None] * readout.w_mlp[n]
        moved = x + (mlp / scale(config, mlp) - post.normalized) * readout.write_gain
    total = moved / scale(config, moved) @ readout.W_U + readout.b_U
    frozen = moved / scale(config, x) @ readout.W_U + readout.b_U
    back = total + (coordinate - total @ freq.u)[:, None] * freq.u
    loss, entropy, kl, top, rr = metrics(freq, target, total)
    loss_ln, entropy_ln, *_ = metrics(freq, target, frozen)
    loss_fr = metrics(freq, target, back)[0]
    changes = (
        loss - loss0,
        jnp.abs(loss - loss0),
        jnp.abs(loss_ln - loss0),
        jnp.abs(loss_fr - loss0),
        entropy - entropy0,
        jnp.abs(entropy - entropy0),
        jnp.abs(entropy_ln - entropy0),
        (scale(config, moved) / scale(config, x) - 1)[:, 0],
        config.d_model**0.5 * (scale(config, moved) - scale(config, x))[:, 0],
        kl - kl0,
        jnp.abs(kl - kl0),
        (top != top0).astype(jnp.float32),
        jnp.abs(rr - rr0),
    )
    return {name: value.mean() for name, value in zip(EFFECTS, changes, strict=True)}


def naive_torch(
    config: DecoderConfig, readout: Readout, freq: Frequency, x: Any, change: Any, target: Any
) -> Callable[[int], Any]:
    """The naive form in PyTorch: neuron → the tensors that its metrics are computed from."""
    import torch

    torch.set_grad_enabled(False)
    W_U, b, w_out, f, log_f, u, x, change = (
        torch.from_numpy(np.array(a))
        for a in (readout.W_U, readout.b_U, readout.w_out, freq.f, freq.log_f, freq.u, x, change)
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


def ceilings() -> dict[str, float]:
    """The device's highest rates of exponentials and of copied bytes, per second."""
    many, cpu = 64, jax.default_backend() == "cpu"
    # A program on an accelerator must run for milliseconds, so that the time of starting it does not count.
    x = jnp.linspace(-1, 1, 2**16 if cpu else 2**27)
    exponentials = jax.jit(
        lambda x: sum(jnp.exp(x * (1 + j / many)) for j in range(many)), compiler_options=compiler_options()
    )
    y = jnp.ones(2**27 if cpu else 2**29)
    copy = jax.jit(lambda y: y + 1)
    jax.block_until_ready((exponentials(x), copy(y)))
    return {
        "exponentials_per_second": many * x.size / min(seconds(lambda: exponentials(x)) for _ in range(20)),
        "bytes_per_second": 2 * y.nbytes / min(seconds(lambda: copy(y)) for _ in range(5)),
    }


def compiled(config: DecoderConfig, *arguments: Any) -> tuple[functools.partial[Any], float, int]:
    """The effects engine, compiled for these arguments, the seconds of compiling, and the engine's memory.

    The memory is the bytes that it needs beside the arguments, by XLA's plan.
    """
    begun = time.perf_counter()
    engine = (
        jax.jit(functools.partial(effects, config), compiler_options=compiler_options()).lower(*arguments).compile()
    )
    plan: Any = engine.memory_analysis()
    bytes_needed = plan.temp_size_in_bytes + plan.output_size_in_bytes
    return functools.partial(engine, *arguments), time.perf_counter() - begun, bytes_needed


def main(bench: Bench, note: Callable[[dict[str, Any]], None] = lambda result: None) -> dict[str, Any]:
    """The results; `note` is called with those that are there so far, each time that more are there."""
    if bench.model:
        config, drawn, post, forward = bench_model.inputs(bench.model, bench.data, bench.positions)
    else:
        config, post, forward = last_layer(*SHAPES[bench.shape]), None, None
        drawn = inputs(config, bench.positions, bench.logits)
    readout, freq, x, delta, target = jax.block_until_ready(drawn)
    rng = np.random.default_rng(1)
    audited = rng.integers(bench.positions, size=8), rng.integers(config.d_mlp, size=64)
    arguments = (readout, freq, x, delta, target, jnp.eye(bench.positions), post)
    result = about(bench, config) | ceilings()
    note(result)

    exact, result["compile_exact"], result["memory_exact"] = compiled(config, *arguments)
    note(result)
    slow_and_right, before, _ = jax.block_until_ready(exact())
    result |= {
        "entropy": float(before["entropy"].mean()),
        "loss_abs_delta": float(slow_and_right["loss_abs_delta"].mean()),
    }
    note(result)
    asked = Adaptive(bench.tolerance, audited)
    adaptive, result["compile_adaptive"], result["memory_adaptive"] = compiled(config, *arguments, asked)
    note(result)
    quick, _, audit = jax.block_until_ready(adaptive())
    result |= errors(quick, slow_and_right)
    result |= {"redone": int(audit.redone) / (bench.positions * config.d_mlp), "bound_max": float(audit.bound)}
    note(result)

    base = jax.jit(functools.partial(unablated, config))(readout, freq, x, target)
    slow = jax.jit(functools.partial(naive, config), compiler_options=compiler_options())
    chosen = np.linspace(0, config.d_mlp - 1, bench.naive_neurons).astype(int)
    run_slow = [functools.partial(slow, readout, freq, x, target, base, delta[:, n], n, post) for n in chosen]
    off = [
        max(abs(float(value - slow_and_right[name][:, n].mean())) for name, value in run().items())
        for n, run in zip(chosen, run_slow, strict=True)
    ]
    result |= {"naive_neurons": len(chosen), "error_exact": max(off)}
    times: dict[str, list[float]] = {"naive": [], "exact": [], "adaptive": []}
    for half in (run_slow[::2], run_slow[1::2]):  # in turn, so that a change of the machine's speed affects all alike
        times["naive"] += [seconds(run) for run in half]
        times["exact"].append(seconds(exact))
        times["adaptive"].append(seconds(adaptive))
        result |= compared(bench, config, times, result["exponentials_per_second"])
        note(result)
    if forward:
        product = jax.jit(functools.partial(jnp.einsum, "dv,nd->vn", precision="highest"))
        some = neurons_at_once(config.vocab_size, config.d_mlp)
        products = functools.partial(product, readout.W_U, readout.w_out[:some])
        took, of_products = (statistics.median([seconds(side) for _ in range(4)][1:]) for side in (forward, products))
        of_products *= config.d_mlp / some
        result |= {"seconds_forward": took, "shares": bench_model.shares(adaptive, of_products)}
        note(result)
    if bench.torch and post is None and importlib.util.find_spec("torch"):
        one = naive_torch(config, readout, freq, x, delta, target)
        one(0)
        result["seconds_naive_torch"] = (
            statistics.median(seconds(functools.partial(one, n)) for n in chosen) * config.d_mlp
        )
    return result


def about(bench: Bench, config: DecoderConfig) -> dict[str, Any]:
    """The facts of a run: what is timed, and on which device."""
    return {
        "shape": bench.model.name if bench.model else bench.shape,
        "logits": "of a text" if bench.model else bench.logits,
        "positions": bench.positions,
        "width": config.d_model,
        "neurons": config.d_mlp,
        "vocabulary": config.vocab_size,
        "tolerance": bench.tolerance,
        "device": device(),
        "jax": jax.__version__,
    }


def errors(quick: dict[str, jax.Array], right: dict[str, jax.Array]) -> dict[str, Any]:
    """How far the adaptive engine's metrics [r n] are from the exact engine's."""
    nats = [name for name in EFFECTS if name not in ("top1_change", "rr_abs_delta")]
    off = np.stack([np.abs(np.asarray(quick[name]) - np.asarray(right[name])) for name in nats])
    differences = int((quick["top1_change"] != right["top1_change"]).sum())
    return {"error_mean": float(off.mean()), "error_max": float(off.max()), "top1_differences": differences}


def compared(
    bench: Bench, config: DecoderConfig, times: dict[str, list[float]], exponentials: float
) -> dict[str, float]:
    """The times of the engines and of the naive form for all neurons, in seconds, and their ratios.

    `times["naive"]` are the times of single neurons. `exponentials`: the device's highest rate, per second.
    """
    took = {side: statistics.median(values) for side, values in times.items()}
    took["naive"] *= config.d_mlp
    needed = 3 * bench.positions * config.d_mlp * config.vocab_size
    return {
        **{f"seconds_{side}": value for side, value in took.items()},
        "ratio_exact": took["naive"] / took["exact"],
        "ratio_adaptive": took["naive"] / took["adaptive"],
        "exact_share_of_exponentials": needed / took["exact"] / exponentials,
    }


def device() -> str:
    """The accelerator, or the processor and how many of its cores this process may use."""
    if jax.default_backend() != "cpu":
        return jax.devices()[0].device_kind
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "CPU")
    return f"{name}, {len(os.sched_getaffinity(0))} cores"


def scaling() -> dict[str, Any]:
    """Seconds of the exact engine when one size changes, as medians of five rounds; in a round each size runs once."""
    start = {"d": 256, "N": 1024, "T": 512, "V": 8192}
    found: dict[str, Any] = {"device": device(), "jax": jax.__version__, "start": start}
    for name, values in {
        "d": (64, 256, 1024, 4096),
        "N": (512, 1024, 2048),
        "T": (256, 512, 1024),
        "V": (4096, 8192, 16384),
    }.items():
        runs = {}
        for value in values:
            size = {**start, name: value}
            config = last_layer("llama", size["d"], size["N"], size["V"])
            drawn = inputs(config, size["T"], "realistic")
            runs[value], *_ = compiled(config, *drawn, jnp.ones((1, size["T"])), None)
            jax.block_until_ready(runs[value]())
        rounds = [{value: seconds(run) for value, run in runs.items()} for _ in range(5)]
        found[name] = {value: statistics.median(times[value] for times in rounds) for value in values}
        print(f"{name}: {', '.join(f'{value} {took:.2f} s' for value, took in found[name].items())}", flush=True)
    return found


if __name__ == "__main__":
    bench = tyro.cli(Bench)
    if bench.page:
        write(bench.page, effects_page.page(bench.pages))
    else:
        report(scaling() if bench.scaling else main(bench), bench.json)
