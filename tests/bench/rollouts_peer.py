"""Argo Rollouts in a burst like the operator's of `tests.bench.control`: created Rollout to created ReplicaSet.

Its controller is the pinned release's, as `go build` makes it, on a control plane like the operator's. Each Rollout has
one pod, a canary strategy of one step, and the same pod template as the operator's targets. Both run without an
election, and log no more than warnings. Its own defaults hold all clients of one kind to 40 requests a second; RAISED
is what somebody would set who finds that too slow.
"""

import re
from typing import Any

from tests.bench.burst import Burst, Watch, meet, settle
from tests.bench.measured import Posted, named, post_all, server_writes
from tests.cluster.crds import install
from tests.faults.stage import deployment
from tests.neighbours import argo_rollouts
from tools.localcluster.api import Api
from tools.localcluster.controlplane import ControlPlane, control_plane

Json = dict[str, Any]
RAISED = ("--qps=10000", "--burst=10000", "--rollout-threads=16")
"""Flags that lift its limit on requests, and give it as many workers as the operator has."""
_NAMESPACE, _WARM = "rollouts", "default"
_ROLLOUT = re.compile(rb'"kind":"Rollout","name":"([^"]+)"')
_WRITTEN = frozenset(
    {("rollouts", ""), ("rollouts", "status"), ("replicasets", ""), ("replicasets", "status"), ("events", "")}
)


def measure(size: int, *flags: str) -> Burst:
    """Let its controller, started with more flags, meet a burst on a control plane of its own.

    Its writes are the API server's count without the creates of the Rollouts, which are the generator's.
    """
    with control_plane() as plane:
        api = Api(plane.kubeconfig)
        install(api, argo_rollouts.crds())
        api.apply(f"/api/v1/namespaces/{_NAMESPACE}", _namespace())
        with argo_rollouts.controller(plane.kubeconfig, plane.folder / "rollouts.log", *flags) as argo:
            _warm(plane)
            return meet(
                plane,
                argo.pid,
                create=lambda: _create(plane, _NAMESPACE, size),
                watch=Watch(plane, _children(_NAMESPACE), names=_ROLLOUT),
                kinds=_WRITTEN,
                generated=1,
            )


def _namespace() -> Json:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": _NAMESPACE}}


def _warm(plane: ControlPlane) -> None:
    """Have the controller take up one Rollout: it is ready once that is done."""
    watch = Watch(plane, _children(_WARM), names=_ROLLOUT, stop_after=1)
    _create(plane, _WARM, 1)
    watch.wait(1)
    settle(lambda: server_writes(Api(plane.kubeconfig), _WRITTEN))


def _create(plane: ControlPlane, namespace: str, size: int) -> Posted:
    """Create Rollouts."""
    made = _rollout()
    bodies = [named(made, namespace, f"digits-{number}") for number in range(size)]
    return post_all(plane, f"/apis/argoproj.io/v1alpha1/namespaces/{namespace}/rollouts", bodies)


def _rollout() -> Json:
    """Return a Rollout of the pods that the operator's targets have."""
    document = deployment(_NAMESPACE)
    document["spec"]["strategy"] = {"canary": {"steps": [{"setWeight": 50}]}}
    return document | {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout"}


def _children(namespace: str) -> str:
    return f"/apis/apps/v1/namespaces/{namespace}/replicasets"
