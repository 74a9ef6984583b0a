"""What every kind of target promises, held against a workload of each."""

import copy
import json
from typing import Any

import pytest

from retune.api.target import TARGET_KINDS, TargetRef
from retune.cluster.parse import trimmed_target
from retune.plan.observed import Pods
from retune.targets import DEPLOYMENT, TARGETS, TargetKind, kind_of
from tests.unit.operator.target_samples import BEFORE, SAMPLES, VALUE, VARIABLE, Sample

Json = dict[str, Any]
every_kind = pytest.mark.parametrize("kind", list(TARGETS.values()), ids=lambda kind: str(kind.kind))


def sample_of(kind: TargetKind) -> Sample:
    """The kind's workload and pods."""
    return SAMPLES[kind.api_version, kind.kind]


def pods_of(kind: TargetKind, *pods: Json) -> Pods:
    """What pods of the workload amount to."""
    sample = sample_of(kind)
    return kind.pods(sample.raw, pods, container=sample.container, variable=VARIABLE, port=8080)


def kept_of(kind: TargetKind) -> Json:
    """The workload and what is beside it, as memory keeps them."""
    raw = sample_of(kind).raw
    beside = {name: json.loads(trimmed_target(DEPLOYMENT, made)) for name, made in raw.get("beside", {}).items()}
    kept: Json = json.loads(trimmed_target(kind, raw))
    return kept | ({"beside": beside} if beside else {})


def test_the_operator_is_set_up_for_every_kind_but_deployments() -> None:
    """What settings may name is what the registry has."""
    assert {kind.kind for kind in TARGETS.values()} == {"Deployment", *TARGET_KINDS}


@every_kind
def test_a_kind_is_found_by_its_reference(kind: TargetKind) -> None:
    """The registry answers for what the CRD admits."""
    ref = TargetRef.model_validate({"apiVersion": kind.api_version, "kind": kind.kind, "name": "x"})
    assert kind_of(ref) is kind


@every_kind
def test_reading_is_pure_and_names_the_object(kind: TargetKind) -> None:
    """Parsing changes nothing and gives the same answer again."""
    raw = sample_of(kind).raw
    before = copy.deepcopy(raw)
    target = kind.parse(raw, variable=VARIABLE)
    assert (target.name, target.uid) == (raw["metadata"]["name"], raw["metadata"]["uid"])
    assert kind.parse(raw, variable=VARIABLE) == target
    assert raw == before


@every_kind
def test_a_path_lies_in_its_namespace(kind: TargetKind) -> None:
    """One object's path is the list's path and the name."""
    assert kind.path(namespace="ml", name="x") == kind.path(namespace="ml") + "/x"
    assert f"/namespaces/ml/{kind.resource}" in kind.path(namespace="ml")


@every_kind
@pytest.mark.parametrize("value", ["pvc://a/bundles/3", ""])
def test_what_is_applied_is_the_one_field_and_nothing_else(kind: TargetKind, value: str) -> None:
    """The body names the object, its UID and the value: no other field may come under our management."""
    body = kind.apply_body(name="x", uid="u", container="server", variable=VARIABLE, value=value)
    assert body["metadata"] == {"name": "x", "uid": "u"}
    assert value in leaves(body["spec"])
    assert set(leaves(body["spec"])) <= {"server", VARIABLE, value}


@every_kind
def test_giving_the_field_up_applies_nothing(kind: TargetKind) -> None:
    """Without a value the body owns no field, so the server removes what only we owned."""
    body = kind.apply_body(name="x", uid="u", container="server", variable=VARIABLE, value=None)
    assert body == {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": "x", "uid": "u"}}


def leaves(node: Any) -> list[str]:
    """All values of a document."""
    if isinstance(node, dict):
        return [leaf for value in node.values() for leaf in leaves(value)]
    return [leaf for item in node for leaf in leaves(item)] if isinstance(node, list) else [node]


@every_kind
def test_what_memory_keeps_is_all_that_is_looked_at(kind: TargetKind) -> None:
    """The part of a workload that is kept reads as the whole one does."""
    sample, kept = sample_of(kind), kept_of(kind)
    pods = [sample.pod("digits-1"), sample.pod("digits-0", value=BEFORE)]
    assert kind.parse(kept, variable=VARIABLE) == kind.parse(sample.raw, variable=VARIABLE)
    assert kind.pod_selector(kept) == kind.pod_selector(sample.raw)
    assert kind.pods(kept, pods, container=sample.container, variable=VARIABLE, port=1) == kind.pods(
        sample.raw, pods, container=sample.container, variable=VARIABLE, port=1
    )


@every_kind
def test_a_workload_at_rest_is_settled_and_fit(kind: TargetKind) -> None:
    """It has the value, wants two pods, and has both."""
    target = kind.parse(sample_of(kind).raw, variable=VARIABLE)
    container = target.container(sample_of(kind).container)
    assert container is not None
    assert (container.value, container.indirect) == (VALUE, False)
    assert (target.settled, target.wanted, target.available) == (True, 2, 2)
    assert (target.unfit, target.hindrance) == (None, None)


@every_kind
def test_a_change_that_its_controller_has_not_seen_unsettles_it(kind: TargetKind) -> None:
    """Else the pods of the version before would be taken for those of the new one."""
    raw = copy.deepcopy(sample_of(kind).raw)
    sample_of(kind).change(raw)
    target = kind.parse(raw, variable=VARIABLE)
    assert not target.settled
    assert target.progress


@every_kind
def test_pods_that_answer_for_a_version_are_its_ready_ones(kind: TargetKind) -> None:
    """Not those of the value before, of another workload, ending, or not ready."""
    pod = sample_of(kind).pod
    ending = pod("digits-3")
    ending["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    others = [pod("digits-2", value=BEFORE), pod("x-0", owner="x"), pod("digits-4", ready=False), ending]
    assert pods_of(kind, *others, pod("digits-1")).endpoints == ("http://10.0.0.7:8080",)
    assert pods_of(kind, *others).endpoints == ()


@every_kind
def test_all_of_its_own_running_pods_serve(kind: TargetKind) -> None:
    """Of whatever version, and nobody else's."""
    pod = sample_of(kind).pod
    pods = [pod("digits-1"), pod("digits-2", value=BEFORE), pod("x-0", owner="x")]
    serving = kind.serving(sample_of(kind).raw, pods, container=sample_of(kind).container)
    assert [entry.uid for entry in serving] == ["uid-of-digits-1", "uid-of-digits-2"]
