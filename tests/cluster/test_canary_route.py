"""A canary by the weights of an HTTPRoute, on a real API server that knows the Gateway API.

A stagehand plays Job controller, Deployment controller and kubelet, and each pass the Gateway says that it has looked
at the route. What of the route is whose, what is put back, and what is said to people is what the server holds.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from tests.cluster.gateway import ROUTES, http_route, look_at
from tests.cluster.harness import Bench, settle
from tests.cluster.test_canary import CANARY, CORE, PATIENCE, Trial
from tests.faults.stage import reply
from tests.faults.stagehand import Stagehand

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120), pytest.mark.usefixtures("hung_up", "routes")]
Json = dict[str, Any]
ROLLOUT: Json = {
    "strategy": "Canary",
    "bakeTime": "0s",
    "canary": {
        "steps": [{"weight": 10, "hold": "5m"}, {"weight": 50, "hold": "5m"}],
        "traffic": {"kind": "HTTPRoute", "route": {"name": "digits"}},
    },
}
FILTER = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x-team", "value": "ml"}]}}
MINE: Json = {"name": "digits", "port": 80, "filters": [FILTER]}
OTHER: Json = {"name": "other", "port": 8080, "weight": 3}


class RouteTrial(Trial):
    """A namespace with a target behind a Service and a route, whose Gateway looks at it in every pass."""

    accepts = True
    present = True
    """Whether there is a Gateway that says anything."""
    before = ""
    """The rules before the trial."""

    async def passes_until(self, true: Callable[[], bool]) -> None:
        """Make passes, and let the Gateway look, until something is true."""
        async with asyncio.timeout(PATIENCE):
            while not true():
                await settle(self.operator, self.key)
                for route in self.bench.items("httproutes", api=ROUTES) if self.present else ():
                    look_at(self.bench.api, route, accepted=self.accepts)
                await asyncio.sleep(0.05)

    def route(self, *rules: list[Json]) -> str:
        """Create the route, or write these rules over it; returns its rules as the server holds them."""
        path = self.bench.path("httproutes", "digits", api=ROUTES)
        self.bench.api.apply(path, http_route("digits", *(rules or ([MINE, OTHER], [OTHER]))))
        return self.rules()

    def rules(self) -> str:
        """The rules, as text."""
        return json.dumps(self.bench.api.get(self.bench.path("httproutes", "digits", api=ROUTES))["spec"]["rules"])

    def weights(self) -> dict[str, int]:
        """Weights of the first rule's backends by their names."""
        return {item["name"]: item["weight"] for item in json.loads(self.rules())[0]["backendRefs"]}

    def services(self) -> set[str]:
        """Names of the Services."""
        return {item["metadata"]["name"] for item in self.bench.items("services", api=CORE)}

    async def at_weight(self, weight: int) -> None:
        """Go on until a share is held."""
        await self.passes_until(
            lambda: (self.rollout.get("effectiveWeight"), self.reason("RolledOut")) == (weight, "HoldingWeight")
        )

    async def released(self) -> None:
        """Let proxies have heard of it, and the rest be tidied up."""
        await self.passes_until(lambda: CANARY not in self.rules())
        self.clock.wait(11)
        await self.passes_until(
            lambda: self.deployments().keys() == {"digits-server"} and CANARY not in self.services()
        )


@pytest.fixture
async def trial(bench: Bench) -> AsyncIterator[RouteTrial]:
    """A namespace in which Jobs end and Deployments settle."""
    trial = RouteTrial(bench)
    with Stagehand(bench.api, reply=reply, namespace=bench.namespace):
        yield trial
    await trial.operator.live.close()


@pytest.fixture
def served(trial: RouteTrial) -> RouteTrial:
    """The target behind its Service and its route, and an operator."""
    return serve(trial, ROLLOUT)


def serve(trial: RouteTrial, rollout: Json) -> RouteTrial:
    """Have a target behind its Service and its route, and an operator that rolls out in this way."""
    trial.bench.deploy(replicas=3)
    trial.bench.serve()
    trial.before = trial.route()
    trial.begin(rollout=rollout)
    return trial


