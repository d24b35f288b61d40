"""The dataset card of a run on the Hugging Face hub: what it is, how to read it, and what each column means."""

from collections.abc import Sequence

from huggingface_hub import DatasetCardData

from jaxconf.results.columns import meanings
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.run_folder import (
    NEURONS,
    NULLS,
    OPTIMUM,
    OPTIMUM_NEURONS,
    PAGES,
    PASSAGES,
    PER_TOKEN,
    PLAY,
    POSITIONS,
    SETS,
    SITE,
    TOKEN_CHANGES,
)
from jaxconf.results.words import facts_in_words, model_title

TABLES = {
    NEURONS: "a row per neuron, or other component; the facts of the run are in the schema's metadata",
    POSITIONS: "loss, entropy and D_KL(P_freq || P_model) of the unablated model at every kept position",
    NULLS: "a row per null: the effects and mediated shares of a random write direction",
    TOKEN_CHANGES: "changes of the loss at single positions",
    SETS: "the effects of ablating neurons together, beside those of random sets",
    OPTIMUM: "the model's predictions beside the best possible ones",
    OPTIMUM_NEURONS: "the same for single neurons",
    PER_TOKEN: "the predictions with and without single neurons, at every kept position",
    PAGES: "what the pages of single neurons show",
    PASSAGES: "the passages on these pages, token by token",
}
TAGS = ["jaxconf", "interpretability", "mechanistic-interpretability", "entropy-neurons", "calibration"]


def dataset_card(table: NeuronTable, name: str, files: Sequence[str]) -> str:
    """README.md of the dataset `name` ("OWNER/NAME") that holds `files` of the run, in Markdown with YAML before it."""
    tables = [file for file in TABLES if file in files]
    configs = [
        {"config_name": file.removesuffix(".parquet"), "data_files": file, **({"default": True} if not i else {})}
        for i, file in enumerate(tables)
    ]
    model = model_title(table.facts)
    about = DatasetCardData(pretty_name=f"Confidence neurons of {model}", tags=TAGS, configs=configs)
    pages = [page for page in ("report.html", f"{SITE}/index.html", PLAY) if page in files]
    return "\n".join(
        [
            "---",
            about.to_yaml().strip(),
            "---",
            f"# Confidence neurons of {_plain(model)}",
            "",
            *(f"* {_plain(sentence)}" for sentence in table.verdict()),
            "",
            f"Measured with jaxconf in {table.where}. All losses, entropies and divergences are in nats.",
            "",
            "## Reading it",
            "",
            "```python",
            "import pandas",
            "",
            f'neurons = pandas.read_parquet("hf://datasets/{name}/{NEURONS}")',
            "```",
            "",
            f"`jaxconf pull {name}` gives the run folder with the facts of the run, for `jaxconf.NeuronTable.load`.",
            *([f"Pages to download and open: {', '.join(f'`{page}`' for page in pages)}."] if pages else []),
            "",
            *_rows(("table", "holds"), [(f"`{file}`", TABLES[file]) for file in tables]),
            "",
            f"## Columns of {NEURONS}",
            "",
            *_rows(
                ("column", "unit", "meaning"),
                [(f"`{column}`", unit, said) for column, unit, said in meanings(table.frame.columns)],
            ),
            "",
            "## Facts of the run",
            "",
            *_rows(("fact", "value"), facts_in_words(table.facts)),
            "",
        ]
    )


def _rows(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown."""
    lines = [" | ".join(map(_cell, row)) for row in [heads, *rows]]
    return [f"| {line} |" for line in [lines[0], " | ".join(["---"] * len(heads)), *lines[1:]]]


def _cell(text: str) -> str:
    return text if text.startswith("`") else _plain(text)


def _plain(text: str) -> str:
    """The text in one line of Markdown, which shows it as it is."""
    return "".join(f"\\{sign}" if sign in "\\`*_[]<>|#" else sign for sign in " ".join(text.split()))
