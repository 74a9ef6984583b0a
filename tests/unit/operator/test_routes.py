"""What a pass sees of a route: who takes it, which Service stands for the target, and what a person has to do."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from retune.api.objects import ModelOptimization
from retune.api.rolling import ActiveRollout, RolloutStep
from retune.api.routed import CanaryRoute
from retune.api.status import ModelOptimizationStatus
from retune.cluster.client import Client
from retune.cluster.errors import NotFound, Refused
from retune.cluster.kinds import HTTP_ROUTES, SERVICES, Kind
from retune.cluster.routes import RouteReader, route_of
from retune.plan.observed import UNKNOWN, Route
from tests import samples
from tests.cluster.gateway import http_route

Json = dict[str, Any]
TARGET: Json = {"spec": {"template": {"metadata": {"labels": {"app": "digits", "track": "stable"}}}}}
BEGUN = datetime(2026, 1, 1, tzinfo=UTC)
ABSENT = NotFound('httproutes.gateway.networking.k8s.io "digits" not found')
FORBIDDEN = Refused("Forbidden", "Retune may not get httproutes: grant it to its service account")


def told(*, generation: int = 3, status: str = "True", reason: str = "Accepted", **place: Any) -> Json:
    """Return what a Gateway says of a route."""
    conditions = [
        {"type": kind, "status": status, "reason": reason, "message": "", "observedGeneration": generation}
        for kind in ("Accepted", "ResolvedRefs")
    ]
    return {"parentRef": {"name": "gate"} | place, "controllerName": "x", "conditions": conditions}


def route(*parents: Json, refs: list[Json] | None = None, parent_refs: list[Json] | None = None) -> Json:
    """Return a route of generation 3 about which this is said."""
    raw = http_route("digits", refs or [{"name": "digits", "port": 80, "weight": 1}])
    raw["metadata"] |= {"namespace": "ml", "resourceVersion": "7", "generation": 3}
    raw["spec"]["parentRefs"] = parent_refs or raw["spec"]["parentRefs"]
    return raw | {"status": {"parents": list(parents)}}


def service(name: str, **selector: str) -> Json:
    """Return a Service."""
    return {"metadata": {"name": name, "uid": f"uid of {name}"}, "spec": {"selector": selector}}


def said(raw: Json) -> str:
    """Return what stands in the way of a route."""
    found = route_of(raw).obstacle
    return found.message if found else ""


class FakeClient:
    """Answers from a dictionary; what is an error is raised."""

    def __init__(self, **answers: Any) -> None:
        self._answers = answers

    async def get(self, kind: Kind, namespace: str, name: str) -> Json:
        """Return the route or the target."""
        answer = self._answers["route" if kind is HTTP_ROUTES else "target"]
        if isinstance(answer, Exception):
            raise answer
        return cast("Json", answer)

    async def pages(self, kind: Kind, namespace: str) -> AsyncIterator[Json]:
        """Yield all Services."""
        assert kind is SERVICES
        if isinstance(self._answers["services"], Exception):
            raise self._answers["services"]
        yield {"items": self._answers["services"]}


def resource(*, service: str | None = None, step: RolloutStep | None = RolloutStep.CANARY_GIVE) -> ModelOptimization:
    """Return a resource whose rollout is in a step, and which asks for a canary by route `digits`."""
    traffic = {"kind": "HTTPRoute", "route": {"name": "digits"} | ({"service": service} if service else {})}
    asking = samples.resource(rollout={"strategy": "Canary", "canary": {"traffic": traffic}})
    begun = ActiveRollout(version=2, start_time=BEGUN, step=step.value) if step else None
    return asking.model_copy(update={"status": ModelOptimizationStatus(rollout=begun)})


async def observed(asking: ModelOptimization, **answers: Any) -> tuple[Route | None, str | None]:
    """Return what is seen."""
    usual = {"route": route(told()), "target": TARGET, "services": [service("digits", app="digits")]}
    return await RouteReader(cast("Client", FakeClient(**usual | answers))).observe(asking)


async def obstacle(asking: ModelOptimization, **answers: Any) -> str:
    """Return what stands in the way, with its reason."""
    found, _ = await observed(asking, **answers)
    assert found is not None
    return f"{found.obstacle.reason}: {found.obstacle.message}" if found.obstacle else ""


# --- whether its Gateways take it ------------------------------------------------------------------------------------


def test_a_route_that_its_gateway_takes_is_seen_with_its_rules() -> None:
    """And with the version that a change of it must name."""
    found = route_of(route(told()))
    assert (found.version, found.obstacle, found.looked_at) == ("7", None, True)
    assert [[backend.name for backend in rule] for rule in found.rules] == [["digits"]]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (route(), "not Accepted by its parent gate: it has said nothing"),
        (route(told(status="False", reason="NoMatchingParent")), "not Accepted by its parent gate: NoMatchingParent"),
        (route(told(namespace="else")), "said nothing"),
        (route(told(sectionName="https")), "said nothing"),
        (route(told(), parent_refs=[{"name": "gate"}, {"name": "second"}]), "not Accepted by its parent second"),
    ],
)
def test_a_route_that_a_parent_does_not_take_is_told_of(raw: Json, words: str) -> None:
    """Every parent counts, and the one that is meant."""
    assert words in said(raw)


def test_a_route_without_a_parent_gets_no_requests() -> None:
    """Nobody looks at it."""
    raw = route()
    raw["spec"].pop("parentRefs")
    assert "has no parent" in said(raw)


def test_what_was_said_of_an_older_route_is_no_look_at_this_one() -> None:
    """It is still taken; whether its weights are in force is not known."""
    found = route_of(route(told(generation=2)))
    assert (found.obstacle, found.looked_at) == (None, False)


# --- what is read, and what a person is told -------------------------------------------------------------------------


@pytest.mark.parametrize("step", [None, RolloutStep.WEIGHT, RolloutStep.BAKE])
async def test_nothing_is_read_where_nothing_of_a_route_is_ours_or_will_be(step: RolloutStep | None) -> None:
    """Most resources have no route."""
    assert await observed(resource(step=step), route=None) == (None, None)


async def test_the_service_of_the_target_is_the_one_that_the_route_names() -> None:
    """Among all that select its pods."""
    services = [service("metrics", app="digits"), service("digits", track="stable"), service("other", app="x")]
    found, _ = await observed(resource(), services=services)
    assert found is not None
    assert (found.service, found.obstacle) == ("digits", None)


TWO = [service("digits", app="digits"), service("second", app="digits")]
BOTH = route(told(), refs=[{"name": name, "port": 80} for name in ("digits", "second")])


@pytest.mark.parametrize(
    ("named", "answers", "words"),
    [
        (None, {"services": []}, "no Service selects the pods of Deployment digits-server"),
        (None, {"route": route(told(), refs=[{"name": "x", "port": 1}])}, "let a rule have digits as a backend"),
        (
            None,
            {"services": TWO, "route": BOTH},
            "has digits, second: say in spec.rollout.canary.traffic.route.service",
        ),
        ("other", {}, "Service other does not select the pods of Deployment digits-server"),
        (None, {"route": ABSENT}, "there is no HTTPRoute digits in namespace ml"),
        (None, {"route": NotFound("the server could not find the requested resource")}, "install the Gateway API"),
        (None, {"route": NotFound("404 page not found")}, "install the Gateway API"),
        (None, {"target": NotFound("gone")}, "there is no Deployment digits-server"),
    ],
)
async def test_what_is_missing_is_a_sentence(named: str | None, answers: Json, words: str) -> None:
    """Which says what to do."""
    found = await obstacle(resource(service=named), **answers)
    assert found.startswith("CanaryImpossible: ")
    assert words in found


@pytest.mark.parametrize("answers", [{"route": FORBIDDEN}, {"services": FORBIDDEN}])
async def test_a_missing_right_is_told_with_the_setting_of_the_chart(answers: Json) -> None:
    """The API server's words alone do not say where it comes from."""
    found = await obstacle(resource(), **answers)
    assert found.startswith("Forbidden: Retune may not get httproutes")
    assert "canary.httpRoutes" in found


async def test_what_was_written_down_counts_more_than_the_spec() -> None:
    """What is put back is what was taken, whatever the spec says by now."""
    asking = resource(step=None)
    record = CanaryRoute(name="digits", service="digits")
    noted = asking.model_copy(update={"status": ModelOptimizationStatus(canary_route=record)})
    found, own = await observed(noted, services=[])
    assert found is not None
    assert (found.service, own) == ("digits", None)
    found, own = await observed(noted, services=FORBIDDEN)
    assert own == UNKNOWN
