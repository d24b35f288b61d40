"""Writes docs/scale.md: what devices send each other, from compiled programs, and how long Llama 3 70B would take.

python scripts/scale_page.py

Programs are compiled from shapes alone, on eight virtual CPU devices; no weights are made.
"""

import math
from pathlib import Path

import jax
from collectives import FLOAT32, Run, collectives, compiled_programs, predicted_effects, predicted_rows

from jaxconf.analysis.metrics import EFFECTS, UNABLATED
from jaxconf.analysis.nulls import LEAST
from jaxconf.measure.last_layer import rows_at_once
from jaxconf.models.config import DecoderConfig
from jaxconf.models.families import config_from_hf
from jaxconf.models.files import replacing
from jaxconf.models.mesh import make_mesh
from jaxconf.sweeps.estimate import DROPPED, Devices, Plan, estimate

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
MESHES = [(1, 1), (2, 1), (1, 2), (4, 1), (2, 2), (1, 4), (8, 1), (4, 2), (2, 4), (1, 8)]
RUN = Run(windows=2, length=16, rows=20, units=3)

# Assumed: NVIDIA's figures for an H100 SXM, dense. The rates of exponentials and of copying are in docs/benchmarks.md.
FP32, TF32, NVLINK, NETWORK, MEMORY = 67e12, 495e12, 450e9, 50e9, 80e9
EXPONENTIALS, COPIED = 2.67e12, 2.4e12
DEVICES, TOKENS, LENGTH = 64, 2**20, 256


def llama(d: int, n: int, layers: int, heads: int, kv_heads: int, v: int) -> DecoderConfig:
    sizes = {"hidden_size": d, "intermediate_size": n, "num_hidden_layers": layers, "vocab_size": v}
    heads_of = {"num_attention_heads": heads, "num_key_value_heads": kv_heads, "max_position_embeddings": 8192}
    return config_from_hf({"model_type": "llama", **sizes, **heads_of, "rope_theta": 5e5, "rms_norm_eps": 1e-5})


def sent(config: DecoderConfig) -> list[str]:
    lines = ["| data | model | program | collective | predicted | compiled |", "|---:|---:|---|---|---:|---:|"]
    for D, M in MESHES:
        texts = compiled_programs(config, RUN, make_mesh(D, M))
        expected = {"rows": predicted_rows(config, RUN, M), "effects": predicted_effects(config, RUN, D, M)}
        for program, text in texts.items():
            found = collectives(text)
            kinds = sorted(found | expected[program]) or ["none"]
            lines += [
                f"| {D} | {M} | {program} | {kind} | {expected[program][kind]:,} | {found[kind]:,} |" for kind in kinds
            ]
    return lines


def planned(config: DecoderConfig, sizes: tuple[int, int], memory: float, flops: float, exponentials: float) -> Plan:
    devices = Devices(DEVICES, MEMORY, flops, exponentials)
    how = {"tokens": TOKENS, "layers": [config.n_layers - 1], "adaptive": True, "frozen": "final", "nulls": LEAST}
    return estimate(config, devices, **how, memory=int(memory), sizes=sizes)


