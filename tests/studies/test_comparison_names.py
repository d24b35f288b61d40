"""The names that a comparison shows of its models."""

from types import SimpleNamespace
from typing import Any

from jaxconf.studies.comparison.models import name_of


def found(*models: str, **facts: Any) -> Any:
    return SimpleNamespace(facts={"base": models[0], "tuned": list(models[1:]), **facts})


def test_a_compared_model_is_shown_without_its_path() -> None:
    revisions = {"/srv/base": None, "owner/tuned": "1", "runs/mine": None}
    of = found(*revisions, revisions=revisions)
    assert [name_of(of, name) for name in revisions] == ["base", "owner/tuned", "mine"]
    assert name_of(found("/srv/base", "runs/mine"), "/srv/base") == "base"  # of an earlier version, without revisions
    assert name_of(found("/srv/" + "a" * 40, "b"), "/srv/" + "a" * 40, 10) == "…" + "a" * 9


def test_models_with_one_name_keep_their_paths() -> None:
    of = found("runs/a/final", "runs/b/final", "other")
    assert [name_of(of, name) for name in ("runs/a/final", "runs/b/final")] == ["runs/a/final", "runs/b/final"]
    assert name_of(of, "other") == "other"
