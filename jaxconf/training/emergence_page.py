"""The interactive page of a track: one HTML file that holds everything that it needs and opens offline."""

from html import escape
from importlib.resources import files
from pathlib import Path

from jaxconf.models.files import replacing
from jaxconf.report.interactive import interactive_page
from jaxconf.report.markup import card, entries, frame_table, paragraphs
from jaxconf.report.plot_style import step_places
from jaxconf.results.words import facts_in_words
from jaxconf.training.curves import about_neurons
from jaxconf.training.emergence import Emergence
from jaxconf.training.emergence_plots import MOST_GREY, curve_height, curve_plots, moving
from jaxconf.training.events import DEFINITIONS, WORDS, event_lines, events, followed, followed_neurons, in_order
from jaxconf.training.findings import with_effects
from jaxconf.training.step_axes import where
from jaxconf.training.summary import finding_lines

PAGE = "emergence.html"
CAPTION = (
    "A neuron is a point that moves from step to step; the larger, the more its ablation changes the entropy. Entropy "
    "neurons lie right of the chance level and above the least share that the rule asks for (dashed lines). Point at a "
    "neuron for its name and numbers. Changes of entropy and of loss are means of absolute values, in nats."
)
CONTROLS = (
    '<div class="controls"><button id="play" type="button">Play</button><button id="pause" type="button">Pause</button>'
    '<input id="at" type="range" min="0" max="{last}" value="{last}" step="1" aria-label="Step">'
    '<output id="told" for="at"></output></div><div class="key">{key}</div><div id="neurons"></div>'
)


def write_emergence_page(e: Emergence, folder: str | Path) -> Path:
    """Write emergence.html into `folder`, whole or not at all, and return its path.

    Its first figure moves through the steps with effects; it is left out if there are none. The page loads nothing from
    outside itself.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    effects, place, curves = with_effects(e), step_places(e.steps["step"]), curve_plots(e)
    measured = [int(step) for step in effects.index[effects]]
    steps = [{"step": step, "place": place[step], "label": f"Step {step:,}"} for step in measured]
    html = interactive_page(
        files("jaxconf.training") / PAGE,
        {"curves": curves} | ({"neurons": moving(e)} if steps else {}),
        {"steps": steps, "marker": f"shapes[{len(curves.layout.shapes) - 1}]"},
        title=escape(where(e)),
        findings=paragraphs(finding_lines(e)),
        neurons=card("Null space and mediation", _controls(e, len(steps)), CAPTION)
        if steps
        else '<p class="note">Effects were not measured, so there is no ln_mediated to show.</p>',
        events=_events(e),
        about=escape(_about(e)),
        followed=_followed(e),
        definitions=entries((WORDS[name], text) for name, text in DEFINITIONS.items()),
        facts=entries(facts_in_words(e.facts)),
        height=str(curve_height(e)),
    )
    with replacing(folder / PAGE) as path:
        path.write_text(html, encoding="utf-8")
    return folder / PAGE


def _controls(e: Emergence, steps: int) -> str:
    kinds = {"": "neurons", "entropy": "entropy rule met", "frequency": "frequency rule met"}
    if followed_neurons(e)[0]:
        kinds["ring"] = "entropy rule met at another step"
    key = "".join(f'<span class="{kind}">{words}</span>' for kind, words in kinds.items())
    return CONTROLS.format(last=steps - 1, key=key)


def _events(e: Emergence) -> str:
    """The events in order, with the letters that the curves have, and then those that did not happen."""
    lines = event_lines(e)
    count = len(in_order(events(e)))
    happened = "".join(f"<li>{escape(line)}</li>" for line in lines[:count])
    return f"<ol>{happened}</ol>" * bool(count) + paragraphs(lines[count:])


def _about(e: Emergence) -> str:
    note, count = about_neurons(e), len(e.neurons) // len(e.steps)
    few = f" Of the grey lines a sample of {MOST_GREY} is drawn." * (count > MOST_GREY)
    return f"{note[0].upper()}{note[1:]}.{few}"


def _followed(e: Emergence) -> str:
    found = followed(e)
    if found.empty:
        return ""
    effects = with_effects(e)
    shown = found[found["step"].isin(effects.index[effects])].dropna(axis=1, how="all")
    columns = [name for name in shown if name not in ("neuron", "above_chance")]
    return (
        '<h2>What the entropy neurons were before</h2><div class="box">'
        f"{frame_table(shown.assign(step=shown['step'].map('{:,}'.format)), 'neuron', columns)}"
        '<p class="note">The neurons in colour, at each step with effects.</p>'
        "</div>"
    )