def seconds(config: DecoderConfig, sizes: tuple[int, int], memory: float) -> dict[str, float]:
    """Resource → its seconds on the devices, which work at the same time."""
    D, M = sizes
    windows = TOKENS // LENGTH // D  # of one device
    passes = 2 * predicted_rows(config, Run(windows, LENGTH, 0, 0), M)["all-reduce"]
    sums = FLOAT32 * len(EFFECTS) * (TOKENS // LENGTH) * config.d_mlp
    blocks = math.ceil(windows * (LENGTH - DROPPED) / rows_at_once(config, int(memory), True, LEAST))
    M_read = 2 * FLOAT32 * blocks * config.d_mlp // M * config.vocab_size
    return {
        "matrix products of the model (TF32)": planned(config, sizes, memory, TF32, math.inf).seconds_forward,
        "matrix products of the effects (float32)": planned(config, sizes, memory, FP32, math.inf).seconds_effects,
        "exponentials": planned(config, sizes, memory, math.inf, EXPONENTIALS).seconds_effects,
        "M = w·W_U written once and read once (memory)": M_read / COPIED,
        "sums over `model` in the model (NVLink)": 2 * (M - 1) / M * passes / NVLINK,
        "sums over `data` in the effects (network)": 2 * (D - 1) / D * sums / M / NETWORK,
        "sums gathered over `model` (NVLink)": (M - 1) / M * sums / NVLINK,
    }


def predicted(config: DecoderConfig) -> tuple[list[str], list[str]]:
    """A table, and sentences about what binds."""
    layouts = [((16, 4), 4e9), ((8, 8), 4e9), ((8, 8), 32e9)]
    columns = [seconds(config, *layout) for layout in layouts]
    heads = [f"data={data}, model={model}, {memory / 1e9:.0f} GB" for (data, model), memory in layouts]
    lines = ["| seconds | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(heads)]
    lines += [f"| {what} | " + " | ".join(f"{of[what]:.2f}" for of in columns) + " |" for what in columns[0]]
    lines.append("| sum | " + " | ".join(f"{sum(of.values()):.1f}" for of in columns) + " |")
    held = [planned(config, *layout, FP32, EXPONENTIALS) for layout in layouts]
    lines.append("| GB a device holds at most | " + " | ".join(f"{plan.peak / 1e9:.0f}" for plan in held) + " |")
    binds = [
        f"With {head}, {max(of, key=of.__getitem__)} take most of the time."
        for head, of in zip(heads, columns, strict=True)
    ]
    return lines, binds


def page() -> str:
    small = llama(64, 160, 3, 8, 8, 512)
    large = llama(8192, 28672, 80, 64, 8, 128256)
    table, binds = predicted(large)
    return f"""# Scale

Written by `python scripts/scale_page.py`, which compiles programs from shapes alone. Nothing on this page was measured
on several accelerators: the first table is exact for the programs it was read from, and the second is arithmetic.

## What devices send each other

A model of Llama's shape with {small.n_layers} layers (d = {small.d_model}, N = {small.d_mlp}, V = {small.vocab_size})
is compiled for meshes of virtual CPU devices. Each device has {RUN.windows} windows of {RUN.length} tokens,
{RUN.rows} kept positions and {RUN.units} units that intervals resample. `rows` runs the model and gathers the kept
positions; `effects` is the exact engine on them. The bytes are those of a collective's results on one device: by the
formulas of `scripts/collectives.py`, and in the text of the compiled programs.

{chr(10).join(sent(small))}

The formulas, where M devices share the weights and D split the windows, in float32:

* `rows`, if M > 1: all-reduces of (1 + 2·layers)·s·t·d + r·N numbers.
* `effects`, if D > 1: an all-reduce of {len(EFFECTS)}·p·N/M numbers, and all-gathers of {len(UNABLATED)}·D·r numbers.
* `effects`, if M > 1: all-gathers of {len(EFFECTS)}·p·N numbers.

Nothing that devices send in `effects` grows with V or d, because each has the whole folded unembedding.

## Llama 3 70B, the last layer, {TOKENS:,} tokens, {DEVICES} H100s

The operations and exponentials are those that `jaxconf sweep --plan` counts, each divided by a device's rate. Each row
is the time that one resource would take alone, and the sum is the time if none of them overlapped. The plan's factors
for products of few rows were measured on a CPU. What it leaves out (docs/sweeps.md) comes on top, and so does loading
the weights. Assumed are NVIDIA's figures for an H100 SXM: {FP32 / 1e12:.0f} TFLOP/s in float32, {TF32 / 1e12:.0f} in
TF32 (dense), {MEMORY / 1e9:.0f} GB, NVLink {NVLINK / 1e9:.0f} GB/s in each direction among 8 devices, and
{NETWORK / 1e9:.0f} GB/s between nodes for each device. Measured on one H100 (docs/benchmarks.md) are {EXPONENTIALS:.3g}
exponentials and {COPIED / 1e12:.1f} TB copied per second. The engine is the adaptive one. The columns are meshes, and
the bytes that a batch may take (`--memory`).

{chr(10).join(table)}

{chr(10).join(binds)}
"""


def main() -> None:
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", 8)
    jax.config.update("jax_disable_most_optimizations", True)  # which changes no collective
    with replacing(PAGE) as temporary:
        temporary.write_text(page(), "utf-8")


if __name__ == "__main__":
    main()
