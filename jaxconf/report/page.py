"""The report: one HTML page that holds everything it needs and opens offline."""

import json
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import pandas as pd
import plotly.io
from plotly.offline import get_plotlyjs

from jaxconf.models.files import replacing
from jaxconf.report.figures import title
from jaxconf.report.passage_page import LEGEND, told
from jaxconf.report.plots import MOST_POINTS, drawn, hover_texts, plots, token_plots
from jaxconf.results.neuron_table import COLUMNS, PER_TOKEN, SETS, Kind, NeuronTable, number, sets_in_words

MOST_ROWS = 200

CAPTIONS = {
    "figure_1": (
        "Figure 1. Entropy and prediction",
        "Each point is a neuron; high and to the left, ablating it moves the entropy without changing which token is most "
        "likely: it regulates confidence.",
    ),
    "figure_2a": (
        "Figure 2a. Norm and LogitVar",
        "Entropy neurons are expected at the lower right: a large output norm that writes almost nothing to any token's logit.",
    ),
    "figure_2c": (
        "Figure 2c. Effect on the loss with the norm frozen",
        "Where the second box lies far below the first, the neuron acts through the final norm's scale, not its logits.",
    ),
    "figure_2d": (
        "Figure 2d. Null space of the unembedding",
        "Shaded, the directions that the unembedding barely reads; a neuron that peaks there writes where no logit looks.",
    ),
    "figure_2e": (
        "Figure 2e. Null space and mediation",
        "The rule asks for both: right of the chance level (dashed) and above the least mediated share (dashed). "
        "Bright points change the entropy most.",
    ),
    "figure_3a": (
        "Figure 3a. Entropy and token frequency",
        "Each cell counts positions; where the model is unsure (right), its output should lie closer to the token frequencies "
        "(low). Circles are single positions, with their tokens on hover.",
    ),
    "figure_3b": (
        "Figure 3b. Token-frequency neurons",
        "Frequency neurons lie at the upper right, beyond both dashed lines: they move the output towards or away from the token "
        "frequencies, and their effect passes along that direction.",
    ),
    "figure_3c": (
        "Figure 3c. Effect on the loss with the frequency direction frozen",
        "Where the second box lies far below the first, the neuron acts by shifting probability between common and rare tokens.",
    ),
}

TOKEN_CAPTION = (
    "Each point is a position, above the line where ablating the neuron raises the loss. Dark points on the right are tokens that the model "
    "ranked low: where those lie high, the neuron keeps wrong predictions from costing more."
)

NAMED_COLUMNS: dict[Kind, list[str]] = {
    "entropy": ["rho", "rho_chance", "ln_mediated", "w_norm", "logit_var", "loss_abs_delta", "entropy_delta", "top1_change"],
    "frequency": [
        "freq_mediated",
        "kl_freq_abs_delta",
        "kl_freq_delta",
        "cos_freq",
        "loss_abs_delta",
        "entropy_delta",
        "top1_change",
    ],
}


