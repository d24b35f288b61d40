"""The names of models in titles: without the path that they were read from."""

from pathlib import Path

import pytest

from jaxconf.results.words import facts_in_words, model_title, titled

COMMIT = "0123abcd" * 5


@pytest.mark.parametrize(
    ("model", "revision", "title"),
    [
        ("owner/name", COMMIT, "owner/name"),
        ("gpt2", COMMIT, "gpt2"),
        ("runs/first", None, "first"),
        ("runs/first/", None, "first"),
        ("/srv/models/Tiny-1.5", None, "Tiny-1.5"),
        ("../shared/models/tiny", None, "tiny"),
        ("bundled", None, "bundled"),
        (f"/cache/hub/models--owner--name/snapshots/{COMMIT}", None, "owner/name"),
        ("runs/snapshots/step100", None, "step100"),
        (r"$\frac$", None, r"$\frac$"),
        ("/", None, "/"),
    ],
)
def test_a_title_has_the_name_of_the_model(model: str, revision: str | None, title: str) -> None:
    assert model_title({"model": model, "revision": revision}) == title
    assert dict(facts_in_words({"model": model}))["Model"] == model  # the path stays among the facts


def test_the_working_folder_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path / "mine")
    assert titled(".", None) == "mine"


def test_without_a_revision_what_can_be_a_hub_id_is_one() -> None:
    assert titled("owner/name") == model_title({"model": "owner/name"}) == "owner/name"
    assert titled("a/b/c") == "c"
    assert model_title({}) == "unnamed model"
