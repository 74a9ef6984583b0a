"""A StatefulSet as target under Kubernetes' own controller: its pods are replaced one by one, and a broken one too.

Only the kubelet's word that a pod is ready is played, and the ends of Jobs.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from retune.api.crd import modeloptimization_crd, optimizationrun_crd
from tests.cluster.crds import install
from tests.cluster.harness import Bench, Clock, settle
from tests.cluster.kubelet import Kubelet, value_of
from tests.faults.stage import reply
from tests.faults.stagehand import Stagehand
from tools.localcluster.controlplane import ControlPlane, control_plane

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.usefixtures("hung_up")]
Json = dict[str, Any]
APPS, CORE = "/apis/apps/v1", "/api/v1"
REF = {"apiVersion": "apps/v1", "kind": "StatefulSet"}
FORCED = {"spec": {"target": {"injection": {"takeover": "Force"}}}}
DELIVERED = "pvc://models/digits/delivered.onnx"
PATIENCE = 60.0


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A control plane whose StatefulSets get pods."""
    with control_plane(controllers=("statefulset-controller",)) as started:
        install(Bench(started).api, [modeloptimization_crd(), optimizationrun_crd()])
        yield started


def stateful_set(name: str, **spec: Any) -> Json:
    """A StatefulSet whose server is given the delivered model."""
    labels, env = {"app": name}, [{"name": "MODEL_URI", "value": DELIVERED}]
    container = {"name": "server", "image": "server:test", "env": env, "resources": {"limits": {"cpu": "2"}}}
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": name},
        "spec": {
            "replicas": 2,
            "serviceName": name,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        }
        | spec,
    }


class Play:
    """A StatefulSet, a resource that names it, and an operator that makes a pass when it is told to."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.broken = False
        """Whether pods of any other model than the delivered one never get ready."""

    def is_broken(self, pod: Json) -> bool:
        """Whether this pod never gets ready."""
        return self.broken and value_of(pod) != DELIVERED

    def begin(self, *, rollout: Json | None = None, **spec: Any) -> None:
        """Create both, and start the operator."""
        self.bench.create("statefulsets", stateful_set("digits", **spec), api=APPS)
        wanted = {"bakeTime": "0s"} | (rollout or {})
        self.key = self.bench.declare(target="digits", ref=REF, execution={}, rollout=wanted)
        self.bench.patch(self.bench.path("modeloptimizations", "digits"), FORCED)
        self.clock = Clock()
        self.operator = self.clock.drive(self.bench.operator(target_kinds=("StatefulSet",)))

    async def passes_until(self, true: Callable[[], bool]) -> None:
        """Make passes until something is true."""
        async with asyncio.timeout(PATIENCE):
            while not true():
                await settle(self.operator, self.key)
                await asyncio.sleep(0.1)

    def reason(self, kind: str) -> str | None:
        """Reason of a condition, None before it is there."""
        conditions = self.bench.resource().get("status", {}).get("conditions", ())
        return next((entry["reason"] for entry in conditions if entry["type"] == kind), None)

    def values(self) -> set[str | None]:
        """What the pods of the StatefulSet serve."""
        pods = self.bench.items("pods", api=CORE)
        return {value_of(pod) for pod in pods if pod["metadata"]["labels"].get("app") == "digits"}


@pytest.fixture
async def play(bench: Bench) -> AsyncIterator[Play]:
    """A namespace in which Jobs end and pods run."""
    play = Play(bench)
    with (
        Stagehand(bench.api, reply=reply, namespace=bench.namespace),
        Kubelet(bench.api, bench.namespace, is_broken=play.is_broken),
    ):
        yield play
    await play.operator.live.close()


async def test_a_version_is_promoted_once_every_pod_has_it(play: Play) -> None:
    """One field is owned, and both pods are made anew by the StatefulSet's controller."""
    play.begin()
    await play.passes_until(lambda: play.reason("RolledOut") == "Promoted")
    champion = play.bench.resource()["status"]["champion"]
    assert play.values() == {champion["uri"]}
    raw = play.bench.api.get(play.bench.path("statefulsets", "digits", api=APPS))
    assert raw["status"]["currentRevision"] == raw["status"]["updateRevision"]
    (owned,) = [entry for entry in raw["metadata"]["managedFields"] if entry["manager"] == "retune"]
    containers = owned["fieldsV1"]["f:spec"]["f:template"]["f:spec"]["f:containers"]
    assert list(containers['k:{"name":"server"}']["f:env"]) == ['k:{"name":"MODEL_URI"}']
    assert play.reason("TargetOwned") == "FieldOwned"


async def test_a_version_that_breaks_its_pod_is_taken_back(play: Play) -> None:
    """The controller waits for the broken pod for ever, so that it is deleted; the other pod never stopped serving."""
    play.begin(rollout={"progressDeadline": "60s"})
    await play.passes_until(lambda: play.bench.resource().get("status", {}).get("stage") == "Optimizing")
    (first, _) = sorted(play.bench.items("pods", api=CORE), key=lambda pod: str(pod["metadata"]["name"]))[:2]
    play.broken = True
    await play.passes_until(lambda: play.reason("RolledOut") == "Progressing" and len(play.values()) == 2)
    play.clock.wait(61)
    await play.passes_until(lambda: play.reason("RolledOut") == "RolledBack")
    assert play.values() == {DELIVERED}
    status = play.bench.resource()["status"]
    assert status["lastRun"]["reason"] == "ProgressDeadlineExceeded"
    assert status["champion"]["version"] == 1
    pods = {pod["metadata"]["name"]: pod["metadata"]["uid"] for pod in play.bench.items("pods", api=CORE)}
    assert pods[first["metadata"]["name"]] == first["metadata"]["uid"]


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        ({"type": "OnDelete"}, "OnDelete replaces no pod by itself"),
        ({"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}, "partition 1 keeps earlier pods"),
    ],
)
async def test_a_strategy_that_keeps_pods_is_told_and_nothing_is_changed(
    play: Play, strategy: Json, words: str
) -> None:
    """Before a Job runs: a version could never be brought to all pods."""
    play.begin(updateStrategy=strategy)
    await play.passes_until(lambda: play.reason("TargetResolved") == "NotFollowable")
    assert words in play.bench.condition("TargetResolved")["message"]
    assert not play.bench.jobs
