"""The canary's Deployment: a clone in everything but whose it is, whom the Services choose, and what it serves."""

import copy
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retune.plan import names
from retune.plan.actions import CreateCanary
from retune.workloads.canary import CANARY, MADE_OF, canary_manifest, impossibility, selects
from tests import samples

Json = dict[str, Any]
ACTION = CreateCanary("server", "MODEL_URI", "pvc://store/bundles/b", template="hash-1", replicas=1)
TARGET: Json = {
    "metadata": {"name": "digits", "namespace": "ml", "uid": "d-1"},
    "spec": {
        "replicas": 9,
        "paused": False,
        "minReadySeconds": 5,
        "strategy": {"type": "Recreate"},
        "selector": {"matchLabels": {"app": "digits", "track": "stable"}},
        "template": {
            "metadata": {"labels": {"app": "digits", "track": "stable", "team": "ml"}, "annotations": {"a": "b"}},
            "spec": {
                "serviceAccountName": "digits",
                "volumes": [{"name": "store", "persistentVolumeClaim": {"claimName": "store"}}],
                "containers": [
                    {"name": "server", "image": "server:1", "env": [{"name": "OTHER", "value": "x"}]},
                    {"name": "proxy", "image": "proxy:1", "env": [{"name": "MODEL_URI", "value": "its own"}]},
                ],
            },
        },
    },
}


def service(**selector: str) -> Json:
    """Return a Service."""
    return {"metadata": {"name": "s"}, "spec": {"selector": selector}}


BY_APP = service(app="digits")


def manifest(*services: Json, target: Json = TARGET, **changes: Any) -> Json:
    """Return the canary's Deployment."""
    action = replace(ACTION, **changes)
    return canary_manifest(action, resource=samples.resource(), target=target, services=services or (BY_APP,))


def labels(document: Json) -> dict[str, str]:
    """Return the labels of its pods."""
    found: dict[str, str] = document["spec"]["template"]["metadata"]["labels"]
    return found


def with_env(*env: Json) -> Json:
    """Return the target with other variables."""
    target = copy.deepcopy(TARGET)
    target["spec"]["template"]["spec"]["containers"][0]["env"] = list(env)
    return target


def test_a_canary_is_a_clone_but_for_version_labels_and_number() -> None:
    """Whatever the pods need to run, they need in the canary too."""
    pod, theirs = manifest()["spec"]["template"]["spec"], TARGET["spec"]["template"]["spec"]
    assert {key: pod[key] for key in pod if key != "containers"} == {
        key: theirs[key] for key in theirs if key != "containers"
    }
    assert pod["containers"][1] == theirs["containers"][1]
    assert pod["containers"][0] == theirs["containers"][0] | {
        "env": [{"name": "OTHER", "value": "x"}, {"name": "MODEL_URI", "value": "pvc://store/bundles/b"}]
    }
    assert manifest()["spec"]["template"]["metadata"]["annotations"] == {"a": "b"}
    assert (manifest()["spec"]["replicas"], manifest()["spec"]["minReadySeconds"]) == (1, 5)
    assert "paused" not in manifest()["spec"]


def test_a_canary_belongs_to_the_resource_and_says_what_it_was_made_of() -> None:
    """So that it goes with the resource, and is told from what others made."""
    meta = manifest()["metadata"]
    assert (meta["name"], meta["namespace"]) == ("digits-canary", "ml")
    assert meta["labels"] == {"app.kubernetes.io/managed-by": "retune", "retune.dev/resource": "digits"}
    (owner,) = meta["ownerReferences"]
    assert (owner["uid"], owner["controller"]) == (samples.resource().metadata.uid, True)
    assert meta["annotations"] == {MADE_OF: "hash-1"}


def test_the_target_is_left_as_it_was() -> None:
    """The builder copies."""
    before = copy.deepcopy(TARGET)
    manifest()
    assert before == TARGET


@pytest.mark.parametrize(
    ("env", "value", "wanted"),
    [
        ([{"name": "MODEL_URI", "value": "old"}, {"name": "B", "value": "$(MODEL_URI)"}], "new", 0),
        ([{"name": "A", "value": "1"}], "new", 1),
        ([], "new", 0),
    ],
)
def test_the_variable_keeps_its_place(env: list[Json], value: str, wanted: int) -> None:
    """Others may refer to it, which works for those before them only."""
    pod = manifest(target=with_env(*env), value=value)["spec"]["template"]["spec"]
    assert pod["containers"][0]["env"][wanted] == {"name": "MODEL_URI", "value": "new"}


def test_a_version_without_a_value_is_one_without_the_variable() -> None:
    """The delivered model is what the server serves by itself."""
    pod = manifest(target=with_env({"name": "MODEL_URI", "value": "old"}), value=None)["spec"]["template"]["spec"]
    assert pod["containers"][0]["env"] == []


# --- whose pods are whose --------------------------------------------------------------------------------------------


def test_the_canary_s_selector_matches_no_pod_of_the_target() -> None:
    """It selects by a label that only its own pods have."""
    document = manifest()
    assert not selects(document["spec"]["selector"], TARGET["spec"]["template"]["metadata"]["labels"])
    assert selects(document["spec"]["selector"], labels(document))


def test_a_label_that_no_service_selects_by_tells_the_pods_apart() -> None:
    """The Services choose the canary's pods, the target's selector does not."""
    document = manifest()
    assert labels(document) == {"app": "digits", "track": "stable-canary", "team": "ml", CANARY: "digits"}
    assert not selects(TARGET["spec"]["selector"], labels(document))
    assert impossibility(document, target=TARGET, services=[BY_APP], overlaps=False) is None