async def test_a_version_is_tried_by_weights_and_leaves_the_route_as_it_was(served: RouteTrial) -> None:
    """The target's Service never selects the canary's pods; the rule's other shares, filters and matches stay."""
    target = served.deployments()["digits-server"]
    await served.at_weight(10)
    assert served.weights() == {"digits": 9, "other": 30, CANARY: 1}
    assert served.pods(app="digits-server") == {"digits-server"}
    assert served.pods(**{"retune.dev/canary": "digits-server"}) == {CANARY}
    added = json.loads(served.rules())[0]["backendRefs"][-1]
    assert (added["port"], added["filters"]) == (80, [FILTER])
    service = served.bench.api.get(served.bench.path("services", CANARY, api=CORE))
    assert service["metadata"]["ownerReferences"][0]["uid"] == served.bench.resource()["metadata"]["uid"]
    assert service["spec"]["selector"] == {"retune.dev/canary": "digits-server"}
    served.clock.wait(301)
    await served.at_weight(50)
    assert served.weights() == {"digits": 1, "other": 6, CANARY: 1}
    assert served.deployments()[CANARY]["spec"]["replicas"] == 2
    assert served.deployments()["digits-server"]["spec"] == target["spec"]
    served.clock.wait(301)
    await served.passes_until(lambda: served.rollout.get("step") == "CanaryEnd")
    await served.released()
    await served.passes_until(lambda: served.reason("RolledOut") == "Promoted")
    assert served.rules() == served.before
    assert "canaryRoute" not in served.bench.resource()["status"]


async def test_testers_reach_a_version_before_its_first_share_and_leave_nothing(trial: RouteTrial) -> None:
    """By a copy of the rule that serves the target, which the server, and no Gateway, has to take."""
    header = {"name": "X-Tester", "value": "yes"}
    traffic = ROLLOUT["canary"]["traffic"] | {"testers": {"header": header}}
    steps = [{"weight": 0, "hold": "5m", "minRequests": 0}, {"weight": 10, "hold": "5m"}]
    served = serve(trial, ROLLOUT | {"canary": {"steps": steps, "traffic": traffic}})
    await served.at_weight(0)
    (rule, other, opened), before = json.loads(served.rules()), json.loads(served.before)
    assert [rule, other] == before
    assert opened["matches"] == [rule["matches"][0] | {"headers": [{"type": "Exact"} | header]}]
    (canary,) = opened["backendRefs"]
    assert (canary["name"], canary["filters"]) == (CANARY, [FILTER])
    served.clock.wait(301)
    await served.at_weight(10)
    assert served.weights() == {"digits": 9, "other": 30, CANARY: 1}
    assert json.loads(served.rules())[2] == opened
    served.clock.wait(301)
    await served.released()
    await served.passes_until(lambda: served.reason("RolledOut") == "Promoted")
    assert served.rules() == served.before


async def test_all_requests_are_switched_at_once_and_back_when_others_want_that(trial: RouteTrial) -> None:
    """By the weights alone: the target's pods and its place in the rule stay for the way back."""
    switch = {"keepOld": "5m", "traffic": ROLLOUT["canary"]["traffic"]}
    served = serve(trial, {"strategy": "BlueGreen", "bakeTime": "0s", "blueGreen": switch})
    target = served.deployments()["digits-server"]
    await served.at_weight(100)
    assert served.weights() == {"digits": 0, "other": 3, CANARY: 1}
    assert served.deployments()[CANARY]["spec"]["replicas"] == 3
    assert served.deployments()["digits-server"]["spec"] == target["spec"]
    assert served.route() == served.before
    await served.passes_until(lambda: bool(served.rollout.get("rollbackReason")))
    served.clock.wait(11)
    await served.released()
    await served.passes_until(lambda: served.reason("RolledOut") == "RolledBack")
    assert served.rules() == served.before


async def test_a_resource_that_is_deleted_in_its_trial_leaves_the_route_as_it_was(served: RouteTrial) -> None:
    """It goes after that; no garbage collector runs here."""
    await served.at_weight(10)
    served.bench.api.request("DELETE", served.bench.path("modeloptimizations", "digits"))
    await served.released()
    await served.passes_until(lambda: not served.bench.items("modeloptimizations", api="/apis/retune.dev/v1alpha1"))
    assert served.rules() == served.before


