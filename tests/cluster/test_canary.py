"""A canary on a real API server: what is made beside the target, who would get its requests, and what is left.

A stagehand plays Job controller, Deployment controller and kubelet; a clock that the test moves passes holds at once.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.cluster.harness import Bench, Clock, settle
from tests.faults.stage import reply
from tests.faults.stagehand import Stagehand

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120), pytest.mark.usefixtures("hung_up")]
Json = dict[str, Any]
APPS, CORE = "/apis/apps/v1", "/api/v1"
CANARY = "digits-server-canary"
ROLLOUT: Json = {
    "strategy": "Canary",
    "bakeTime": "0s",
    "canary": {"steps": [{"weight": 25, "hold": "5m"}, {"weight": 50, "hold": "5m"}]},
}
TRACK = {"track": "stable"}
PATIENCE = 40.0


@dataclass
class Trial:
    """A namespace with a target behind a Service, and an operator that makes a pass when it is told to."""

    bench: Bench

    async def passes_until(self, true: Callable[[], bool]) -> None:
        """Make passes until something is true."""
        async with asyncio.timeout(PATIENCE):
            while not true():
                await settle(self.operator, self.key)
                await asyncio.sleep(0.1)

    def begin(self, **spec: Any) -> None:
        """Declare the resource, and start the operator."""
        self.key = self.bench.declare(**({"execution": {}, "rollout": ROLLOUT} | spec))
        self.clock = Clock()
        self.operator = self.clock.drive(self.bench.operator())

    @property
    def rollout(self) -> Json:
        """The rollout under way, empty where there is none."""
        rollout: Json = self.bench.resource().get("status", {}).get("rollout", {})
        return rollout

    def reason(self, kind: str) -> str | None:
        """Reason of a condition, None before it is there."""
        conditions = self.bench.resource().get("status", {}).get("conditions", ())
        return next((entry["reason"] for entry in conditions if entry["type"] == kind), None)

    def deployments(self) -> dict[str, Json]:
        """All Deployments by name."""
        return {item["metadata"]["name"]: item for item in self.bench.items("deployments", api=APPS)}

    def pods(self, **labels: str) -> set[str]:
        """Which Deployments have pods that these labels select."""
        selector = ",".join(f"{key}%3D{value}" for key, value in labels.items())
        items = self.bench.api.get(f"{self.bench.path('pods', api=CORE)}?labelSelector={selector}")["items"]
        return {item["metadata"]["ownerReferences"][0]["name"].rpartition("-")[0] for item in items}


@pytest.fixture
async def trial(bench: Bench) -> AsyncIterator[Trial]:
    """A namespace in which Jobs end and Deployments settle."""
    trial = Trial(bench)
    with Stagehand(bench.api, reply=reply, namespace=bench.namespace):
        yield trial
    await trial.operator.live.close()


async def test_a_version_is_tried_beside_the_target_and_leaves_nothing_but_its_field(trial: Trial) -> None:
    """The Service chooses the canary's pods, the target's own selector does not; the target is changed once."""
    before = trial.bench.deploy(replicas=3, more=TRACK)
    trial.bench.serve()
    trial.begin()
    await trial.passes_until(lambda: trial.rollout.get("weight") == 25)
    canary, target = trial.deployments()[CANARY], trial.deployments()["digits-server"]
    assert canary["metadata"]["ownerReferences"][0]["uid"] == trial.bench.resource()["metadata"]["uid"]
    assert (canary["spec"]["replicas"], trial.rollout["effectiveWeight"]) == (1, 25)
    assert target["spec"] == before["spec"]
    assert trial.pods(app="digits-server") == {"digits-server", CANARY}
    assert trial.pods(app="digits-server", track="stable") == {"digits-server"}
    assert trial.reason("CanaryPossible") == "Possible"
    trial.clock.wait(301)
    await trial.passes_until(lambda: trial.rollout.get("effectiveWeight") == 50)
    assert trial.deployments()[CANARY]["spec"]["replicas"] == 3
    trial.clock.wait(301)
    await trial.passes_until(lambda: trial.reason("RolledOut") == "Promoted")
    assert trial.deployments().keys() == {"digits-server"}
    after = trial.deployments()["digits-server"]
    (owned,) = [entry for entry in after["metadata"]["managedFields"] if entry["manager"] == "retune"]
    assert list(owned["fieldsV1"]["f:spec"]["f:template"]["f:spec"]) == ["f:containers"]
    assert after["spec"]["selector"] == before["spec"]["selector"]
    env = after["spec"]["template"]["spec"]["containers"][0]["env"]
    assert [entry["name"] for entry in env] == ["MODEL_URI"]


async def test_an_overlap_is_refused_in_words_until_it_is_allowed(trial: Trial) -> None:
    """Where a Service selects by every label of the target; nothing is made before that."""
    trial.bench.deploy(replicas=1)
    trial.bench.serve()
    trial.begin()
    await trial.passes_until(lambda: trial.reason("CanaryPossible") == "CanaryImpossible")
    assert "digits-server" in trial.bench.condition("CanaryPossible")["message"]
    assert trial.bench.condition("Stalled")["status"] == "True"
    assert trial.deployments().keys() == {"digits-server"}
    allowed = {"canary": {"traffic": {"overlap": "Allow"}}}
    trial.bench.patch(trial.bench.path("modeloptimizations", "digits"), {"spec": {"rollout": allowed}})
    await trial.passes_until(lambda: trial.rollout.get("weight") == 25)
    assert trial.rollout["effectiveWeight"] == 50
    assert trial.pods(app="digits-server") == {"digits-server", CANARY}


async def test_a_target_without_a_service_gets_no_canary(trial: Trial) -> None:
    """Nobody would share its requests."""
    trial.bench.deploy(replicas=1, more=TRACK)
    trial.begin()
    await trial.passes_until(lambda: trial.reason("CanaryPossible") == "CanaryImpossible")
    assert "no Service selects the pods" in trial.bench.condition("CanaryPossible")["message"]


async def test_a_deployment_of_the_canary_s_name_is_left_alone(trial: Trial) -> None:
    """Somebody else's; it is named, and the rollout goes on once it is gone."""
    trial.bench.deploy(replicas=1, more=TRACK)
    trial.bench.serve()
    theirs = trial.bench.deploy(CANARY)
    trial.begin()
    await trial.passes_until(lambda: trial.reason("CanaryPossible") == "NameConflict")
    assert CANARY in trial.bench.condition("CanaryPossible")["message"]
    assert trial.deployments()[CANARY]["spec"] == theirs["spec"]
    trial.bench.api.request("DELETE", trial.bench.path("deployments", CANARY, api=APPS))
    await trial.passes_until(lambda: trial.rollout.get("step") in {"CanaryReady", "CanaryGolden", "Weight"})


