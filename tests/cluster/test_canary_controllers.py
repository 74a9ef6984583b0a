"""A canary under Kubernetes' own controllers: whose pods are whose, who gets requests, and what goes with it.

Deployment, ReplicaSet and EndpointSlice controllers and the garbage collector are real; only the kubelet's word that a
pod is ready is played. This is what an overlap of selectors rests on: owners, and not labels, tell pods apart.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from retune.api.crd import modeloptimization_crd, optimizationrun_crd
from retune.plan.actions import Action, CreateCanary, RemoveCanary, ScaleCanary
from retune.plan.observed import Observed
from retune.runtime import Operator
from tests.cluster.crds import install
from tests.cluster.harness import Bench, settle
from tests.cluster.running import until
from tests.conformance.scene import as_seen
from tests.faults.stagehand import now
from tools.localcluster.controlplane import ControlPlane, control_plane

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
Json = dict[str, Any]
APPS, CORE, DISCOVERY = "/apis/apps/v1", "/api/v1", "/apis/discovery.k8s.io/v1"
TARGET, CANARY = "digits-server", "digits-server-canary"
CONTROLLERS = (
    "deployment-controller",
    "replicaset-controller",
    "endpointslice-controller",
    "garbage-collector-controller",
)
COLLECTED_SECONDS = 150.0
"""A garbage collector looks every half minute for kinds that are new to it."""
BUNDLE = "pvc://store/bundles/a"


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A control plane whose Deployments get pods."""
    with control_plane(controllers=CONTROLLERS) as started:
        install(Bench(started).api, [modeloptimization_crd(), optimizationrun_crd()])
        yield started


class Cast:
    """A target of three pods behind a Service, and an operator that does what it is told."""

    def __init__(self, bench: Bench, operator: Operator, key: str) -> None:
        self.bench = bench
        self._operator = operator
        self._key = key

    async def do(self, *actions: Action) -> Observed:
        """Carry actions out on what is seen before each; returns what is seen after them."""
        for action in actions:
            observed = await self.see()
            await self._operator.reconciler._verbs(observed)[type(action)](as_seen(action, observed))
        return await self.see()

    async def see(self) -> Observed:
        """List everything, and observe."""
        await self._operator.resync.once()
        resource = self._operator.cache.resource(self._key)
        assert resource is not None
        return await self._operator.reader.observe(resource)

    def pods(self) -> dict[str, set[str]]:
        """UIDs of the pods of each Deployment, by its ReplicaSets."""
        sets = {item["metadata"]["uid"]: item for item in self.bench.items("replicasets", api=APPS)}
        owned: dict[str, set[str]] = {TARGET: set(), CANARY: set()}
        for pod in self.bench.items("pods", api=CORE):
            replica_set = sets.get(pod["metadata"]["ownerReferences"][0]["uid"])
            if replica_set is not None and "deletionTimestamp" not in pod["metadata"]:
                owned[replica_set["metadata"]["ownerReferences"][0]["name"]].add(pod["metadata"]["uid"])
        return owned

    def counts(self) -> dict[str, int]:
        """How many pods each Deployment has."""
        return {name: len(uids) for name, uids in self.pods().items()}

    def all_ready(self) -> None:
        """Give every pod a node, and say of it what a kubelet would of one that is well."""
        node = f"{self.bench.namespace}-node"
        self.bench.api.request("POST", f"{CORE}/nodes", {"metadata": {"name": node}})
        for number, pod in enumerate(self.bench.items("pods", api=CORE), 1):
            path = self.bench.path("pods", pod["metadata"]["name"], api=CORE)
            binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod["metadata"]["name"]}}
            self.bench.api.request("POST", f"{path}/binding", binding | {"target": {"kind": "Node", "name": node}})
            ready = [{"type": "Ready", "status": "True", "lastTransitionTime": now()}]
            address = {"podIP": f"10.8.0.{number}", "podIPs": [{"ip": f"10.8.0.{number}"}]}
            self.bench.patch(f"{path}/status", {"status": {"phase": "Running", "conditions": ready} | address})

    def receivers(self) -> set[str]:
        """UIDs of the pods that the Service sends requests to."""
        slices = self.bench.items("endpointslices", api=DISCOVERY)
        endpoints = [endpoint for item in slices for endpoint in item.get("endpoints") or ()]
        return {endpoint["targetRef"]["uid"] for endpoint in endpoints if endpoint["conditions"].get("ready")}


