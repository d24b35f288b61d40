"""Sweeps whose cells are numbers, and a worker that can be killed."""

from pathlib import Path

from jaxconf.sweeps.definition import Sweep

RECORDED = Path(__file__).parent / "recorded" / "sweep"
"""What version 0.1.0 left of a sweep of four cells, two of which failed twice; of the runs what a report reads."""

# Works on the sweep of a folder until all cells are finished: each takes some time, and is the square of its number.
WORKER = """
import sys, time, random
from pathlib import Path
from jaxconf.sweeps.definition import defined
from jaxconf.sweeps.queue import work

folder = Path(sys.argv[1])
sweep = defined(folder)

def run(name, place):
    place.mkdir(exist_ok=True)
    for step in range(4):
        time.sleep(random.uniform(0.01, 0.1))
        (place / f"part{step}").write_text(name)
    (place / "run").write_text(str(sweep.cells[name]["number"] ** 2))

work(sweep, folder, run, 3, 1.2, lambda line: print(line, flush=True))
"""


def cells(count: int) -> Sweep:
    return Sweep({f"{i:02d}": {"number": i} for i in range(count)})


def write(folder: Path, text: str) -> Path:
    """The file of a sweep."""
    (folder / "sweep.toml").write_text(text)
    return folder / "sweep.toml"


def copied(model: Path, folder: Path) -> Path:
    """A model by another name."""
    folder.mkdir()
    for file in model.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())
    return folder