async def test_who_scales_the_target_is_told_before_anything_is_tried(trial: Trial) -> None:
    """Fact of the server, read when the canary is made."""
    trial.bench.deploy(replicas=1, more=TRACK)
    trial.bench.serve()
    scaled = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "digits-server"}
    body = {"metadata": {"name": "scaler"}, "spec": {"maxReplicas": 3, "scaleTargetRef": scaled}}
    trial.bench.create("horizontalpodautoscalers", body, api="/apis/autoscaling/v2")
    trial.begin()
    await trial.passes_until(lambda: trial.reason("CanaryPossible") == "Autoscaled")
    assert "HorizontalPodAutoscaler scaler" in trial.bench.condition("CanaryPossible")["message"]


async def test_a_service_that_chooses_others_by_now_is_noticed(trial: Trial) -> None:
    """The canary gets no requests then, and the status does not claim that it does."""
    trial.bench.deploy(replicas=1, more=TRACK)
    trial.bench.serve()
    trial.begin()
    await trial.passes_until(lambda: trial.rollout.get("effectiveWeight") == 50)
    path = trial.bench.path("services", "digits", api=CORE)
    trial.bench.patch(path, {"spec": {"selector": TRACK}})
    await trial.passes_until(lambda: trial.reason("RolledOut") == "CanaryUnserved")
    assert trial.rollout["effectiveWeight"] == 0
    trial.bench.patch(path, {"spec": {"selector": {"track": None}}})
    await trial.passes_until(lambda: trial.rollout.get("effectiveWeight") == 50)


async def test_a_resource_that_is_deleted_in_its_trial_leaves_no_canary(trial: Trial) -> None:
    """No garbage collector runs here: the operator has removed it."""
    trial.bench.deploy(replicas=1, more=TRACK)
    trial.bench.serve()
    trial.begin()
    await trial.passes_until(lambda: trial.rollout.get("weight") == 25)
    trial.bench.api.request("DELETE", trial.bench.path("modeloptimizations", "digits"))
    await trial.passes_until(lambda: not trial.bench.items("modeloptimizations", api="/apis/retune.dev/v1alpha1"))
    assert trial.deployments().keys() == {"digits-server"}


async def test_a_quota_that_admits_no_canary_is_told(trial: Trial) -> None:
    """And the rollout goes on when there is room."""
    trial.bench.deploy(replicas=1, more=TRACK)
    trial.bench.serve()
    trial.begin()
    hard, path = {"count/deployments.apps": "1"}, trial.bench.path("resourcequotas", "one", api=CORE)
    trial.bench.create("resourcequotas", {"metadata": {"name": "one"}, "spec": {"hard": hard}}, api=CORE)
    trial.bench.patch(f"{path}/status", {"status": {"hard": hard, "used": {"count/deployments.apps": "1"}}})
    await trial.passes_until(lambda: trial.reason("CanaryPossible") == "QuotaExceeded")
    trial.bench.api.request("DELETE", path)
    await trial.passes_until(lambda: trial.reason("CanaryPossible") == "Possible")