@pytest.fixture(params=["overlap", "disjoint"])
async def cast(bench: Bench, request: pytest.FixtureRequest) -> Cast:
    """With a selector that matches the canary's pods too, and with one that does not."""
    bench.deploy(replicas=3, more={} if request.param == "overlap" else {"track": "stable"})
    bench.serve()
    key, operator = bench.declare(suspend=True), bench.operator()
    await settle(operator, key)
    cast = Cast(bench, operator, key)
    await until(lambda: cast.counts() == {TARGET: 3, CANARY: 0})
    return cast


def create() -> CreateCanary:
    """Return the action that makes a canary."""
    return CreateCanary("server", "MODEL_URI", BUNDLE, template="as seen", replicas=1, overlaps=True)


async def test_neither_takes_the_other_s_pods_whatever_is_scaled_or_edited(cast: Cast) -> None:
    """The target grows and is rolled to another template; the canary's pods are the same, and the other way round."""
    await cast.do(create(), ScaleCanary("as seen", 2))
    await until(lambda: cast.counts() == {TARGET: 3, CANARY: 2})
    canary, target = cast.pods()[CANARY], cast.pods()[TARGET]
    path = cast.bench.path("deployments", TARGET, api=APPS)
    cast.bench.patch(path, {"spec": {"replicas": 4}})
    await until(lambda: cast.counts() == {TARGET: 4, CANARY: 2})
    assert cast.pods()[CANARY] == canary
    assert target < cast.pods()[TARGET]
    await cast.do(ScaleCanary("as seen", 1))
    await until(lambda: cast.counts() == {TARGET: 4, CANARY: 1})
    assert target < cast.pods()[TARGET]
    left = cast.pods()[CANARY]
    cast.bench.patch(path, {"spec": {"template": {"metadata": {"annotations": {"edited": "yes"}}}}})
    await until(lambda: cast.counts()[TARGET] == 5)  # a surge of one, as none of its pods is ready
    assert cast.pods()[CANARY] == left
    observed = await cast.see()
    assert observed.target is not None
    assert observed.traffic.canary is not None
    assert (observed.target.wanted, observed.traffic.canary.workload.wanted) == (4, 1)


async def test_the_service_sends_requests_to_both(cast: Cast) -> None:
    """By the Service's selector alone, and only while they are ready."""
    await cast.do(create())
    await until(lambda: cast.counts() == {TARGET: 3, CANARY: 1})
    cast.all_ready()
    both = cast.pods()
    await until(lambda: cast.receivers() == both[TARGET] | both[CANARY])
    await cast.do(RemoveCanary("as seen"))
    await until(lambda: cast.receivers() == both[TARGET])


async def test_a_canary_goes_with_its_pods_and_the_target_stays(cast: Cast) -> None:
    """Removed by us, or by the garbage collector with its owner."""
    await cast.do(create())
    await until(lambda: cast.counts() == {TARGET: 3, CANARY: 1})
    target = cast.pods()[TARGET]
    await cast.do(RemoveCanary("as seen"))
    await until(lambda: len(cast.bench.items("replicasets", api=APPS)) == 1, seconds=COLLECTED_SECONDS)
    assert cast.pods() == {TARGET: target, CANARY: set()}
    await cast.do(create())
    await until(lambda: cast.counts() == {TARGET: 3, CANARY: 1})
    cast.bench.api.request("DELETE", cast.bench.path("modeloptimizations", "digits"))
    await until(lambda: len(cast.bench.items("deployments", api=APPS)) == 1, seconds=COLLECTED_SECONDS)
    await until(lambda: len(cast.bench.items("replicasets", api=APPS)) == 1, seconds=COLLECTED_SECONDS)
    assert cast.pods() == {TARGET: target, CANARY: set()}