@pytest.mark.parametrize(("value", "wanted"), [("", "canary"), ("canary", "canary-canary"), ("s" * 63, None)])
def test_the_label_that_tells_them_apart_is_one_that_kubernetes_takes(value: str, wanted: str | None) -> None:
    """Whatever its value was, which may be empty or as long as a label can be."""
    target = copy.deepcopy(TARGET)
    target["spec"]["selector"]["matchLabels"]["track"] = value
    target["spec"]["template"]["metadata"]["labels"]["track"] = value
    label = labels(manifest(target=target))["track"]
    assert re.fullmatch(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", label)
    assert label == (wanted or label) != value


def test_a_selector_that_excludes_the_canary_s_label_needs_no_other() -> None:
    """The cleanest way to make room: the target says itself that these are not its own."""
    target = copy.deepcopy(TARGET)
    expression = {"key": CANARY, "operator": "DoesNotExist"}
    target["spec"]["selector"] = {"matchLabels": {"app": "digits"}, "matchExpressions": [expression]}
    document = manifest(target=target)
    assert labels(document) == TARGET["spec"]["template"]["metadata"]["labels"] | {CANARY: "digits"}
    assert impossibility(document, target=target, services=[BY_APP], overlaps=False) is None


@pytest.mark.parametrize("services", [(service(app="digits", track="stable"),), (BY_APP, service(track="stable"))])
def test_where_services_select_by_every_label_no_canary_is_made(services: tuple[Json, ...]) -> None:
    """The sentence names the labels and the two ways out."""
    fault = impossibility(manifest(*services), target=TARGET, services=services, overlaps=False)
    assert fault is not None
    assert "(app, track)" in fault
    assert "make it anew with one more label" in fault
    assert "spec.rollout.canary.traffic.overlap" in fault


def test_an_overlap_that_was_allowed_is_made_with_the_target_s_labels() -> None:
    """All Services choose its pods, and its owner tells whose they are."""
    services = [service(app="digits", track="stable")]
    document = manifest(*services)
    assert impossibility(document, target=TARGET, services=services, overlaps=True) is None
    assert services[0]["spec"]["selector"].items() <= labels(document).items()


@pytest.mark.parametrize("services", [[], [service(app="other")], [service()], [{"spec": {}}]])
def test_without_a_service_there_is_nobody_to_share_requests(services: list[Json]) -> None:
    """Also not where the overlap is allowed."""
    for overlaps in (False, True):
        fault = impossibility(manifest(*services), target=TARGET, services=services, overlaps=overlaps)
        assert fault is not None
        assert "no Service selects the pods of Deployment digits" in fault


def test_a_service_of_other_pods_takes_no_label_away() -> None:
    """Only those that send requests to the target count."""
    services = (BY_APP, service(track="stable", app="other"))
    assert labels(manifest(*services))["track"] == "stable-canary"


@pytest.mark.parametrize(
    ("term", "holds"),
    [
        ({"key": "app", "operator": "In", "values": ["digits", "x"]}, True),
        ({"key": "app", "operator": "In", "values": ["x"]}, False),
        ({"key": "app", "operator": "NotIn", "values": ["x"]}, True),
        ({"key": "tier", "operator": "NotIn", "values": ["x"]}, True),
        ({"key": "app", "operator": "NotIn", "values": ["digits"]}, False),
        ({"key": "app", "operator": "Exists"}, True),
        ({"key": "tier", "operator": "Exists"}, False),
        ({"key": "app", "operator": "DoesNotExist"}, False),
        ({"key": "tier", "operator": "DoesNotExist"}, True),
    ],
)
def test_selectors_match_as_kubernetes_does(term: Json, *, holds: bool) -> None:
    """Every operator there is."""
    assert selects({"matchExpressions": [term]}, {"app": "digits"}) is holds
    assert selects({"matchLabels": {"app": "other"}, "matchExpressions": [term]}, {"app": "digits"}) is False


@given(st.text("abcdefgh-.", min_size=1, max_size=253), st.text("abcdefgh-.", min_size=1, max_size=253))
def test_names_of_canaries_fit_and_differ(one: str, other: str) -> None:
    """As names of objects do, however long the target's is."""
    assert len(names.canary(one)) <= 253
    assert (names.canary(one) == names.canary(other)) is (one == other)


def test_a_long_name_of_a_target_is_a_label_all_the_same() -> None:
    """Labels end at 63 characters."""
    target = copy.deepcopy(TARGET)
    target["metadata"]["name"] = "d" * 200
    target["spec"]["selector"]["matchLabels"] = {"app": "d" * 63}
    target["spec"]["template"]["metadata"]["labels"] = {"app": "d" * 63, "tier": "x"}
    document = manifest(service(tier="x"), target=target)
    assert all(len(value) <= 63 for value in labels(document).values())
    assert not selects(target["spec"]["selector"], labels(document))


def test_a_container_that_runs_before_the_others_gets_the_version_too() -> None:
    """Where it is the one that reads the variable."""
    target = copy.deepcopy(TARGET)
    target["spec"]["template"]["spec"]["initContainers"] = [{"name": "model", "image": "retune:1"}]
    pod = manifest(target=target, container="model")["spec"]["template"]["spec"]
    assert pod["initContainers"][0]["env"] == [{"name": "MODEL_URI", "value": "pvc://store/bundles/b"}]
    assert pod["containers"] == target["spec"]["template"]["spec"]["containers"]
