"""Ids of the Hugging Face hub, and messages for its failures."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import constants, is_offline_mode
from huggingface_hub.errors import (
    CachedRepoTreeNotFoundError,
    GatedRepoError,
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    RevisionResolutionError,
)
from huggingface_hub.file_download import repo_folder_name

from jaxconf.models.errors import InputError, first_line

HUB_ID = r"[\w-][\w.-]*(/[\w.-]+)?"


@contextmanager
def hub_errors(kind: str, name: str, revision: str | None, before: str = "") -> Iterator[None]:
    """Turn every failure to fetch a `kind` ("model", "tokenizer" or "dataset") called `name` into an InputError.

    `before`: the beginning of its message.
    """
    try:
        yield
    except GatedRepoError as error:
        raise InputError(
            f"{before}the {kind} {name} is gated; ask for access on its page and set HF_TOKEN to your access token"
        ) from error
    except RepositoryNotFoundError as error:
        raise InputError(
            f"{before}no {kind} {name} on {constants.ENDPOINT}; check its name, or set HF_TOKEN if it is private"
        ) from error
    except RevisionNotFoundError as error:
        raise InputError(
            f"{before}the {kind} {name} has no revision {revision}; give a branch, a tag or a commit"
        ) from error
    except (LocalEntryNotFoundError, RevisionResolutionError, CachedRepoTreeNotFoundError) as error:
        if is_offline_mode():
            folder = repo_folder_name(repo_id=name, repo_type="dataset" if kind == "dataset" else "model")
            part, what = ("all in", "the rest") if Path(constants.HF_HUB_CACHE, folder).is_dir() else ("in", "it")
            problem = f"is not {part} the local cache, and HF_HUB_OFFLINE is set; unset it to download {what}"
        else:
            problem = f"cannot be fetched from {constants.ENDPOINT}; check the name and the connection, and try again"
        raise InputError(f"{before}the {kind} {name} {problem}") from error
    except (OSError, HTTPError) as error:
        reason = first_line(error)
        raise InputError(f"{before}the {kind} {name} cannot be fetched ({reason}); try again") from error