async def test_a_route_that_is_applied_again_ends_the_trial_and_is_left_alone(served: RouteTrial) -> None:
    """As GitOps does: the champion has everything, and the version is not rejected."""
    await served.at_weight(10)
    assert served.route() == served.before
    await served.passes_until(lambda: bool(served.rollout.get("rollbackReason")))
    assert served.rollout["rollbackReason"] == "RouteChanged"
    served.clock.wait(11)
    await served.released()
    await served.passes_until(lambda: served.reason("RolledOut") == "RolledBack")
    assert served.rules() == served.before
    assert not served.bench.resource()["status"].get("rejected")


async def test_what_is_missing_is_told_one_after_the_other_until_a_canary_can_be(trial: RouteTrial) -> None:
    """A Service that is meant, a route, a rule, a Gateway, and its word: nothing is made before all are there."""

    async def told(*words: str) -> None:
        def said() -> bool:
            conditions = trial.bench.resource().get("status", {}).get("conditions", ())
            message = next((entry["message"] for entry in conditions if entry["type"] == "CanaryPossible"), "")
            return all(word in message for word in words)

        await trial.passes_until(said)
        assert trial.reason("CanaryPossible") == "CanaryImpossible"
        assert trial.deployments().keys() == {"digits-server"}
        assert CANARY not in trial.services()

    trial.bench.deploy(replicas=3)
    trial.begin(rollout=ROLLOUT)
    await told("there is no HTTPRoute digits in namespace", "spec.rollout.canary.traffic.route.name")
    trial.present = False
    trial.route([OTHER])
    await told("not Accepted by its parent gate", "said nothing")
    trial.present, trial.accepts = True, False
    await told("not Accepted by its parent gate: no listener fits")
    trial.accepts = True
    await told("no Service selects the pods of Deployment digits-server")
    trial.bench.serve()
    await told("names no Service of Deployment digits-server", "digits as a backend")
    second = {"metadata": {"name": "second"}, "spec": {"selector": {"app": "digits-server"}, "ports": [{"port": 80}]}}
    trial.bench.create("services", second, api=CORE)
    trial.route([MINE, MINE | {"name": "second"}])
    await told("digits, second", "spec.rollout.canary.traffic.route.service")
    trial.route([MINE, MINE | {"name": CANARY}])
    await told(f"names Service {CANARY} already")
    trial.route([MINE, OTHER])
    await trial.at_weight(10)
    assert trial.reason("CanaryPossible") == "Possible"
    assert trial.pods(app="digits-server") == {"digits-server"}


async def test_a_service_that_would_select_the_canary_is_told_of(trial: RouteTrial) -> None:
    """Its requests would come by no weight."""
    trial.bench.deploy(replicas=1)
    trial.bench.serve()
    trial.route()
    stray = {"selector": {"app": "digits-server-canary"}, "ports": [{"port": 80}]}
    trial.bench.create("services", {"metadata": {"name": "stray"}, "spec": stray}, api=CORE)
    trial.begin(rollout=ROLLOUT)
    await trial.passes_until(lambda: trial.reason("CanaryPossible") == "CanaryImpossible")
    assert "Service stray would select" in trial.bench.condition("CanaryPossible")["message"]
    assert trial.deployments().keys() == {"digits-server"}


async def test_the_service_that_the_spec_names_counts(trial: RouteTrial) -> None:
    """Where several are named in the route."""
    trial.bench.deploy(replicas=1)
    trial.bench.serve()
    second = {"metadata": {"name": "second"}, "spec": {"selector": {"app": "digits-server"}, "ports": [{"port": 80}]}}
    trial.bench.create("services", second, api=CORE)
    trial.route([MINE, MINE | {"name": "second", "weight": 4}])
    traffic = {"kind": "HTTPRoute", "route": {"name": "digits", "service": "second"}}
    trial.begin(rollout=ROLLOUT | {"canary": ROLLOUT["canary"] | {"traffic": traffic}})
    await trial.at_weight(10)
    assert trial.weights() == {"digits": 5, "second": 18, CANARY: 2}
