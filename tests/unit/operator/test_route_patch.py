"""The JSON patch of a route: only weights of the rules that are meant change, and all of it can be put back exactly."""

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retune.plan.actions import ShareRoute
from retune.traffic import Backend, Pair
from retune.workloads.routes import service_manifest, share_patch
from retune.workloads.rules import backends
from tests import samples

Json = dict[str, Any]
PAIR = Pair("digits", "digits-canary")
FILTERS = [{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x", "value": "y"}]}}]


class Mismatch(Exception):  # noqa: N818 - what a test of a patch meets
    """A test of a patch does not hold."""


def applied(document: Json, patch: list[Json]) -> Json:
    """Return a document with a JSON patch applied, as far as RFC 6902 is used here."""
    changed = copy.deepcopy(document)
    for step in patch:
        *way, last = step["path"].strip("/").split("/")
        place: Any = changed
        for part in way:
            place = place[int(part)] if isinstance(place, list) else place[part]
        key = int(last) if isinstance(place, list) and last != "-" else last
        if step["op"] == "test" and place[key] != step["value"]:
            raise Mismatch(step["path"])
        if step["op"] == "remove":
            del place[key]
        elif key == "-":
            place.append(step["value"])
        elif step["op"] != "test":
            place[key] = step["value"]
    return changed


def route(*rules: list[Json], version: str = "7") -> Json:
    """Return a route with these backends of its rules, and with matches that must stay."""
    body = [{"matches": [{"path": {"value": f"/{number}"}}], "backendRefs": refs} for number, refs in enumerate(rules)]
    meta = {"name": "digits", "namespace": "ml", "resourceVersion": version}
    return {"metadata": meta, "spec": {"parentRefs": [{"name": "gate"}], "rules": body}}


def mine(weight: int | None = None, **more: Any) -> Json:
    """Return the target's backend."""
    return {"name": "digits", "port": 80} | ({} if weight is None else {"weight": weight}) | more


def shared(raw: Json, percent: int, before: Json | None = None) -> Json:
    """Return the route with a share for the canary; `before` is what it was where one has been given already."""
    original = [backends(rule, namespace="ml") for rule in (before or raw)["spec"]["rules"]]
    wanted = [(index, PAIR.shared(rule, percent)) for index, rule in enumerate(original) if PAIR.is_served_by(rule)]
    return patched(raw, wanted)


def alone(raw: Json, before: Json) -> Json:
    """Return the route without the canary."""
    found = [backends(rule, namespace="ml") for rule in raw["spec"]["rules"]]
    original = [backends(rule, namespace="ml") for rule in before["spec"]["rules"]]
    pairs = enumerate(zip(found, original, strict=True))
    return patched(raw, [(index, PAIR.alone(now, was)) for index, (now, was) in pairs if PAIR.is_tried_in(now)])


def patched(raw: Json, wanted: list[tuple[int, Any]]) -> Json:
    """Return the route as the patch for these rules makes it."""
    action = ShareRoute("digits", raw["metadata"]["resourceVersion"], "digits", tuple(wanted))
    return applied(raw, share_patch(raw, action, canary=PAIR.canary))


WEIGHTS = st.one_of(st.none(), st.integers(1, 5000))
OTHERS = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["other", "digits"]), "namespace": st.just("else"), "port": st.just(1)},
        optional={"weight": st.integers(0, 5000)},
    ),
    max_size=3,
)


@given(rules=st.lists(st.tuples(OTHERS, WEIGHTS, OTHERS), min_size=1, max_size=3), steps=st.lists(st.integers(1, 100)))
def test_any_way_up_is_put_back_byte_for_byte(rules: list[tuple[Any, Any, Any]], steps: list[int]) -> None:
    """Whatever the rules are, and whatever shares there were in between."""
    before = route(*([*head, mine(weight), *tail] for head, weight, tail in rules))
    now = before
    for percent in steps:
        now = shared(now, percent, before)
        assert all(len(rule["backendRefs"]) > 1 for rule in now["spec"]["rules"])
    assert json.dumps(alone(now, before)) == json.dumps(before)


def test_the_canary_s_backend_is_a_copy_of_the_target_s() -> None:
    """Its port, its filters, and whatever else it has; what is beside it stays."""
    other = {"name": "other", "port": 9, "weight": 1, "filters": FILTERS}
    raw = route([mine(1, filters=FILTERS), other], [{"name": "other", "port": 9}])
    after = shared(raw, 10)
    wanted = [mine(9, filters=FILTERS), other | {"weight": 10}, mine(1, filters=FILTERS) | {"name": "digits-canary"}]
    assert after["spec"]["rules"][0]["backendRefs"] == wanted
    assert after["spec"]["rules"][0]["matches"] == raw["spec"]["rules"][0]["matches"]
    assert after["spec"]["rules"][1] == raw["spec"]["rules"][1]
    assert raw == route([mine(1, filters=FILTERS), other], [{"name": "other", "port": 9}])


@pytest.mark.parametrize("field", [{"namespace": "else"}, {"kind": "InferencePool"}, {"group": "example.com"}])
def test_what_only_has_the_name_of_the_service_is_somebody_else_s(field: Json) -> None:
    """A Service of another namespace, or another kind of thing."""
    rule = backends({"backendRefs": [mine(**field)]}, namespace="ml")
    assert not PAIR.is_served_by(rule)
    assert PAIR.is_served_by(
        backends({"backendRefs": [mine(namespace="ml", kind="Service", group="")]}, namespace="ml")
    )


@pytest.mark.parametrize("change", ["version", "name"])
def test_a_patch_changes_nothing_of_a_route_that_is_another_by_now(change: str) -> None:
    """Its tests name the version, and every backend of the rules that it touches."""
    raw = route([mine(), {"name": "other", "port": 1}])
    action = ShareRoute("digits", "7", "digits", ((0, PAIR.shared((Backend("digits"), Backend("other")), 10)),))
    patch = share_patch(raw, action, canary=PAIR.canary)
    others = route([mine(), {"name": "new" if change == "name" else "other", "port": 1}])
    others["metadata"]["resourceVersion"] = "8" if change == "version" else "7"
    with pytest.raises(Mismatch):
        applied(others, patch)


def test_a_rule_that_names_the_canary_alone_names_the_target_again() -> None:
    """Others took the target out: the requests go to the champion and not to nobody."""
    raw = route([{"name": "digits-canary", "port": 80, "weight": 5}])
    after = alone(raw, route([mine(5)]))
    assert after["spec"]["rules"][0]["backendRefs"] == [mine(5)]


def test_the_service_of_a_canary_has_the_ports_of_the_target_s_and_not_its_addresses() -> None:
    """Whatever exposes the target exposes the target alone."""
    port = {"name": "http", "port": 80, "targetPort": "http", "nodePort": 30080, "protocol": "TCP"}
    spec = {
        "type": "NodePort",
        "clusterIP": "10.0.0.1",
        "selector": {"app": "digits"},
        "ports": [port],
        "ipFamilies": ["IPv6"],
    }
    manifest = service_manifest(samples.resource(), {"spec": spec})
    assert manifest["spec"] == {
        "selector": {"retune.dev/canary": "digits-server"},
        "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
        "ipFamilies": ["IPv6"],
    }
    assert manifest["metadata"]["ownerReferences"][0]["uid"] == samples.resource().metadata.uid
    headless = service_manifest(samples.resource(), {"spec": {"clusterIP": "None", "ports": []}})
    assert headless["spec"]["clusterIP"] == "None"
