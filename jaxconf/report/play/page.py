"""The page to play with: the bundled model, its world and what the page's scripts do with them, in one HTML file.

The model runs in the browser. forward.js is its forward pass, optimum.js the best possible prediction, measures.js what
is said about both, and page.js the page itself.
"""

import base64
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from jaxconf.analysis.neuron_names import neuron_name
from jaxconf.data.noise import Filter, Noise
from jaxconf.data.own_text import source_for
from jaxconf.data.worlds import world_of
from jaxconf.models.files import read_object, replacing
from jaxconf.models.language_model import BUNDLED, local_folder
from jaxconf.report.markup import inert_json, styled_page
from jaxconf.results.run_folder import PLAY
from jaxconf.results.words import counted

NAMED = BUNDLED / "named_neurons.json"  # written by scripts/describe_bundled.py
SCRIPTS = ("forward.js", "optimum.js", "measures.js")


def write_play_page(file: str | Path) -> None:
    """Write the page, whole or not at all. It holds all that it needs and opens from disk."""
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as path:
        path.write_text(play_page(), encoding="utf-8")


def write_beside(facts: Mapping[str, Any], folder: str | Path) -> None:
    """Write the page as PLAY into the folder of a report if its `facts` are of the bundled model.

    It lies beside the report, since a report opens offline wherever its folder is copied to.
    """
    if _is_bundled(facts):
        write_play_page(Path(folder) / PLAY)


def link(facts: Mapping[str, Any]) -> str:
    """The HTML of a report's link to the page that `write_beside` writes; nothing for another model."""
    return f'<a href="{PLAY}">Play with this model in the browser</a>' if _is_bundled(facts) else ""


def _is_bundled(facts: Mapping[str, Any]) -> bool:
    """Whether the model, or the base model of a comparison, is the bundled one."""
    return local_folder(str(facts.get("model", facts.get("base")))).resolve() == BUNDLED.resolve()


def play_page() -> str:
    """The HTML of the page."""
    here, world, neurons = files(__package__), _world(), named_neurons()
    config = read_object(BUNDLED / "config.json")
    weights = base64.b64encode((BUNDLED / "model.safetensors").read_bytes()).decode()
    layers = config["num_hidden_layers"]
    sets = {kind: ", ".join(neuron_name(layers - 1, index) for index in found) for kind, found in neurons.items()}
    return styled_page(
        here / "page.html",
        own_style=(here / "page.css").read_text("utf-8"),
        scripts="\n".join(script(name) for name in SCRIPTS),
        page=script("page.js"),
        data=inert_json({"config": config, "weights": weights, "world": of_world(world), "sets": neurons}),
        words=str(world.words),
        last_word=world.tokens[world.words - 1],
        last_marker=world.separators[-1],
        least=f"{world.noise[0]:.2f}",
        most=f"{world.noise[-1]:.2f}",
        size=f"{counted(layers, 'layer')} of {counted(config['intermediate_size'], 'neuron')}",
        **sets,
    )


def script(name: str) -> str:
    """The text of one of the page's scripts."""
    return (files(__package__) / name).read_text("utf-8")


def named_neurons() -> dict[str, list[int]]:
    """The neurons of the last layer that the rules name in the bundled model, by kind."""
    return read_object(NAMED)


def of_world(world: Noise) -> dict[str, Any]:
    """What optimum.js has to know of a noise world whose markers tell the level and whose stretches vary in length.

    Letters: L level, P place, K kind of word, W word.
    """
    known = Filter(world)
    return {
        "tokens": world.tokens,
        "words": world.words,
        "noise": known.noise.tolist(),  # L
        "next": known.table.argmax(1).tolist(),  # W: the word that follows without noise
        "kinds": world.kinds.tolist(),  # W
        "behind": known.behind.tolist(),  # L K W
        "background": known.background.tolist(),  # W
        "unseen": known.unseen.tolist(),  # L P-1 W
        "start": known.start.tolist(),  # L P
        "ended": known.ended,
        "ends": known.ends,
        "step": known.step.tolist(),  # P-1 P
    }


def _world() -> Noise:
    world = world_of(source_for("own", BUNDLED))
    assert isinstance(world, Noise)
    return world
