"""Runs on the Hugging Face hub: a run folder becomes a dataset with a card, and the dataset a run folder again."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    get_token,
    is_offline_mode,
    snapshot_download,
)
from huggingface_hub.errors import HfHubHTTPError, HTTPError

from jaxconf.models.errors import InputError, first_line
from jaxconf.models.hub import hub_errors
from jaxconf.results.card import dataset_card
from jaxconf.results.neuron_table import NeuronTable
from jaxconf.results.run_folder import NEURONS, RESULT, appearing
from jaxconf.runtime.resume import RESUME

CARD = "README.md"


def push(run: str | Path, name: str, *, public: bool = False) -> str:
    """Uploads the result of an analysis to the hub, as `jaxconf push` does, and returns the address of the commit.

    The dataset `name` ("OWNER/NAME") gets the tables, figures, report and site of the run folder, and a card with what
    was found and what each column means. All of it is one commit: who reads the dataset sees the whole of the run, or
    what was there before, of which files that the run lacks are deleted. A dataset that does not exist yet is made,
    readable by its owner alone unless `public` is true, which also makes an existing one public. Raises InputError if
    the folder holds no finished analysis, or if the hub does not take it.
    """
    _check(name)
    run = Path(run)
    if not (run / NEURONS).is_file():
        begun = f"an unfinished analysis; finish it with jaxconf analyze and --out {run}, and push it then"
        unknown = "no finished analysis; give a run folder of jaxconf analyze"
        raise InputError(f"the folder {run} holds {begun if (run / RESUME).is_dir() else unknown}")
    table = NeuronTable.load(run)
    files = {path: run / path for path in _of_result(run)}
    card = dataset_card(table, name, list(files)).encode()
    if is_offline_mode():
        raise InputError("the run cannot be uploaded, because HF_HUB_OFFLINE is set; unset it")
    if get_token() is None:
        raise InputError("the hub knows nobody here; run `hf auth login`, or set HF_TOKEN to a token that may write")
    api = HfApi()
    with _upload_errors(name):
        existed = api.repo_exists(name, repo_type="dataset")
        api.create_repo(name, repo_type="dataset", private=not public, exist_ok=True)
        there = api.list_repo_files(name, repo_type="dataset")
        old = [path for path in there if path not in files and any(fnmatch(path, pattern) for pattern in RESULT)]
        commit = api.create_commit(
            name,
            [
                CommitOperationAdd(CARD, card),
                *(CommitOperationAdd(path, file) for path, file in files.items()),
                *map(CommitOperationDelete, old),
            ],
            commit_message=f"jaxconf: {table.where}",
            repo_type="dataset",
        )
        if existed and public:
            api.update_repo_settings(name, repo_type="dataset", private=False)
    return str(commit.commit_url)


def pull(name: str, out: str | Path | None = None, *, revision: str | None = None) -> NeuronTable:
    """Downloads a run that `push` uploaded into the new folder `out`, runs/NAME by default, and returns its table.

    The folder appears when it is complete, or not at all. `revision`: a branch, tag or commit of the dataset
    ("OWNER/NAME"). Raises InputError if there is no such dataset, if it holds no run, or if `out` exists.
    """
    _check(name)
    with appearing(Path(out or Path("runs") / name.rpartition("/")[2])) as folder:
        with hub_errors("dataset", name, revision):
            neurons = Path(snapshot_download(name, repo_type="dataset", revision=revision, allow_patterns=NEURONS))
        try:
            NeuronTable.load(neurons / NEURONS)
        except InputError as error:
            raise InputError(f"the dataset {name} holds no {NEURONS} of jaxconf; check its name") from error
        with hub_errors("dataset", name, revision):
            # The commit of the table, because the revision may name another by now.
            found = Path(
                snapshot_download(name, repo_type="dataset", revision=neurons.name, allow_patterns=[*RESULT, CARD])
            )
        for path in [*_of_result(found), *([CARD] if (found / CARD).is_file() else [])]:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(found / path, folder / path)
        return NeuronTable.load(folder)


def _check(name: str) -> None:
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise InputError(f"no dataset on the hub has the name {name!r}; give OWNER/NAME")


def _of_result(run: Path) -> Iterator[str]:
    """The files of an analysis in its run folder, as paths within it with slashes."""
    found = {file for pattern in RESULT for file in run.glob(pattern) if file.is_file()}
    yield from sorted(file.relative_to(run).as_posix() for file in found if not file.name.startswith("."))


@contextmanager
def _upload_errors(name: str) -> Iterator[None]:
    """Turn every failure to upload the dataset `name` into an InputError."""
    try:
        yield
    except HfHubHTTPError as error:
        if error.response.status_code in (401, 403):
            raise InputError(
                f"the token may not write the dataset {name}; set HF_TOKEN to a token that may, or give another name"
            ) from error
        raise InputError(f"the hub did not take the dataset {name} ({first_line(error)}); try again") from error
    except (OSError, HTTPError) as error:
        raise InputError(
            f"the dataset {name} cannot be uploaded to {constants.ENDPOINT} ({first_line(error)}); try again"
        ) from error
