"""Times the effects of neurons below the last layer against hooks that ablate one neuron a pass, on the same windows.

    export MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000  # PyTorch keeps its memory
    python scripts/bench_layers.py FOLDER --data TEXT --layer 15 --json layer-15.json
    python scripts/bench_layers.py --page docs/benchmarks.md layer-0.json layer-15.json layer-28.json

FOLDER is a model with an RMSNorm before the unembedding. Each neuron is set to its mean over the windows. One side is
`jaxconf.analysis.rerun`, which runs the layers above for chunks of neurons. The other is a pass of the whole model in
TransformerLens for every neuron, with a hook on what the MLP's down projection reads; the logits with the norm frozen
come from the stream of the same pass and a second product with the unembedding. Both compute the changes of loss (also
with the norm or the frequency frozen), entropy (also with the norm frozen), divergence, top token and reciprocal rank
at every position. The unablated model, which all neurons share, is not timed on either side. The sides are timed in
turn, so that a change of the machine's speed affects both alike; a first round, in which programs are compiled, does
not count. A run fails if a change differs by more than 1e-4 nats at a position that analyses keep.

A position could be left out of a neuron's re-run if the ablation changed neither it nor any position before it. So the
run also counts the pairs of a position and a neuron, over all neurons of the layer, whose activation changes the stream
by less than 1e-6 of its length, and those of them that no larger change precedes in their window. Letters: s window, t
position, c neuron that is timed, n neuron of the layer.
"""

import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import effects_page
import jax
import numpy as np
import tyro
from bench_effects import device
from bench_output import report, write
from plan_tables import between

from jaxconf.analysis.ablation import LayerAblation
from jaxconf.analysis.frequency import Frequency, frequency
from jaxconf.analysis.rerun import compiled_changes, unablated_sums
from jaxconf.data.documents import documents
from jaxconf.data.token_counts import count_tokens
from jaxconf.data.windows import kept_positions, windows
from jaxconf.measure.set_runs import SetRuns
from jaxconf.models.language_model import LanguageModel, load
from jaxconf.models.mesh import fetched
from jaxconf.runtime.memory import MEMORY

AGREE = 1e-4  # nats
SMALL = 1e-6  # of the stream's length: about the rounding of float32
NATS = ("loss", "loss_ln_frozen", "loss_freq_frozen", "entropy", "entropy_ln_frozen", "kl_freq")
ALL = (*NATS, "top", "reciprocal_rank")


@dataclasses.dataclass(frozen=True)
class Bench:
    """Time re-runs of the layers above some neurons against hooks."""

    files: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """the model's folder; with --page: the files that --json wrote"""
    data: Path = Path("text.txt")
    """the text"""
    layer: int = 0
    windows: int = 4
    length: int = 64
    """tokens of a window"""
    neurons: int = 12
    """neurons of the layer, evenly spaced; the hooks run on every second one"""
    rounds: int = 3
    json: Path | None = None
    """the file to write the results to"""
    page: Path | None = None
    """write the section of the documentation, and time nothing"""


def by_reruns(
    lm: LanguageModel, bench: Bench, tokens: np.ndarray, freq: Frequency, neurons: np.ndarray
) -> tuple[Callable[[], dict[str, np.ndarray]], np.ndarray]:
    """What computes the changes of all neurons, ALL [c s t], and the activation that each neuron is set to, [c]."""
    masks = np.arange(lm.config.d_mlp) == neurons[:, None]
    runs = SetRuns(lm, {bench.layer: masks}, freq, MEMORY)
    S, T = tokens.shape
    entry, before = runs.entry(tokens, np.arange(T))
    base = unablated_sums(lm.config, runs.readout, freq, entry)
    level = entry.h[bench.layer].mean((0, 1))
    ablations = {bench.layer: LayerAblation("linear", level, 0.0)}

    def changes() -> dict[str, np.ndarray]:
        parts = []
        for some, real in runs.chunks(S, T):
            found = fetched(compiled_changes(*runs.how, entry, before, base, runs.some(some, ablations)))
            parts.append({name: getattr(found, name)[real] for name in ALL})
        return {name: np.concatenate([part[name] for part in parts]) for name in ALL}

    return changes, np.asarray(level)[neurons]


def unchanged(lm: LanguageModel, layer: int, tokens: np.ndarray) -> tuple[float, float]:
    """The share of all pairs (position, neuron) of a layer whose change is SMALL, and that of those which none precedes
    that is not.
    """
    sites = [f"blocks.{layer}.{name}" for name in ("mlp.hook_post", "hook_resid_post")]
    h, x = fetched([lm.apply(tokens, capture=sites).captured[site] for site in sites])
    w_norm = np.linalg.norm(fetched(lm.params["blocks"]["mlp"]["w_out"])[layer], axis=1)
    small = np.abs(h - h.mean((0, 1))) * w_norm < SMALL * np.linalg.norm(x, axis=-1, keepdims=True)  # s t n
    return float(small.mean()), float(np.logical_and.accumulate(small, 1).mean())


