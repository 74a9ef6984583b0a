"""What becomes of the pods of a Job, on a real API server with the real Job controller and no node.

Only what a kubelet would say is played by the tests: that a pod runs, and that it has ended.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from retune.api.crd import modeloptimization_crd, optimizationrun_crd
from retune.runtime import Operator
from tests.cluster.crds import install
from tests.cluster.harness import Bench, settle
from tests.faults.stagehand import now
from tools.localcluster.controlplane import ControlPlane, control_plane

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
Json = dict[str, Any]
CORE = "/api/v1"
PATIENCE = 60.0


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A control plane whose Jobs get pods."""
    with control_plane(controllers=("job-controller",)) as started:
        bench = Bench(started)
        install(bench.api, [modeloptimization_crd(), optimizationrun_crd()])
        yield started


async def passes_until(operator: Operator, key: str, true: Callable[[], bool]) -> None:
    """Make passes until something is true."""
    async with asyncio.timeout(PATIENCE):
        while not true():
            await settle(operator, key)
            await asyncio.sleep(0.3)


def pods(bench: Bench) -> list[Json]:
    """The pods in the namespace that nobody has deleted."""
    return [pod for pod in bench.items("pods", api=CORE) if "deletionTimestamp" not in pod["metadata"]]


def limit_range(bench: Bench) -> str:
    """Allow containers less memory than any Job has; returns the path of what does."""
    limits = [{"type": "Container", "max": {"memory": "1Mi"}}]
    bench.create("limitranges", {"metadata": {"name": "tiny"}, "spec": {"limits": limits}}, api=CORE)
    return bench.path("limitranges", "tiny", api=CORE)


async def test_limits_that_fit_the_work_of_a_job_fit_what_comes_before_it(bench: Bench) -> None:
    """A LimitRange holds for init containers too: none of a Job asks for less than its own container."""
    limits = [{"type": "Container", "min": {"cpu": "250m", "memory": "512Mi"}, "max": {"cpu": "2", "memory": "4Gi"}}]
    bench.create("limitranges", {"metadata": {"name": "narrow"}, "spec": {"limits": limits}}, api=CORE)
    bench.deploy()
    key = bench.declare(execution={})
    operator = bench.operator()
    await passes_until(operator, key, lambda: len(pods(bench)) == 1)
    (pod,) = pods(bench)
    assert pod["spec"]["initContainers"]


def quota(bench: Bench) -> str:
    """Allow no pods; returns the path of what does."""
    hard, path = {"pods": "0"}, bench.path("resourcequotas", "none", api=CORE)
    bench.create("resourcequotas", {"metadata": {"name": "none"}, "spec": {"hard": hard}}, api=CORE)
    bench.patch(f"{path}/status", {"status": {"hard": hard, "used": {"pods": "0"}}})
    return path


@pytest.mark.parametrize(
    ("forbid", "words"), [(limit_range, "maximum memory usage per Container"), (quota, "exceeded quota: none")]
)
async def test_pods_that_may_not_be_made_are_a_reason_to_wait(
    bench: Bench, forbid: Callable[[Bench], str], words: str
) -> None:
    """Fault 13: the condition quotes the LimitRange or the quota; the pod comes once it may, and nothing has failed."""
    bench.deploy()
    path = forbid(bench)
    key = bench.declare(execution={})
    operator = bench.operator()
    await settle(operator, key)
    await passes_until(operator, key, lambda: words in bench.condition("Baselined")["message"])
    assert bench.condition("Baselined")["status"] == "Unknown"
    assert pods(bench) == []
    bench.api.request("DELETE", path)
    await passes_until(operator, key, lambda: len(pods(bench)) == 1)
    await passes_until(operator, key, lambda: words not in bench.condition("Baselined")["message"])
    (job,) = bench.jobs
    assert not job["status"].get("failed")
    assert bench.resource()["status"]["baseline"]["attempt"] == 1


def run_on_a_node(bench: Bench, pod: Json, node: str) -> None:
    """Give a pod a node and let it run there."""
    bench.api.request("POST", f"{CORE}/nodes", {"metadata": {"name": node}})
    path = bench.path("pods", pod["metadata"]["name"], api=CORE)
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod["metadata"]["name"]}}
    bench.api.request("POST", f"{path}/binding", binding | {"target": {"kind": "Node", "name": node}})
    bench.patch(f"{path}/status", {"status": {"phase": "Running", "startTime": now()}})


def evict(bench: Bench, pod: Json, _: str) -> None:
    """Drain the node: ask the API to evict the pod, as `kubectl drain` does, and let its containers end."""
    name = pod["metadata"]["name"]
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": bench.namespace}}
    path = bench.path("pods", name, api=CORE)
    bench.api.request("POST", f"{path}/eviction", body)
    bench.patch(f"{path}/status", {"status": {"phase": "Failed"}})
    bench.api.request("DELETE", f"{path}?gracePeriodSeconds=0")


def lose_node(bench: Bench, pod: Json, node: str) -> None:
    """Delete the Node, and mark its pod as the pod garbage collector does for a node that is no more."""
    bench.api.request("DELETE", f"{CORE}/nodes/{node}")
    path = bench.path("pods", pod["metadata"]["name"], api=CORE)
    lost = {
        "type": "DisruptionTarget",
        "status": "True",
        "reason": "DeletionByPodGC",
        "message": "PodGC: node no longer exists",
        "lastTransitionTime": now(),
    }
    bench.patch(f"{path}/status", {"status": {"phase": "Failed", "conditions": [lost]}})
    bench.api.request("DELETE", f"{path}?gracePeriodSeconds=0")


@pytest.mark.parametrize("lose", [evict, lose_node])
async def test_a_pod_that_is_taken_away_is_replaced_and_nothing_has_failed(
    bench: Bench, lose: Callable[[Bench, Json, str], None]
) -> None:
    """Fault 18: drained or lost with its node, the pod costs no retry, and the attempt is still the first."""
    bench.deploy()
    key = bench.declare(execution={"backoffLimit": 0})
    operator = bench.operator()
    await passes_until(operator, key, lambda: len(pods(bench)) == 1)
    (pod,) = pods(bench)
    node = f"{bench.namespace}-node"
    run_on_a_node(bench, pod, node)
    await passes_until(operator, key, lambda: bench.condition("Baselined")["reason"] == "Running")
    lose(bench, pod, node)
    await passes_until(
        operator, key, lambda: [each for each in pods(bench) if each["metadata"] != pod["metadata"]] != []
    )
    await settle(operator, key)
    (job,) = bench.jobs
    assert not [condition for condition in job["status"].get("conditions", ()) if condition["type"] == "Failed"]
    assert not job["status"].get("failed")
    assert bench.condition("Baselined")["status"] == "Unknown"
    assert bench.resource()["status"]["baseline"]["attempt"] == 1
