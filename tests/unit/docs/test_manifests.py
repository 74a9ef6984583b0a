"""Every piece of YAML on the pages is an object of ours, fields of its spec, or values of the chart, and is valid."""

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from retune.api.crd import modeloptimization_crd, optimizationrun_crd
from retune.api.objects import ModelOptimization, OptimizationRun
from tests.unit.docs.manual import ROOT, Example, examples

Json = dict[str, Any]

KINDS = {"ModelOptimization": ModelOptimization, "OptimizationRun": OptimizationRun}
SCHEMAS = {
    crd["spec"]["names"]["kind"]: crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for crd in (modeloptimization_crd(), optimizationrun_crd())
}
SPEC = SCHEMAS["ModelOptimization"]["properties"]["spec"]
VALUES: Json = yaml.safe_load((ROOT / "charts" / "retune" / "values.yaml").read_text())
LISTS = {"metric": "objectives", "type": "techniques"}
"""A field of an item, to the field of the spec that is a list of such items."""
EXAMPLES = examples("yaml", "yml")


def documents() -> list[tuple[Example, object]]:
    """Every document of every block."""
    return [(example, document) for example in EXAMPLES for document in yaml.safe_load_all(example.block.text)]


def smallest() -> Json:
    """The object that the README begins with."""
    return next(
        document
        for example, document in documents()
        if example.page.name == "README.md" and isinstance(document, dict) and document.get("kind") in KINDS
    )


def faults(document: object) -> Iterator[str]:
    """Yield what is wrong with one document."""
    if isinstance(document, list):
        first = document[0] if document and isinstance(document[0], dict) else {}
        field = next((name for key, name in LISTS.items() if key in first), None)
        document = {field: document} if field else {}
    if not isinstance(document, dict) or not document:
        yield "nobody knows what this is: give it a kind, begin it with spec:, or mark the block as text"
    elif "kind" in document:
        yield from _faults_of_object(document) if document["kind"] in KINDS else ()
    elif document.keys() == {"spec"}:
        yield from _faults_of_object(_merged(smallest(), document))
    elif document.keys() <= SPEC["properties"].keys():
        yield from _faults_of_object(_merged(smallest(), {"spec": document}))
    else:
        yield from (f"the chart has no value {name}" for name in _unknown_values(document, VALUES, ""))


def _faults_of_object(document: Json) -> Iterator[str]:
    kind = document["kind"]
    given = {"namespace": "default"} | document.get("metadata", {})
    yield from (f"{path} is no field" for path in _unknown_fields(document, SCHEMAS[kind], ""))
    try:
        KINDS[kind].model_validate(document | {"metadata": given})
    except ValidationError as error:
        yield from (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())


def _merged(base: Json, change: Mapping[str, Any]) -> Json:
    """Return an object with fields of another put over it; lists are replaced whole."""
    merged = copy.deepcopy(base)
    for name, value in change.items():
        before = merged.get(name)
        merged[name] = _merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return merged


def _unknown_fields(value: object, schema: Json, path: str) -> Iterator[str]:
    """Yield the paths that a schema does not have; the typed models read over them."""
    if isinstance(value, list):
        for item in value:
            yield from _unknown_fields(item, schema.get("items", {}), f"{path}[]")
    elif isinstance(value, dict) and "properties" in schema:
        for name, inner in value.items():
            if name in schema["properties"]:
                yield from _unknown_fields(inner, schema["properties"][name], f"{path}.{name}".lstrip("."))
            else:
                yield f"{path}.{name}".lstrip(".")


def _unknown_values(value: object, known: object, path: str) -> Iterator[str]:
    """Yield the paths that the chart's values do not have; below an empty one, anything goes."""
    if isinstance(value, dict) and isinstance(known, dict) and known:
        for name, inner in value.items():
            if name in known:
                yield from _unknown_values(inner, known[name], f"{path}.{name}".lstrip("."))
            else:
                yield f"{path}.{name}".lstrip(".")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.place)
def test_every_piece_of_yaml_is_valid(example: Example) -> None:
    """Fields exist and have values that they take, as far as the typed models know without an API server."""
    found = [fault for document in yaml.safe_load_all(example.block.text) for fault in faults(document)]
    assert found == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("spec: {modle: {uri: pvc://a/b}}", "spec.modle is no field"),
        ("spec: {search: {maxTrials: 0}}", "spec.search.maxTrials: Input should be greater than or equal to 1"),
        ("rollout: {bakeTime: soon}", "spec.rollout.bakeTime: Value error, a duration is written with units"),
        ("- {name: a, type: Magic}", "spec.techniques.0.type: Input should be"),
        ("- {metric: accuracy, roll: Constrain}", "spec.objectives[].roll is no field"),
        ("kind: ModelOptimization\nspec: {}", "spec.model: Field required"),
        ("metrics: {podMonitors: {enabled: true}}", "the chart has no value metrics.podMonitors"),
        ("- a\n- b", "nobody knows what this is"),
    ],
)
def test_wrong_yaml_is_noticed(text: str, fault: str) -> None:
    """Misspelt fields, values that are refused, absent ones, and what nobody can place."""
    assert any(fault in found for found in faults(yaml.safe_load(text)))


@pytest.mark.parametrize(
    "text",
    [
        "kind: Deployment\nspec: {anything: goes}",
        "metrics: {podMonitor: {enabled: true, labels: {release: mine}}}",
        "prometheus: {servers: [{name: main, url: 'http://p:9090'}]}",
        "monitoring: {performance: {}}",
    ],
)
def test_what_is_right_is_not_refused(text: str) -> None:
    """Objects of others, values of the chart with open ends, and fields of a spec without `spec:`."""
    assert list(faults(yaml.safe_load(text))) == []
