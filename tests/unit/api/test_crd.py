"""The generated CRDs: complete, bounded, described, and the same as the files in the tree."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from retune.api.crd import modeloptimization_crd, optimizationrun_crd, structural
from retune.api.generate import documents, main
from retune.api.objects import OptimizationRunSpec
from retune.api.spec import ModelOptimizationSpec
from retune.api.status import ModelOptimizationStatus
from tests import samples

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parents[3]
CRDS = (modeloptimization_crd(), optimizationrun_crd())
OF_KUBERNETES = {"apiVersion", "kind", "metadata"}
"""Fields that the API server itself defines, bounds and explains."""
every_crd = pytest.mark.parametrize("crd", CRDS, ids=lambda crd: str(crd["spec"]["names"]["kind"]))


def fields(crd: Json) -> Iterator[tuple[str, Json]]:
    """Every field of spec and status, with its path."""
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    own = {name: inner for name, inner in schema["properties"].items() if name not in OF_KUBERNETES}
    return below({"properties": own}, "")


def below(node: Json, path: str) -> Iterator[tuple[str, Json]]:
    """The fields of one schema and of all that is inside."""
    for name, inner in node.get("properties", {}).items():
        yield f"{path}.{name}", inner
        yield from below(inner, f"{path}.{name}")
    for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(node.get(key), dict):
            yield f"{path}{mark}", node[key]
            yield from below(node[key], f"{path}{mark}")


@every_crd
def test_every_field_is_described(crd: Json) -> None:
    """`kubectl explain` is the reference, so no field may be silent; a description is a sentence on one line."""
    silent = [path for path, node in fields(crd) if not path.endswith(("[]", "{}")) and not node.get("description")]
    assert silent == []
    ragged = [path for path, node in fields(crd) if "\n" in node.get("description", "")]
    assert ragged == []


@every_crd
def test_everything_that_can_grow_is_bounded(crd: Json) -> None:
    """Strings, lists and maps have an end: for etcd's sake, and because the cost of CEL rules depends on it."""
    bounds = {"string": "maxLength", "array": "maxItems"}
    bounded = {"enum", "format", "x-kubernetes-int-or-string"}  # the last by a rule
    open_ended = ((path, node) for path, node in fields(crd) if not bounded & node.keys())
    endless = [path for path, node in open_ended if bounds.get(node["type"], "type") not in node]
    assert endless == []
    assert [path for path, node in fields(crd) if "additionalProperties" in node and "maxProperties" not in node] == []


@every_crd
def test_every_list_says_how_it_is_merged(crd: Json) -> None:
    """Under server-side apply a list without a type is replaced as a whole by whoever comes last."""
    assert [
        path for path, node in fields(crd) if node.get("type") == "array" and "x-kubernetes-list-type" not in node
    ] == []


@every_crd
def test_the_schema_is_structural(crd: Json) -> None:
    """Only what the API server takes: one type a node, no references, no null, no floating point."""
    for path, node in fields(crd):
        is_either = node.get("x-kubernetes-int-or-string", False)
        assert is_either or node["type"] in {"object", "array", "string", "integer", "boolean"}, path
        assert not {"$ref", "$defs", "anyOf", "oneOf", "allOf", "title", "const"} & node.keys(), path


@every_crd
def test_sentences_are_for_people(crd: Json) -> None:
    """A rule's sentence has some words, fits on a screen, and has no full stop: the server writes on after it."""
    sentences = re.findall(r"'message': (?:'([^']*)'|\"([^\"]*)\")", str(crd))
    for sentence in (single or double for single, double in sentences):
        assert 3 < len(sentence.split()) < 30
        assert not sentence.endswith(".")


def test_a_nested_default_is_reachable() -> None:
    """The API server fills a default only where the parent exists: every object with defaults inside has one itself."""
    spec = structural(ModelOptimizationSpec)["properties"]
    for name in ("selection", "search", "execution", "rollout", "history", "serving"):
        assert "default" in spec[name], name


@pytest.mark.parametrize("model", [ModelOptimizationSpec, ModelOptimizationStatus, OptimizationRunSpec])
def test_generation_is_pure(model: type[BaseModel]) -> None:
    """The same models give the same schema, in the same order."""
    assert str(structural(model)) == str(structural(model))


def test_the_ways_of_other_strategies_are_not_written_out() -> None:
    """The API server fills a rollout in without them, wherever its default comes from: by far most need neither."""
    rollout = structural(ModelOptimizationSpec)["properties"]["rollout"]
    ways = {"canary", "blueGreen"}
    assert not ways & rollout["default"].keys()
    assert [name for name in ways if "default" in rollout["properties"][name]] == []
    assert rollout["properties"]["canary"]["properties"]["steps"]["default"], "a part that is given is completed"


@every_crd
def test_what_is_wrong_with_one_field_is_said_at_that_field(crd: Json) -> None:
    """There a rule costs a write least: one on the object around costs as much as that has fields, given or not."""
    about_one = {
        f"{path}: {rule['message']}"
        for path, node in fields(crd)
        for rule in node.get("x-kubernetes-validations", ())
        if "properties" in node and len(set(re.findall(r"\bself\.(\w+)", rule["rule"]))) == 1
    }
    # The same traffic may have a maxSurge elsewhere.
    assert {text for text in about_one if "blueGreen.traffic.maxSurge" not in text} == set()


@every_crd
def test_nothing_is_filled_into_a_status(crd: Json) -> None:
    """But for the generation that no operator has looked at: what the operator leaves out, it knows."""
    filled = [path for path, node in fields(crd) if path.startswith(".status.") and "default" in node]
    assert filled == []


def test_defaults_in_the_schema_are_those_of_the_models() -> None:
    """An object that passed the server means the same as one that was only parsed here."""
    spec = ModelOptimizationSpec.model_validate(samples.MANIFEST["spec"])
    schema = structural(ModelOptimizationSpec)["properties"]
    filled = samples.MANIFEST["spec"] | {name: node["default"] for name, node in schema.items() if "default" in node}
    assert ModelOptimizationSpec.model_validate(filled) == spec


@pytest.mark.parametrize("folder", ["crds", "charts/retune/files/crds"])
def test_the_files_are_fresh(folder: str) -> None:
    """What is installed is what the models say."""
    assert main(["--check", str(ROOT / folder)]) == 0


@pytest.mark.slow
def test_a_stale_file_is_noticed_and_mended(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The check says which file is stale and what to run; generating makes it fresh and then writes nothing more."""
    name = next(iter(documents()))
    assert main([str(tmp_path)]) == 0
    (tmp_path / name).write_text("kind: Other\n")
    assert main(["--check", str(tmp_path)]) == 1
    assert f"{name} is stale: run `make crds`" in capsys.readouterr().err
    assert main([str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("wrote") == 1
    assert main(["--check", str(tmp_path)]) == 0


def test_a_snapshot_carries_no_rules_of_its_own() -> None:
    """A tightened rule must not keep the operator from recording a run of an object that was admitted before it."""
    snapshot = optimizationrun_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert "x-kubernetes-validations" in snapshot
    assert "x-kubernetes-validations" not in str(snapshot["properties"]["snapshot"])
