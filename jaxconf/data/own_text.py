"""Which text a model reads: by default its own, and the text of a world only if it was trained on that world."""

from pathlib import Path

from jaxconf.data.worlds import SOURCE, world_of
from jaxconf.models.errors import InputError
from jaxconf.models.tokenizer_names import read_json

OWN = "own"  # the name of the text that a model was trained on


def source_for(source: str, folder: Path, option: str = "--data") -> str:
    """The source of text for a model: `source` itself, as for `jaxconf.documents`, if the model can read it.

    `folder`: where the model's tokenizer is. OWN stands for the text that the model was trained on if the folder names
    one, and else for stdlib. A world has a tokenizer of its own, which reads no other text, and its text is read with
    that one only. `option`: what gives the source on the command line, for error messages. Raises InputError for text
    of a world that the model was not trained on, for other text if it was trained on one, and as `world_of` does.
    """
    own = read_json(folder / "tokenizer_config.json").get(SOURCE)
    if source == OWN:
        return own or "stdlib"
    world, trained = world_of(source), world_of(own) if own else None
    if (world and world.structure) == (trained.structure if trained else own):
        return source
    if own:
        raise InputError(
            f"the model in {folder} was trained on {own!r}, whose tokenizer reads no other text, and the text is "
            f"{source!r}; give {option} {own}"
        )
    raise InputError(
        f"the text {source!r} has a tokenizer of its own, and the model in {folder} has another; give other text with "
        f"{option}, or a model that was trained on this text"
    )
