"""A StatefulSet as target under Kubernetes' own controller: its pods are replaced one by one, and a broken one too.

Only the kubelet's word that a pod is ready is played, and the ends of Jobs.
"""

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from retune.api.crd import modeloptimization_crd, optimizationrun_crd
from tests.cluster.crds import install
from tests.cluster.harness import Bench
from tests.cluster.play import DELIVERED, Play, played, pod_template
from tools.localcluster.controlplane import ControlPlane, control_plane

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180), pytest.mark.usefixtures("hung_up")]
Json = dict[str, Any]
STATEFUL_SET = {"replicas": 2, "serviceName": "digits"} | pod_template("digits")


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A control plane whose StatefulSets get pods."""
    with control_plane(controllers=("statefulset-controller",)) as started:
        install(Bench(started).api, [modeloptimization_crd(), optimizationrun_crd()])
        yield started


@pytest.fixture
async def play(bench: Bench) -> AsyncIterator[Play]:
    """A namespace in which Jobs end and pods run."""
    async with played(bench, plural="statefulsets", api="/apis/apps/v1", kind="StatefulSet") as play:
        yield play


async def test_a_version_is_promoted_once_every_pod_has_it(play: Play) -> None:
    """One field is owned, and both pods are made anew by the StatefulSet's controller."""
    play.begin(STATEFUL_SET)
    await play.passes_until(lambda: play.reason("RolledOut") == "Promoted")
    assert play.values() == [play.status["champion"]["uri"]]
    assert play.target["status"]["currentRevision"] == play.target["status"]["updateRevision"]
    assert list(play.owned()) == ['k:{"name":"MODEL_URI"}']
    assert play.reason("TargetOwned") == "FieldOwned"


async def test_a_version_that_breaks_its_pod_is_taken_back(play: Play) -> None:
    """The controller waits for the broken pod for ever, so that it is deleted; the other pod never stopped serving."""
    play.begin(STATEFUL_SET, rollout={"progressDeadline": "60s"})
    await play.passes_until(lambda: play.status.get("stage") == "Optimizing" and len(play.pods()) == 2)
    first = play.pods()["digits-0"]["metadata"]["uid"]
    play.broken = True
    await play.passes_until(lambda: play.reason("RolledOut") == "Progressing" and len(play.values()) == 2)
    play.clock.wait(61)
    await play.passes_until(lambda: play.reason("RolledOut") == "RolledBack")
    assert play.values() == [DELIVERED]
    assert play.status["lastRun"]["reason"] == "ProgressDeadlineExceeded"
    assert play.status["champion"]["version"] == 1
    assert play.pods()["digits-0"]["metadata"]["uid"] == first


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
    play.begin(STATEFUL_SET | {"updateStrategy": strategy})
    await play.passes_until(lambda: play.reason("TargetResolved") == "NotFollowable")
    assert words in play.bench.condition("TargetResolved")["message"]
    assert not play.bench.jobs
