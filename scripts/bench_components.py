"""Times the analysis of a large autoencoder's latents, and puts a line into docs/components.md.

    python scripts/bench_components.py --model FOLDER --text FILE

The autoencoder is random, with directions of length 1, and keeps the largest latents of each position. It is made for
the last stream of the model, and read in the layout of SAE Lens.
"""

import dataclasses
import json
import tempfile
from pathlib import Path

import numpy as np
import tyro
from bench_effects import device
from bench_output import write
from plan_tables import between
from safetensors.numpy import save_file

import jaxconf
from jaxconf.analysis.dictionaries import last_stream
from jaxconf.cli.common import speaking
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.runtime.memory import MEMORY

PAGE, MARK = Path(__file__).parents[1] / "docs" / "components.md", "bench_components"


@dataclasses.dataclass(frozen=True)
class Bench:
    """Measure one analysis, and write its line of docs/components.md."""

    model: Path
    """the folder of a model"""
    text: Path
    """its text"""
    latents: int = 16384
    kept: int = 64
    """the latents of a position that are not 0"""
    tokens: int = 2048


def save_autoencoder(folder: Path, width: int, site: str, bench: Bench) -> None:
    W = np.random.default_rng(0).standard_normal((bench.latents, width)).astype(np.float32)
    W /= np.linalg.norm(W, axis=1, keepdims=True)
    zeros = {"b_enc": np.zeros(bench.latents, np.float32), "b_dec": np.zeros(width, np.float32)}
    save_file({"W_enc": np.ascontiguousarray(W.T), "W_dec": W, **zeros}, folder / "sae_weights.safetensors")
    config = {"architecture": "topk", "k": bench.kept, "hook_name": site, "apply_b_dec_to_input": False}
    (folder / "cfg.json").write_text(json.dumps(config))


def main(bench: Bench) -> NeuronTable:
    lm = jaxconf.load(bench.model)
    with tempfile.TemporaryDirectory() as folder, speaking("tokens", False) as (_, progress):
        save_autoencoder(Path(folder), lm.config.d_model, last_stream(lm.config), bench)
        how = {"data": str(bench.text), "components": f"sae={folder}", "progress": progress}
        return jaxconf.analyze(lm, bench.tokens, **how)


def in_words(bench: Bench, table: NeuronTable) -> str:
    facts = table.facts
    redone = facts["pairs_redone"] / facts["pairs"]
    allowed = f"{facts['peak_memory'] / 1e9:.1f} GB with the model, at {MEMORY / 1e9:.0f} GB allowed beside it"
    audited = f"largest error in {facts['audit_pairs']:,} audited pairs {facts['audit_error']:.1g} nats"
    return (
        f"{device()}: {bench.latents:,} random latents, {bench.kept} of them not 0 at a position, of "
        f"{bench.model.name} (width {facts['d_model']}, {facts['vocab_size']:,} tokens) on {facts['tokens']:,} tokens "
        f"of {bench.text.name}: {facts['seconds'] / 60:.1f} minutes, of them {facts['seconds_compiling']:.0f} s "
        f"compiling; the most memory of the process {allowed}; {100 * redone:.1f}% of the pairs computed again, "
        f"largest bound {facts['largest_bound']:.1g} nats, {audited}."
    )


if __name__ == "__main__":
    bench = tyro.cli(Bench)
    write(PAGE, between(PAGE.read_text("utf-8"), MARK, in_words(bench, main(bench))))
