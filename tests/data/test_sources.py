"""The names of texts, and which files of a data set a subset and a split are."""

from pathlib import Path

import pytest
from hub import hub
from refusals import check_error, refused

from jaxconf.data.documents import documents
from jaxconf.data.sources import Source, in_column, parsed


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hf://datasets/o/n@refs/x/data:subset=en,split=train", Source("hf://datasets/o/n@refs/x/data", "en", "train")),
        ("a.csv:split=test,column=a, b=c:d/e", Source("a.csv", None, "test", "a, b=c:d/e")),
        ("runs/seed:n=3/a.txt", Source("runs/seed:n=3/a.txt")),
        ("stdlib", Source("stdlib")),
    ],
)
def test_a_name_says_its_fields_and_can_be_written_again(name: str, said: Source) -> None:
    assert parsed(name) == said
    assert str(said) == name


def test_a_file_is_named_by_its_path_whatever_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "a:column=b.txt"
    path.write_text("a")
    assert list(documents(str(path))) == ["a"]


def test_names_that_cannot_be_read() -> None:
    refused(
        lambda: parsed("a.csv:colum=b"), "the unknown field 'colum'", "nearest is 'column'", "subset, split, column"
    )
    refused(lambda: parsed("a.csv:column="), "has column without a value")
    refused(lambda: parsed("a.csv:split=a,split=b"), "has split twice")


def test_the_option_is_the_column_in_the_name() -> None:
    assert in_column("a.csv", None) == "a.csv"
    assert in_column("a.csv:split=test", "body") == "a.csv:split=test,column=body"
    assert in_column("a.csv:column=body", "body") == "a.csv:column=body"
    check_error(lambda: in_column("a.csv:column=body", "text"), "'body'", "'text'", "one of the two")
    check_error(lambda: in_column("a.csv", ""), "--text-column is empty")
    for source in ("own", "stdlib", "noise:words=64"):
        refused(lambda source=source: in_column(source, "body"), source, "has no columns")  # type: ignore[misc]


CARD = """---
configs:
- config_name: en
  default: true
  data_files:
  - split: train
    path: data/en-*.json
  - split: validation
    path: ["data/held/**/x.json", "data/held/z.json"]
- config_name: de
  data_dir: german
- config_name: all
  data_files: "**/*.json"
---
"""
FILES = ["data/en-0.json", "data/en-1.json", "data/held/a/b/x.json", "data/held/a/y.json", "data/held/z.json"]
FILES += ["german/deep/0.json"]


def dataset(folder: Path, files: list[str], card: str = "") -> Path:
    """A data set in which each document is the path of its file."""
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f'{{"text": "{name}"}}\n')
    if card:
        (folder / "README.md").write_text(card)
    return folder


@pytest.mark.parametrize(
    ("fields", "places"),
    [
        ("subset=en,split=train", [0, 1]),
        ("subset=en,split=validation", [2, 4]),
        ("subset=en", [0, 1, 2, 4]),
        ("split=train", [0, 1]),
        ("subset=de", [5]),
        ("subset=all,split=train", [0, 1, 2, 3, 4, 5]),
    ],
)
def test_a_card_says_which_files_are_a_split(tmp_path: Path, fields: str, places: list[int]) -> None:
    folder = dataset(tmp_path / "texts", FILES, CARD)
    with hub({"datasets/owner/texts": {"main": folder}}, tmp_path / "cache"):
        found = list(documents(f"hf://datasets/owner/texts:{fields}"))
    assert found == list(documents(f"{folder}:{fields}")) == [FILES[place] for place in places]


NAMED = ["en/test.json", "en/train-00000-of-00001.json", "fr/partial-train/0.json", "fr/valid/0.json", "trains.json"]


@pytest.mark.parametrize(
    ("fields", "places"),
    [
        ("subset=en,split=train", [1]),
        ("subset=fr", [2, 3]),
        ("split=train", [1, 2]),
        ("split=validation", [3]),
    ],
)
def test_without_a_card_the_names_say_it(tmp_path: Path, fields: str, places: list[int]) -> None:
    folder = dataset(tmp_path / "texts", NAMED)
    with hub({"datasets/owner/texts": {"main": folder}}, tmp_path / "cache"):
        found = list(documents(f"hf://datasets/owner/texts:{fields}"))
        refused(lambda: documents("hf://datasets/owner/texts/en:split=valid"), "the split 'valid'", "en/test.json")
    assert found == [NAMED[place] for place in places]


def test_subsets_and_splits_that_there_are_not(tmp_path: Path) -> None:
    folder = dataset(tmp_path, FILES, CARD)
    refused(lambda: documents(f"{folder}:subset=e"), "no subset 'e'", "nearest is 'en'", "all, de, en")
    refused(lambda: documents(f"{folder}:split=test"), "no split 'test'", "train, validation")
    dataset(folder, [], CARD.replace("  default: true\n", ""))
    refused(lambda: documents(f"{folder}:split=train"), "has the subsets all, de, en", ":subset=all")
    dataset(folder, [], CARD.replace("data/en-", "nowhere/"))
    refused(lambda: documents(f"{folder}:subset=en,split=train"), "no file of a known kind", "the split 'train'")
    dataset(folder, [], "---\nconfigs: 3\n---\n")
    refused(lambda: documents(f"{folder}:subset=en"), "README.md", "cannot be read")
