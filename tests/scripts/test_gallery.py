"""The gallery: its pages and pictures are made from run folders, and those in docs/ are whole and small."""

import re
from pathlib import Path

import gallery
import planted_track
import pytest
from planted_table import planted_table
from planted_track import planted_optimum, planted_rows, write_in_world

from jaxconf.results.optimum import ABLATED_FROZEN
from jaxconf.results.run_folder import OPTIMUM

BYTES = 150_000


def pictures(page: Path) -> list[Path]:
    return [page.parent / name for name in re.findall(r"!\[[^]]*\]\(([^)]*)\)", page.read_text("utf-8"))]


def test_the_pictures_in_docs_are_there_and_small():
    shown = pictures(gallery.PAGE)
    assert len(shown) == 3 * len(gallery.SECTIONS)
    assert sorted(shown) == sorted(gallery.PICTURES.glob("gallery_*"))
    assert all(picture.stat().st_size <= BYTES for picture in shown)
    assert pictures(gallery.README)[0] in shown


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> gallery.Gallery:
    folder, toy = tmp_path / "run", tmp_path / "toy"
    table = planted_table()
    table.facts |= {"model": "some/model", "data": "text.txt", "knee": {"k": 1, "ratio": 4.0}}
    table.save(folder)
    sets = planted_optimum().query("step == step.max()").drop(columns="step")
    sets.replace({"how": {"doubled": ABLATED_FROZEN}}).to_parquet(folder / OPTIMUM)
    toy.mkdir()
    monkeypatch.setitem(planted_track.FACTS, "n_layers", 4)
    monkeypatch.setitem(planted_track.FACTS, "d_model", 33)
    write_in_world(toy, planted_rows())
    return gallery.Gallery(toy, folder, folder, folder)


@pytest.mark.usefixtures("drawn_quickly")
def test_a_gallery_says_what_the_runs_hold(runs: gallery.Gallery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    page, readme = tmp_path / "gallery.md", tmp_path / "README.md"
    readme.write_text("before <!-- picture --> old <!-- end of picture --> after")
    for name, path in (("PAGE", page), ("PICTURES", tmp_path / "figures"), ("README", readme)):
        monkeypatch.setattr(gallery, name, path)
    (tmp_path / "figures").mkdir()
    gallery.main(runs)
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures(page))
    table = planted_table()
    above = (table.frame["rho"] > table.frame["rho_chance"]).sum()
    assert f"{above} of 60 have more of their output weights in the null space" in page.read_text()
    assert page.read_text().count("met by 3.5, 3.17: with the norm's scale frozen, 0.5 to 0.6 of the effect") == 3
    assert "the model's entropy ranges over 1.8 nats" in page.read_text()  # from 1.1 to 2.9
    head, _, tail = readme.read_text().partition("docs/figures/gallery_smollm2_mediation.png")
    assert "before" in head
    assert "met by 3.5, 3.17" in tail
    assert "old" not in head + tail
