"""The pods of a canary that a route reaches: kept out of the target's Services by as few other labels as possible."""

import copy
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retune.plan import names
from retune.workloads.canary import CANARY, REACHED_BY, canary_manifest, impossibility, selecting, selects
from tests import samples
from tests.unit.operator.test_canary_manifest import ACTION, BY_APP, TARGET, labels, service

Json = dict[str, Any]
REACHED = replace(ACTION, service="digits")
KEYS = ("app", "app.kubernetes.io/name", "track", "team", "tier")


def target(selector: Json, own: dict[str, str]) -> Json:
    """Return a Deployment with this selector and these labels of its pods."""
    changed = copy.deepcopy(TARGET)
    changed["spec"]["selector"], changed["spec"]["template"]["metadata"]["labels"] = selector, own
    return changed


def manifest(deployment: Json, *services: Json) -> Json:
    """Return its canary."""
    return canary_manifest(REACHED, resource=samples.resource(), target=deployment, services=services)


def fault(deployment: Json, *services: Json, overlaps: bool = False) -> str:
    """Return why there can be none."""
    document = manifest(deployment, *services)
    return impossibility(document, target=deployment, services=services, overlaps=overlaps) or ""


@given(
    own=st.dictionaries(st.sampled_from(KEYS), st.sampled_from(["a", "b", "", "x" * 63]), min_size=1),
    data=st.data(),
)
def test_no_service_and_not_the_target_select_them(own: dict[str, str], data: st.DataObject) -> None:
    """Whatever labels they select by; what selects by none of these is nobody's business."""
    some = st.sets(st.sampled_from(sorted(own)), min_size=1).map(lambda keys: {key: own[key] for key in keys})
    services = [service(**selector) for selector in data.draw(st.lists(some, max_size=3))]
    deployment = target({"matchLabels": data.draw(some)}, own)
    document = manifest(deployment, *services)
    assert not selecting(services, labels(document))
    assert not selects(deployment["spec"]["selector"], labels(document))
    assert selects(document["spec"]["selector"], labels(document))
    assert labels(document).keys() == {*own, CANARY}
    assert fault(deployment, *services) == ""


@pytest.mark.parametrize(
    ("services", "changed"),
    [
        ([service(app="digits")], {"app"}),
        ([service(app="digits", track="stable")], {"track"}),
        ([service(app="digits"), service(track="stable")], {"app", "track"}),
        ([service(team="ml")], {"team", "track"}),
        ([], {"track"}),
    ],
)
def test_as_few_labels_as_possible_are_others_and_the_name_of_the_app_last(
    services: list[Json], changed: set[str]
) -> None:
    """Network policies, dashboards and budgets select by them."""
    before, after = TARGET["spec"]["template"]["metadata"]["labels"], labels(manifest(TARGET, *services))
    assert {key for key in before if after[key] != before[key]} == changed


def test_it_says_by_which_service_it_is_reached() -> None:
    """So that one that shares by pods is not taken for it."""
    assert manifest(TARGET, BY_APP)["metadata"]["annotations"][REACHED_BY] == "digits"


def test_a_selector_that_any_value_fulfils_is_told_of_unless_it_may_overlap() -> None:
    """There is no other label to tell the pods apart by."""
    deployment = target({"matchExpressions": [{"key": "app", "operator": "Exists"}]}, {"app": "digits"})
    assert "make it anew with matchLabels" in fault(deployment, BY_APP)
    assert fault(deployment, BY_APP, overlaps=True) == ""


def test_a_service_of_others_that_would_select_them_is_told_of() -> None:
    """Whether the target may overlap or not; the canary's own Service is no other."""
    stray = service(app="digits-canary") | {"metadata": {"name": "stray"}}
    own = service(**{CANARY: "digits"}) | {"metadata": {"name": names.canary_service("digits")}}
    for overlaps in (False, True):
        assert "Service stray would select" in fault(TARGET, BY_APP, stray, own, overlaps=overlaps)
    assert fault(TARGET, BY_APP, own) == ""


@given(st.text("abcdefgh0-.", min_size=1, max_size=253), st.text("abcdefgh0-.", min_size=1, max_size=253))
def test_names_of_services_are_names_of_services_and_differ(one: str, other: str) -> None:
    """Shorter than those of Deployments, without dots, and begun by a letter."""
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", names.canary_service(one))
    assert (names.canary_service(one) == names.canary_service(other)) is (one == other)