def by_hooks(folder: Path, layer: int, tokens: np.ndarray, freq: Frequency) -> Callable[[int, float], dict[str, Any]]:
    """What computes the changes of a neuron that is set to a level, ALL [s t], in TransformerLens."""
    import torch
    import transformers
    from transformer_lens.model_bridge.sources.transformers import boot

    torch.set_grad_enabled(False)
    original = transformers.AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32
    )
    model = boot(str(folder), hf_model=original.eval(), device="cpu")
    text = torch.from_numpy(np.asarray(tokens)).long()
    target = text.roll(-1, 1)[..., None]
    f, u = (torch.from_numpy(np.array(x)) for x in (freq.f, freq.u))
    kept: dict[str, Any] = {}

    def keep(x: Any, hook: Any) -> Any:
        kept[hook.name] = x

    stream = [("ln_final.hook_scale", keep), ("ln_final.hook_out", keep)]

    def metrics(logits: Any, whole: bool = True) -> dict[str, Any]:
        lp = logits.log_softmax(-1)
        own = lp.gather(-1, target)
        found = {"loss": -own[..., 0]}
        if whole:
            found["entropy"] = -(lp.exp() * lp).sum(-1)
            found["kl_freq"] = (lp_before - lp) @ f  # its change: the difference of two sums would lose digits
            found["top"] = lp.argmax(-1)
            found["reciprocal_rank"] = 1 / (1 + (lp > own).sum(-1))
        return found

    as_it_was = model.run_with_hooks(text, fwd_hooks=stream)
    lp_before = as_it_was.log_softmax(-1)
    before, scale = metrics(as_it_was), kept["ln_final.hook_scale"]

    def changes(neuron: int, level: float) -> dict[str, Any]:
        def ablate(h: Any, hook: Any) -> Any:
            h = h.clone()
            h[..., neuron] = level
            return h

        te = model.run_with_hooks(text, fwd_hooks=[(f"blocks.{layer}.mlp.out.hook_in", ablate), *stream])
        ln = model.unembed(kept["ln_final.hook_out"] * (kept["ln_final.hook_scale"] / scale))
        now, frozen = metrics(te), metrics(ln)
        back = metrics(te + ((as_it_was - te) @ u)[..., None] * u, whole=False)
        found = {name: (now[name] - before[name]).numpy() for name in ("loss", "entropy", "kl_freq", "reciprocal_rank")}
        return found | {
            "loss_ln_frozen": (frozen["loss"] - before["loss"]).numpy(),
            "entropy_ln_frozen": (frozen["entropy"] - before["entropy"]).numpy(),
            "loss_freq_frozen": (back["loss"] - before["loss"]).numpy(),
            "top": (now["top"] != before["top"]).numpy(),
        }

    return changes


def main(bench: Bench, folder: Path) -> dict[str, Any]:
    lm = load(folder)
    tokens = windows(documents(str(bench.data)), lm.tokenizer, bench.windows * bench.length, bench.length).tokens
    freq = frequency(count_tokens(documents(str(bench.data)), lm.tokenizer, lm.config.vocab_size))
    neurons = np.linspace(0, lm.config.d_mlp - 1, bench.neurons).astype(int)
    ours, levels = by_reruns(lm, bench, tokens, freq, neurons)
    theirs = by_hooks(folder, bench.layer, tokens, freq)
    chosen, kept = np.arange(0, bench.neurons, 2), kept_positions(tokens, lm.special_ids)
    times: dict[str, list[float]] = {"reruns": [], "hooks": []}
    error = 0.0
    for turn in range(bench.rounds + 1):
        begin = time.perf_counter()
        found = ours()
        took = (time.perf_counter() - begin) / bench.neurons
        begin = time.perf_counter()
        of_hooks = [theirs(int(neurons[c]), float(levels[c])) for c in chosen]
        if turn:
            times["reruns"].append(took)
            times["hooks"].append((time.perf_counter() - begin) / len(chosen))
        for name in NATS:
            off = np.abs(found[name][chosen] - [x[name] for x in of_hooks])
            error = max(error, float(off[:, kept].max()))
        note = ", ".join(f"{side} {of[-1]:.3f} s" for side, of in times.items() if of)
        print(f"layer {bench.layer}, a neuron: {note or 'compiled'}; largest difference {error:.2g} nats", flush=True)
    if error > AGREE:
        raise SystemExit(f"the sides differ by {error:.2g} nats, more than {AGREE}")
    small, before_all = unchanged(lm, bench.layer, tokens)
    seconds = {f"seconds_{side}": statistics.median(of) for side, of in times.items()}
    return {
        "model": folder.name,
        "layer": bench.layer,
        "layers": lm.config.n_layers,
        "windows": len(tokens),
        "length": bench.length,
        "neurons": len(neurons),
        "neurons_hooks": len(chosen),
        "rounds": bench.rounds,
        "loss_abs_delta": float(np.abs(found["loss"]).mean()),
        "error": error,
        "unchanged": small,
        "unchanged_from_the_start": before_all,
        "device": device(),
        "jax": jax.__version__,
        **seconds,
        "ratio": seconds["seconds_hooks"] / seconds["seconds_reruns"],
    }


if __name__ == "__main__":
    bench = tyro.cli(Bench)
    if bench.page:
        inside = effects_page.layers([json.loads(file.read_text()) for file in bench.files])
        write(bench.page, between(bench.page.read_text(), effects_page.LAYERS, inside))
    else:
        report(main(bench, bench.files[0]), bench.json)
