"""The page of an analysis: one HTML file that holds everything that it needs and opens offline."""

from collections.abc import Sequence
from html import escape
from importlib.resources import files
from pathlib import Path

import pandas as pd

from jaxconf.analysis.metrics import COLUMNS, MIXTURE_COLUMNS
from jaxconf.models.files import replacing
from jaxconf.report.interactive import interactive_page
from jaxconf.report.markup import card, entries, head, measured, paragraphs, row, row_head, table, text
from jaxconf.report.passages.markup import passages_section
from jaxconf.report.passages.plots import token_plots
from jaxconf.report.play.page import link, write_beside
from jaxconf.report.plots import hover_texts, plots
from jaxconf.report.shown import MOST_POINTS, drawn, title
from jaxconf.results.columns import BY_RULE_COLUMNS, NAMED_COLUMNS
from jaxconf.results.experts import EXPERT_COLUMNS
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.optimum import UNABLATED, optimum_sentences
from jaxconf.results.published_rules import entropy_rules
from jaxconf.results.rules import KINDS, Kind
from jaxconf.results.run_folder import OPTIMUM, PER_TOKEN, SETS
from jaxconf.results.words import counted, facts_in_words, model_title, noun_of, number, sets_in_words, sign

MOST_ROWS = 200
DESCRIBED = COLUMNS | MIXTURE_COLUMNS

CAPTIONS = {
    "figure_1": (
        "Figure 1. Entropy and prediction",
        "Each point is a neuron. Ablating a neuron at the upper left changes the entropy, but not which token is most "
        "likely: the neuron regulates confidence.",
    ),
    "figure_2a": (
        "Figure 2a. Norm and LogitVar",
        "Entropy neurons are expected at the lower right: their output weights are large, but change the logits of all "
        "tokens almost equally.",
    ),
    "figure_2c": (
        "Figure 2c. Effect on the loss with the norm frozen",
        "How much ablation changes the loss at single positions (half of them lie in the box, 90% in the whiskers), "
        "for up to six neurons that meet the rule or come nearest to it, and for as many others together. Where the "
        "second box, with the norm frozen, lies far below the first, the neuron acts through the norm's scale.",
    ),
    "figure_2d": (
        "Figure 2d. Null space of the unembedding",
        "The unembedding maps the shaded directions to almost nothing. A neuron whose cosines peak there writes into "
        "the effective null space, and hardly changes any logit directly.",
    ),
    "figure_2e": (
        "Figure 2e. Null space and mediation",
        "An entropy neuron lies right of the chance level, and with its whole interval above the least mediated share "
        "of the rule (dashed lines); the rule also asks for a small ln_mediated_q. Bright points change the entropy "
        "most, crosses are nulls.",
    ),
    "figure_3a": (
        "Figure 3a. Entropy and token frequency",
        "Each cell counts positions; where the model is unsure (right), its output should lie closer to the token "
        "frequencies (low). Circles are single positions, with their tokens on hover.",
    ),
    "figure_3b": (
        "Figure 3b. Token-frequency neurons",
        "Frequency neurons lie right of the least change (vertical line), and with their interval above the share "
        "that 1% of the nulls reach (horizontal line); the rule also asks for a small freq_mediated_q. They move the "
        "output towards the token frequencies or away from them.",
    ),
    "figure_3c": (
        "Figure 3c. Effect on the loss with the frequency direction frozen",
        "As Figure 2c. Where the second box lies far below the first, the neuron acts by shifting probability between "
        "common and rare tokens.",
    ),
    "figure_nulls": (
        "Neurons and nulls",
        "How many neurons, and how many nulls, reach a mediated share. A neuron right of the nulls' curve has a larger "
        "share than every null. Among thousands of neurons some lie there by chance, so the rules ask for a small q. "
        "Very low shares are drawn at the left edge.",
    ),
}

MEANS_CAPTION = (
    "Mean |change of loss| of neurons that meet the rule or come nearest to it, and of as many others. Where the "
    "second box lies far below the first, the neurons act through what is frozen in it."
)

TOKEN_CAPTION = (
    "Each point is a position. It lies above the line if ablating the neuron raises the loss. Dark points on the right "
    "are tokens that the model ranked low. If these lie high, the neuron reduces the loss of wrong predictions."
)


