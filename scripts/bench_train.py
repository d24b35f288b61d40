"""Times training beside the same model in PyTorch, and training several seeds in one program beside training one.

    python scripts/bench_train.py --preset tiny --threads 1

All sides run on the same cores. In each round each side takes the same number of steps on random tokens, in turn, so
that a change of the machine's speed affects all alike; ratios are taken within a round. PyTorch runs the model of
transformers in float32, uncompiled, with plain and with fused attention, and for each of these with the optimizer and
the microbatch size that are fastest here. Needs torch and transformers, and no network.
"""

import dataclasses
import itertools
import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import jax
import numpy as np
import torch
import transformers
import tyro

from jaxconf.data.corpus import Corpus
from jaxconf.models.checkpoint import save_params
from jaxconf.models.families import config_from_hf
from jaxconf.runtime.placement import training_placement
from jaxconf.training.config import PRESETS, TrainConfig
from jaxconf.training.model_config import hf_config
from jaxconf.training.side_by_side import microbatch_size, params_of_one, start_all, training_program
from jaxconf.training.step import hyperparameters

ATTENTIONS = ("eager", "sdpa")  # attention in separate operations, and in one fused kernel

Run = Callable[[int], float]  # takes so many training steps and returns the loss of the last one


@dataclasses.dataclass(frozen=True)
class Bench:
    """Time jaxconf's training step and PyTorch's."""

    preset: Literal["tiny", "small"] = "tiny"
    """the recipe, in float32 on all sides"""
    model_type: Literal["gpt2", "gpt_neox", "llama", "opt", "stablelm"] = "gpt_neox"
    steps: int = 2
    """training steps of each side in a round"""
    rounds: int = 5
    threads: int = len(os.sched_getaffinity(0))
    """cores that all sides run on; by default all that the process may use"""
    seeds: int = 4
    """how many models, which differ in their seeds, are trained in one program"""


def ours(config: TrainConfig, corpus: Corpus, seeds: int, start_folder: Path | None = None) -> Run:
    """jaxconf's training of `seeds` models in one program.

    The initial weights of the first model are written to `start_folder`.
    """
    configs = [dataclasses.replace(config, seed=seed) for seed in range(seeds)]
    hf = hf_config(config, corpus.begin, corpus.end)
    decoder = config_from_hf(hf)
    mesh = training_placement(decoder, seeds, config.batch)
    hyper = hyperparameters(configs)
    state, done = start_all(decoder, mesh, hyper), 0
    if start_folder:
        save_params(decoder, params_of_one(decoder, mesh, state.params, 0), start_folder / "model.safetensors")
        (start_folder / "config.json").write_text(json.dumps(hf))
    program = training_program(configs, decoder, mesh)

    def run(steps: int) -> float:
        nonlocal state, done
        for _ in range(steps):
            done += 1
            batch = np.stack([corpus.batch(c.seed, done, c.batch, c.context) for c in configs])
            state, loss = program(state, hyper, batch, done)
        return float(jax.block_until_ready((state, loss))[1][0])

    return run


def theirs(config: TrainConfig, corpus: Corpus, folder: Path, attention: str, optimizer_kind: str, at_once: int) -> Run:
    """The same training in PyTorch, from the initial weights in `folder`.

    Gradients are summed over microbatches of `at_once` sequences.
    """
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation=attention, dtype=torch.float32
    )
    model.eval()  # nothing is dropped out
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), **{optimizer_kind: True})
    warmup, done = round(config.warmup * config.steps), 0

    def run(steps: int) -> float:
        nonlocal done
        for _ in range(steps):
            done += 1
            tokens = torch.from_numpy(corpus.batch(config.seed, done, config.batch, config.context)).long()
            optimizer.zero_grad()
            total = torch.zeros(())
            for part in tokens.split(at_once):
                logits = model(part[:, :-1], use_cache=False).logits
                loss = (
                    torch.nn.functional.cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten())
                    * len(part)
                    / len(tokens)
                )
                loss.backward()
                total += loss.detach()
            torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip, foreach=True)
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * min(
                    1, done / warmup
                )  # more steps than the warm-up has are hardly timed
            optimizer.step()
        return total.item()

    return run


