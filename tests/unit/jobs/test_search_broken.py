"""A technique that fails on a model leaves the search with its reason; the search goes on with the others."""

import errno
from types import SimpleNamespace
from typing import Any

import pytest

from optimizer_jobs.commands.search.command import _useful
from optimizer_jobs.techniques import registry
from optimizer_jobs.techniques.registry import recipe
from retune.api.techniques import Technique, TechniqueType
from tests.unit.jobs import models_for_tests as models

_WORDS = "it fails on this model (AttributeError: 'NoneType' object has no attribute 'opset_import')"


def _broken(*_: Any) -> str | None:
    raise AttributeError("'NoneType' object has no attribute 'opset_import'")


def _bench(does_nothing: Any) -> Any:
    return SimpleNamespace(does_nothing=does_nothing, subject=models.subject(), candidates_uri="pvc://store/candidates")


def test_a_technique_that_breaks_when_tried_is_left_out_with_its_reason() -> None:
    """What its library raised is told; the other techniques stay."""
    chosen = recipe(models.subject(), ())
    kinds = {spec.type for spec in chosen.techniques}
    assert {TechniqueType.GRAPH_OPTIMIZATION, TechniqueType.QUANTIZATION} <= kinds

    def does_nothing(spec: Technique) -> str | None:
        return _broken() if spec.type is TechniqueType.GRAPH_OPTIMIZATION else None

    useful, left_out = _useful(_bench(does_nothing), chosen)
    assert {spec.type for spec in useful} == kinds - {TechniqueType.GRAPH_OPTIMIZATION}
    assert left_out["graph"] == _WORDS


def test_a_technique_that_breaks_on_a_graph_is_unavailable_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """So `retune init` and the search both go on."""
    monkeypatch.setattr(registry.TECHNIQUES[TechniqueType.PRUNING], "unavailable", _broken)
    chosen = recipe(models.subject(), ())
    assert chosen.left_out["prune"] == _WORDS
    assert chosen.techniques


def test_a_full_store_still_ends_the_job() -> None:
    """It is no fault of a technique, and every other one would meet it too."""

    def does_nothing(_: Technique) -> str | None:
        raise OSError(errno.ENOSPC, "no space left on device")

    with pytest.raises(OSError, match="no space"):
        _useful(_bench(does_nothing), recipe(models.subject(), ()))