def write_report(found: NeuronTable, folder: str | Path) -> Path:
    """Writes report.html into `folder`, whole or not at all, and returns its path.

    The page loads nothing from outside itself. It has a section on neuron sets and one on single tokens if the folder
    has their files. Beside the report of the bundled model lies the page to play with.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sets, effects = (pd.read_parquet(file) if (file := folder / name).is_file() else None for name in (SETS, PER_TOKEN))
    single = {} if effects is None else token_plots(effects, found.facts.get("seed", 0))
    every = plots(found) | {f"figure_4_{neuron}": figure for neuron, figure in single.items()}
    html = interactive_page(
        files("jaxconf.report") / "page.html",
        every,
        {"hover": hover_texts(found)},
        title=escape(title(found)),
        model=escape(model_title(found.facts)),
        where=escape(found.where),
        verdict=paragraphs(found.verdict()),
        play=link(found.facts),
        facts=entries(facts_in_words(found.facts)),
        rules="".join(f"<li>{escape(rule)}</li>" for rule in found.rules.describe()),
        figures="".join(_card(name, *caption) for name, caption in _captions(found).items()),
        points=_points(found),
        correlation=f"The correlation of entropy and divergence (Figure 3a) is {number(found.correlation())}.",
        sets="" if sets is None else _sets(sets),
        experts=_experts(found),
        optimum=_optimum(folder / OPTIMUM),
        tokens="" if effects is None else _tokens(effects, list(single)),
        named="".join(_named(found, kind) for kind in KINDS),
        by_rule=_by_rule(found),
        **_leaders(found),
        glossary=entries((name, what) for name, what in DESCRIBED.items() if name in found.frame),
    )
    write_beside(found.facts, folder)
    with replacing(folder / "report.html") as path:
        path.write_text(html, encoding="utf-8")
    return folder / "report.html"


def _captions(found: NeuronTable) -> dict[str, tuple[str, str]]:
    """Figure → its heading and its caption. Without effects at single positions, boxes show the means of neurons."""
    if not found.token_changes.empty:
        return CAPTIONS
    return CAPTIONS | {name: (CAPTIONS[name][0], MEANS_CAPTION) for name in ("figure_2c", "figure_3c")}


def _card(name: str, heading: str, how: str) -> str:
    return card(heading, f'<div class="plot" id="{name}"></div>', how)


def _points(found: NeuronTable) -> str:
    count, points = len(found.frame), len(drawn(found))
    if points == count:
        return ""
    return f"The scatter plots show {points:,} of the {count:,} neurons: the strongest and a sample of the others."


def _leaders(found: NeuronTable) -> dict[str, str]:
    """The neurons with the largest effects on the loss, and the heading above them."""
    frame = found.to_pandas()
    leaders = frame.sort_values("loss_abs_delta", ascending=False, kind="stable").head(MOST_ROWS)
    some = f"{len(leaders):,} of {len(frame):,} neurons, by mean |change of loss|"
    columns = [column for column in DESCRIBED if column in frame and column not in ("layer", "neuron", "expert")]
    return {
        "leaders": _neurons(leaders, columns, intervals=False, id="leaders"),
        "leaders_title": some if len(leaders) < len(frame) else "All neurons",
    }


def _named(found: NeuronTable, kind: Kind) -> str:
    members = found.members(kind)
    chosen = members if len(members) else found.nearest(kind)
    if chosen.empty:
        return f"<h3>No {kind} neurons</h3><p>None can be judged: no effect on the loss was measured.</p>"
    heading = f"{kind.capitalize()} neurons" if len(members) else f"No {kind} neurons; the nearest to the rule"
    return f"<h3>{heading}</h3>{_neurons(chosen, NAMED_COLUMNS[kind], intervals=True)}"


def _by_rule(found: NeuronTable) -> str:
    """The rules for entropy neurons, and a table of the neurons that each names."""
    if not found.has_rules:
        return "<p>The analysis is of an earlier version, which did not measure what these rules ask for.</p>"
    rules, rows = entropy_rules(found.rules, found.frame), found.by_rule()
    texts = entries((rule.name, rule.text) for rule in rules)
    if rows.empty:
        return f"<dl>{texts}</dl><p>No rule names a neuron.</p>"
    names = [rule.name for rule in rules]
    columns = [column for column in BY_RULE_COLUMNS if column != "confidence_sign"]
    heads = [head("neuron"), *map(head, names), head("entropy", COLUMNS["confidence_sign"])]
    heads += [head(column, COLUMNS[column]) for column in columns]
    lines = [
        row(
            [
                row_head(name),
                *(text("✓" if record[rule] else "") for rule in names),
                text(sign(record["confidence_sign"])),
                *(measured(record, column, intervals=False) for column in columns),
            ]
        )
        for name, record in rows.head(MOST_ROWS).to_dict("index").items()
    ]
    return f'<dl style="margin-bottom: 12px">{texts}</dl>{table(heads, lines)}'


def _neurons(frame: pd.DataFrame, columns: Sequence[str], intervals: bool, **attributes: str) -> str:
    """A table of neurons; the hints of its heads describe the columns."""
    heads = [head("neuron"), *(head(column, DESCRIBED[column]) for column in columns)]
    rows = (
        row([row_head(name), *(measured(record, column, intervals) for column in columns)])
        for name, record in frame.to_dict("index").items()
    )
    return table(heads, rows, **attributes)


def _experts(found: NeuronTable) -> str:
    """The section on experts, if the model has some."""
    if found.experts.empty:
        return ""
    columns = [column for column in EXPERT_COLUMNS if column not in ("layer", "expert")]
    heads = [head("expert"), *(head(column, EXPERT_COLUMNS[column]) for column in columns)]
    rows = (
        row([row_head(f"{record['layer']}.{record['expert']}"), *(measured(record, name) for name in columns)])
        for record in found.experts.to_dict("records")
    )
    return f'<h2 id="experts">Experts</h2><div class="box">{table(heads, rows)}</div>'


def _sets(effects: pd.DataFrame) -> str:
    tables = []
    for heading, (names, *lines) in sets_in_words(effects):
        rows = (row([row_head(first), *map(text, cells)]) for first, *cells in lines)
        tables.append(f"<h3>{escape(heading)}</h3>{table(map(head, names), rows)}")
    return (
        f'<h2 id="sets">Sets of neurons</h2><div class="box">{"".join(tables)}<p class="note">An effect of a set is '
        "notable if it lies beyond those of nearly all random sets of as many neurons of the same layers. Losses, "
        "entropies and divergences are in nats.</p></div>"
    )


def _optimum(file: Path) -> str:
    """The section on the best possible predictions, if the folder has their file."""
    if not file.is_file():
        return ""
    sets = pd.read_parquet(file)
    own = sets[sets["how"] == UNABLATED]
    names = ("loss", "excess_loss", "entropy", "best_entropy", "kl", "ece", "accuracy")
    levels = ["all" if level < 0 else number(noise) for level, noise in zip(own["level"], own["noise"], strict=True)]
    rows = (
        row([row_head(level), *(measured(record, name) for name in names)])
        for level, record in zip(levels, own.to_dict("records"), strict=True)
    )
    return (
        f'<h2 id="optimum">Beside the best possible predictions</h2><div class="box">'
        f"{paragraphs(optimum_sentences(sets))}{table(map(head, ('noise ε', *names)), rows)}"
        '<p class="note">The model without any ablation, by the noise of the text. The best possible predictions are '
        "known, since the text is synthetic. Losses, entropies and divergences are in nats.</p></div>"
    )


def _tokens(effects: pd.DataFrame, neurons: list[str]) -> str:
    every = effects["neuron"].nunique()
    noun = noun_of(neurons[0])
    few = f" The first {len(neurons)} of {counted(every, noun)} are shown." if len(neurons) < every else ""
    most = f" Each figure shows {MOST_POINTS:,} positions: those with the largest effects and a sample of the others."
    thinned = most if len(effects) > MOST_POINTS * every else ""
    heading = f"Figure 4. {noun.capitalize()} {{}}, token by token"
    cards = "".join(_card(f"figure_4_{neuron}", heading.format(neuron), TOKEN_CAPTION) for neuron in neurons)
    return (
        '<h2 id="tokens">Token by token</h2><p class="note" style="margin-bottom: 12px">What ablating each '
        f"{noun} of --per-token does at single positions; {PER_TOKEN} holds all positions.{few}{thinned}</p>"
        f'<div class="figures">{cards}</div>'
        f'<div class="box stories">{passages_section(effects, neurons)}</div>'
    )