def seconds(run: Run, steps: int) -> tuple[float, float]:
    """Seconds per step: by the clock, and of all cores together. The second hardly depends on other processes."""
    begun, worked = time.perf_counter(), time.process_time()
    run(steps)
    return (time.perf_counter() - begun) / steps, (time.process_time() - worked) / steps


def interleaved(runs: Sequence[Run], steps: int, rounds: int) -> np.ndarray:
    """Seconds per step, [round side 2]; the last axis is that of `seconds`."""
    return np.array([[seconds(run, steps) for run in runs] for _ in range(rounds)])


def main(bench: Bench) -> None:
    cores = sorted(os.sched_getaffinity(0))[: bench.threads]
    os.sched_setaffinity(0, cores)  # for XLA's threads, which no option limits
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", bench.threads)
    torch.set_num_threads(bench.threads)
    transformers.utils.logging.disable_progress_bar()
    config = dataclasses.replace(PRESETS[bench.preset], model_type=bench.model_type, precision="float32")
    tokens = np.random.default_rng(0).integers(1, config.vocab_size, 1_000_000, np.int32)
    corpus = Corpus(tokens[:-10_000], tokens[-10_000:], 0, 0, {})
    print(
        f"{bench.preset} {bench.model_type}, {bench.threads} threads on cores {cores}, "
        f"jax {jax.__version__}, torch {torch.__version__}"
    )

    with tempfile.TemporaryDirectory() as folder:
        one = ours(config, corpus, 1, Path(folder))
        devices = math.gcd(config.batch, bench.threads)
        at_once = sorted({microbatch_size(config, config.batch // devices) * devices, config.batch})
        ways = list(itertools.product(ATTENTIONS, ("fused", "foreach"), at_once))
        torch_runs = [theirs(config, corpus, Path(folder), *way) for way in ways]
    several = ours(config, corpus, bench.seeds)

    losses = [one(1), several(1), *(run(1) for run in torch_runs)]  # compiles and warms up
    print(f"{'first losses apart by':44s} {max(losses) - min(losses):.1e} nats per token")
    trial = np.median(interleaved(torch_runs, 1, 3), 0)
    for (attention, kind, n), (clock, work) in zip(ways, trial, strict=True):
        print(
            f"  torch, {attention:5s} {kind:7s} {n:3d} at once             "
            f"{clock:9.3f} s per step, {work:.3f} s of cores' work"
        )
    cost = trial[:, 1] if bench.threads == 1 else trial[:, 0]  # on one core, only other processes make them differ
    fastest = [
        min((i for i, way in enumerate(ways) if way[0] == attention), key=cost.__getitem__) for attention in ATTENTIONS
    ]

    times = interleaved([one, several, *(torch_runs[i] for i in fastest)], bench.steps, bench.rounds)
    names = ["jaxconf", f"jaxconf, {bench.seeds} seeds", *(f"torch, {' '.join(map(str, ways[i]))}" for i in fastest)]
    for name, models, (clock, work) in zip(names, (1, bench.seeds, 1, 1), np.median(times, 0), strict=True):
        rate = models * config.batch * config.context / clock
        print(f"{name:44s} {clock:9.3f} s per step, {rate:,.0f} tokens/s; {work:.3f} s of cores' work per step")
    compared = [(f"time, {bench.seeds} seeds over one", 1, 0)]
    compared += [(f"throughput over torch, {attention}", side, 0) for side, attention in enumerate(ATTENTIONS, 2)]
    for name, over, under in compared:
        for what, ratios in zip(("", ", cores' work"), (times[:, over] / times[:, under]).T, strict=True):
            print(
                f"{name + what:44s} {statistics.median(ratios):9.3f} times, median of rounds "
                f"({ratios.min():.3f} to {ratios.max():.3f})"
            )


if __name__ == "__main__":
    main(tyro.cli(Bench))
