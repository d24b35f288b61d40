"""Writes the tables of scripts/README.md, which `jaxconf sweep --plan` makes from the public shapes of the models.

python scripts/plan_tables.py
"""

import collections
import dataclasses
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxconf.analysis.nulls import LEAST
from jaxconf.measure.analyze import check_options
from jaxconf.models.families import config_from_hf
from jaxconf.models.files import replacing
from jaxconf.runtime.memory import MEMORY
from jaxconf.sweeps.definition import read_sweep
from jaxconf.sweeps.estimate import Devices, Plan, estimate
from jaxconf.sweeps.words import in_words, warnings

PAGE = Path(__file__).parent / "README.md"
GPU = Devices(1, 60e9, 1e13, 5e10)


def neox(d: int, layers: int, heads: int, vocab_size: int = 50304) -> dict[str, Any]:
    sizes = {"hidden_size": d, "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": 4 * d}
    return {
        "model_type": "gpt_neox",
        **sizes,
        "vocab_size": vocab_size,
        "max_position_embeddings": 2048,
        "rotary_pct": 0.25,
    }


SHAPES = {  # as their config.json
    "EleutherAI/pythia-14m": neox(128, 6, 4),
    "EleutherAI/pythia-31m": neox(256, 6, 8),
    "EleutherAI/pythia-70m": neox(512, 6, 8),
    "EleutherAI/pythia-160m": neox(768, 12, 12),
    "EleutherAI/pythia-410m": neox(1024, 24, 16),
    "EleutherAI/pythia-1b": neox(2048, 16, 8),
    "EleutherAI/pythia-1.4b": neox(2048, 24, 16),
    "EleutherAI/pythia-2.8b": neox(2560, 32, 32),
    "EleutherAI/pythia-6.9b": neox(4096, 32, 32, 50432),
    "meta-llama/Llama-2-7b-hf": {
        "model_type": "llama",
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "intermediate_size": 11008,
        "vocab_size": 32000,
        "max_position_embeddings": 4096,
    },
}


def tomls(page: str) -> list[str]:
    """The TOML files of the sweeps on the page."""
    return re.findall(r"```toml\n(.*?)```", page, re.DOTALL)


def needs(toml: str, devices: Devices) -> collections.Counter[tuple[str, str, Plan]]:
    """What the cells of a sweep need, whose only option is `tokens`: (model, layer, plan) → number of such cells."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "sweep.toml")
        file.write_text(toml)
        cells = read_sweep(file).values()
    found: collections.Counter[tuple[str, str, Plan]] = collections.Counter()
    for cell in cells:
        config, layer = config_from_hf(SHAPES[cell["model"]]), cell.get("layer", "last")
        layers, _, tolerance = check_options(config, layer, None, "auto", 1e-4, LEAST, 0, 0)
        how: dict[str, Any] = {"layers": layers, "adaptive": tolerance is not None, "frozen": "final"}
        how |= {"memory": MEMORY, "nulls": LEAST}
        found[cell["model"].split("/")[1], str(layer), estimate(config, devices, tokens=cell["tokens"], **how)] += 1
    return found


def markdown(rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def between(page: str, name: str, inside: str) -> str:
    """The page with the text between the two markers of `name` replaced by `inside`."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    return re.sub(f"(?s){begin}.*{end}", lambda _: f"{begin}\n\n{inside}\n\n{end}", page)


def within(page: str, name: str) -> str:
    """What stands between the two markers of `name`."""
    found = re.search(f"(?s)<!-- {name} -->(.*)<!-- end of {name} -->", page)
    assert found, name
    return found[1].strip()


def written(page: str) -> str:
    """The page with its tables computed again."""
    pythia, llama = tomls(page)
    node = dataclasses.replace(GPU, count=8)
    for name, toml, devices in (("pythia", pythia, GPU), ("llama", llama, node)):
        page = between(page, name, "\n\n".join(map(markdown, in_words(needs(toml, devices)))))
    last = llama.replace(", 30]", "]")
    rows = []
    for memory in (80, 40, 24):
        smaller = dataclasses.replace(node, memory=memory * 0.75e9)
        found = needs(last, smaller)
        heads, row = in_words(found)[0]
        rows.append([f"{memory} GB", *row[2:], " ".join(warnings(found, smaller))])
    return between(page, "smaller", markdown([["each GPU", *heads[2:], "warning"], *rows]))


if __name__ == "__main__":
    text = written(PAGE.read_text())
    with replacing(PAGE) as path:
        path.write_text(text)
