"""The page that compares many analyses: one HTML file that holds everything that it needs and opens offline."""

import json
from collections.abc import Sequence
from html import escape
from importlib.resources import files

import pandas as pd

from jaxconf.report.interactive import interactive_page
from jaxconf.report.markup import attributes, card, head, paragraphs, row, row_head, table, text
from jaxconf.results.rules import KINDS
from jaxconf.results.words import number
from jaxconf.studies.scale.figures import against_scale, against_steps, line_colours, ranges
from jaxconf.studies.scale.summary import METRICS, SAME, WHERE

MOST_NAMED = 20  # neurons of a kind that a table shows
FURTHER = {
    "chance": "the 99% quantile of the largest rho among as many random directions",
    "tokens counted": "for the token-frequency direction, with add-one smoothing",
    "types seen": "tokens of the vocabulary that occur among those counted",
    "split-half cosine": "of the token-frequency directions from two halves of the counted tokens",
}


def scale_page(title: str, above: str, of: pd.DataFrame, named: pd.DataFrame, doubts: Sequence[str], link: str) -> str:
    """The page of analyses, whose `summaries` are `of` and whose `named_neurons` are `named`.

    `title`, `above`: the heading, and a line above it. `doubts`: sentences about what cannot be relied on. `link`: the
    place of an analysis's own report beside the page, in which {} stands for its name.
    """
    scale, steps = against_scale(of), against_steps(of)
    figures = {f"scale-{i}": figure for i, figure in enumerate(scale.values())}
    figures |= {f"steps-{i}": figure for i, figure in enumerate(steps.values())}
    return interactive_page(
        files(__package__) / "page.html",
        figures,
        {"ranges": ranges(of)},
        title=escape(title),
        above=escape(above),
        doubts=f'<section class="verdict" aria-label="Doubts">{paragraphs(doubts)}</section>' if doubts else "",
        filters="".join(_filter(key, of[key]) for key in WHERE if of[key].nunique() > 1),
        scale=_plots("scale", list(scale)) or _missing("models of several sizes"),
        key=_key(of) if steps else "",
        steps=_plots("steps", list(steps)) or _missing("a model at several training steps"),
        metric=_select("metric", METRICS),
        named=_named(named) or '<p class="note">No analysis names a neuron.</p>',
        cells=_cells(of, link),
    )


def _missing(what: str) -> str:
    return f'<p class="note">There is nothing to draw: no analyses of {what} are finished.</p>'


def _filter(key: str, values: pd.Series) -> str:
    return f"<label>{key} {_select(key, ['', *values.unique()])}</label>"


def _select(name: str, values: Sequence[str] | dict[str, str]) -> str:
    options = "".join(f'<option value="{escape(value)}">{escape(value or "all")}</option>' for value in values)
    return f'<select id="{name}" aria-label="{name}">{options}</select>'


def _plots(kind: str, headings: Sequence[str]) -> str:
    cards = (
        card(escape(heading), f'<div class="plot" id="{kind}-{i}"></div>', METRICS.get(heading, ""))
        for i, heading in enumerate(headings)
    )
    return f'<div class="figures small">{"".join(cards)}</div>' if headings else ""


def _key(of: pd.DataFrame) -> str:
    """What the colours of the lines over the steps stand for, if there are several."""
    colours = line_colours(of)
    told = [key for i, key in enumerate(SAME[1:]) if len({same[i] for same in colours}) > 1]
    spans = (
        f'<span><i style="background: {colour}"></i>'
        f"{escape(', '.join(f'{key} {dict(zip(SAME[1:], same, strict=True))[key]}' for key in told))}</span>"
        for same, colour in colours.items()
    )
    return f'<div class="key lines">{"".join(spans)}</div>' if told else ""


def _where(record: dict[str, str]) -> dict[str, str]:
    """The attribute by which the page filters."""
    return {"data-where": json.dumps(record)}


def _named(named: pd.DataFrame) -> str:
    """A table for each model, text and so on: the neurons that are named at a revision, over all revisions."""
    tables = []
    for same, group in named.groupby(list(SAME), sort=False):
        where = dict(zip(SAME, same, strict=True))
        columns = group.sort_values("step", kind="stable")["cell"].unique()
        heads = group.drop_duplicates("cell").set_index("cell")["revision"].loc[columns]
        rows, more = [], 0
        for kind in KINDS:
            own = group[group["kind"] == kind]
            times = own.groupby("neuron")["named"].sum().sort_values(ascending=False, kind="stable")
            more += max(0, len(times) - MOST_NAMED)
            share = own.pivot(index="neuron", columns="cell", values="share").reindex(columns=columns)
            is_named = own.pivot(index="neuron", columns="cell", values="named").reindex(columns=columns).eq(True)
            for neuron in times.index[:MOST_NAMED]:
                both = zip(share.loc[neuron], is_named.loc[neuron], strict=True)
                rows.append(row([row_head(neuron), text(kind), *(_share(*of_cell, kind) for of_cell in both)]))
        heading = ", ".join(filter(None, (*same[:-1], f"layer {same[-1]}" if same[-1] else "")))
        below = f'<p class="note">{more} more neurons are in the tables.</p>' if more else ""
        inner = table([head("neuron"), head("kind"), *(head(name or "share") for name in heads)], rows)
        tables.append(f"<div{attributes(_where(where))}><h3>{escape(heading)}</h3>{inner}{below}</div>")
    return "".join(tables)


def _share(value: float, named: bool, kind: str) -> str:
    return f"<td{attributes({'class': f'named {kind}'} if named else {})}>{number(value)}</td>"


def _cells(of: pd.DataFrame, link: str) -> str:
    """A row for each analysis, with a link to its own report."""
    hints = {"cell": "its own report", **dict.fromkeys(WHERE, ""), **METRICS, **FURTHER}

    def linked(name: str) -> str:
        return f'<th scope="row"><a href="{escape(link.format(name))}">{escape(name.partition("-")[0])}</a></th>'

    rows = (
        row(
            [
                linked(record["cell"]),
                *(text(record[key]) for key in WHERE),
                *(text(_number(record[key])) for key in (*METRICS, *FURTHER)),
            ],
            id=record["cell"],
            **_where({key: record[key] for key in WHERE}),
        )
        for record in of.to_dict("records")
    )
    return table((head(name, hint) for name, hint in hints.items()), rows)


def _number(value: float | None) -> str:
    if value is None or pd.isna(value):
        return "n/a"
    return f"{int(value):,}" if float(value).is_integer() else number(value)