def write_report(table: NeuronTable, folder: str | Path) -> Path:
    """Writes report.html into `folder`, whole or not at all, and gives its path. The page loads nothing from outside itself. Sets of
    neurons, and neurons token by token, have a section if the folder has their file.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    frame = table.to_pandas()
    leaders = frame.sort_values("loss_abs_delta", ascending=False, kind="stable").head(MOST_ROWS)
    count, points = len(frame), len(drawn(table))
    effects = pd.read_parquet(folder / PER_TOKEN) if (folder / PER_TOKEN).is_file() else None
    single = {} if effects is None else token_plots(effects, table.facts.get("seed", 0))
    every = plots(table) | {f"figure_4_{neuron}": figure for neuron, figure in single.items()}
    figures = {name: json.loads(plotly.io.to_json(figure, validate=False)) for name, figure in every.items()}
    page = Template(files("jaxconf.report").joinpath("page.html").read_text(encoding="utf-8"))
    html = page.substitute(
        style=files("jaxconf.report").joinpath("page.css").read_text(encoding="utf-8"),
        title=escape(title(table)),
        model=escape(str(table.facts.get("model", "unnamed model"))),
        where=escape(table.where),
        verdict="".join(f"<p>{escape(sentence)}</p>" for sentence in table.verdict()),
        facts="".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in table.facts_in_words()),
        rules="".join(f"<li>{escape(rule)}</li>" for rule in table.rules.describe()),
        figures="".join(_card(*item) for item in CAPTIONS.items()),
        points="" if points == count else f"The scatters draw {points:,} of the {count:,} neurons: the strongest and a sample.",
        correlation=f"Entropy and divergence (3a) correlate at {number(table.correlation())}.",
        sets=_sets(pd.read_parquet(folder / SETS)) if (folder / SETS).is_file() else "",
        tokens="" if effects is None else _tokens(effects, list(single)),
        named=_named(table, "entropy") + _named(table, "frequency"),
        leaders_title=f"{len(leaders):,} of {count:,} neurons, by mean |change of loss|" if len(leaders) < count else "All neurons",
        leaders=_rows(leaders, [column for column in COLUMNS if column not in ("layer", "neuron")], intervals=False),
        glossary="".join(f"<div><dt>{column}</dt><dd>{escape(words)}</dd></div>" for column, words in COLUMNS.items()),
        plotly=get_plotlyjs(),
        data=_inert({"figures": figures, "hover": hover_texts(table)}),
    )
    with replacing(folder / "report.html") as path:
        path.write_text(html, encoding="utf-8")
    return folder / "report.html"


def _card(name: str, caption: tuple[str, str]) -> str:
    heading, how = caption
    return f'<figure class="card"><h3>{heading}</h3><div class="plot" id="{name}"></div><figcaption>{how}</figcaption></figure>'


def _named(table: NeuronTable, kind: Kind) -> str:
    found = table.members(kind)
    rows = found if len(found) else table.nearest(kind)
    if rows.empty:
        return f"<h3>No {kind} neurons</h3><p>None can be judged: no effect on the loss was measured.</p>"
    heading = f"{kind.capitalize()} neurons" if len(found) else f"No {kind} neurons; the nearest to the rule"
    return f'<h3>{heading}</h3><div class="wide"><table>{_rows(rows, NAMED_COLUMNS[kind], intervals=True)}</table></div>'


def _sets(effects: pd.DataFrame) -> str:
    tables = []
    for heading, (names, *rows) in sets_in_words(effects):
        heads = "".join(f'<th scope="col">{escape(name)}</th>' for name in names)
        body = "".join(
            f'<tr><th scope="row">{first}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>' for first, *cells in rows
        )
        tables.append(
            f'<h3>{escape(heading)}</h3><div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'
        )
    note = "A set is worth noting where its effect lies beyond nearly all random sets of as many neurons of the same layers."
    return f'<h2 id="sets">Sets of neurons</h2><div class="box">{"".join(tables)}<p class="note">{note} Effects are in nats.</p></div>'


def _tokens(effects: pd.DataFrame, neurons: list[str]) -> str:
    every = effects["neuron"].nunique()
    few = f" The first {len(neurons)} of {every:,} neurons are shown." if len(neurons) < every else ""
    thinned = (
        f" Of more than {MOST_POINTS:,} positions, the strongest and a sample are drawn." if len(effects) > MOST_POINTS * every else ""
    )
    cards = "".join(_card(f"figure_4_{neuron}", (f"Figure 4. Neuron {neuron}, token by token", TOKEN_CAPTION)) for neuron in neurons)
    return (
        f'<h2 id="tokens">Token by token</h2><p class="note" style="margin-bottom: 12px">What ablating a neuron of --per-token does at '
        f"single positions; {PER_TOKEN} holds all of them.{few}{thinned}</p>"
        f'<div class="figures">{cards}</div><div class="box stories">{LEGEND}{"".join(told(effects, neuron) for neuron in neurons)}</div>'
    )


def _rows(frame: pd.DataFrame, columns: list[str], intervals: bool) -> str:
    heads = "".join(f'<th scope="col" title="{escape(COLUMNS[column])}">{column}</th>' for column in columns)
    body = "".join(
        f'<tr><th scope="row">{name}</th>{"".join(cell(row, column, intervals) for column in columns)}</tr>'
        for name, row in frame.to_dict("index").items()
    )
    return f'<thead><tr><th scope="col">neuron</th>{heads}</tr></thead><tbody>{body}</tbody>'


def cell(row: dict[str, Any], column: str, intervals: bool = True) -> str:
    """A figure in a table, with its interval below it if the row has one and it is asked for."""
    value = row[column]
    if column.startswith("is_"):
        return f'<td data-value="{int(value)}">{"yes" if value else "no"}</td>'
    span = ""
    if intervals and f"{column}_lo" in row:
        span = f' <span class="interval">{number(row[f"{column}_lo"])} to {number(row[f"{column}_hi"])}</span>'
    return f'<td data-value="{value}">{number(value)}{span}</td>'


def _inert(data: Any) -> str:
    """JSON that no HTML parser can take for markup."""
    return json.dumps(data, allow_nan=False).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
