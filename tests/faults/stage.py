"""One resource in a namespace of its own, an operator that dies after any API call, and what became of it."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.faults.mortal import DIED
from tests.localcluster.api import Api, ApiError
from tests.samples import manifest

Json = dict[str, Any]
_TIMES = {"lastTransitionTime", "startTime", "completionTime", "promotedAt", "bakeStartTime"}
_PAUSE = 0.1


def prepare(api: Api, namespace: str) -> None:
    """Make a namespace with a Deployment and a ModelOptimization that rolls out without a pause."""
    api.apply(
        f"/api/v1/namespaces/{namespace}", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    )
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": namespace}}
    api.apply(f"/api/v1/namespaces/{namespace}/serviceaccounts/default", account)
    api.apply(f"/apis/apps/v1/namespaces/{namespace}/deployments/digits-server", deployment(namespace))
    resource = manifest(
        target={"ref": {"name": "digits-server"}, "inference": {"modelName": "digits"}}, rollout={"bakeTime": "0s"}
    )
    resource["metadata"]["namespace"] = namespace
    api.request("POST", f"/apis/retune.dev/v1alpha1/namespaces/{namespace}/modeloptimizations", resource)


def deployment(namespace: str) -> Json:
    """Return a Deployment of one pod."""
    labels = {"app": "digits"}
    container = {"name": "server", "image": "example/server:1", "resources": {"limits": {"cpu": "1"}}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "digits-server", "namespace": namespace},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }


def snapshot(api: Api, namespace: str) -> Json:
    """Return the state that counts: without times, UIDs and versions, which differ from run to run."""
    retune = f"/apis/retune.dev/v1alpha1/namespaces/{namespace}"
    try:
        resource = api.get(f"{retune}/modeloptimizations/digits")
    except ApiError:
        return {}
    target = api.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/digits-server")
    runs = api.get(f"{retune}/optimizationruns")["items"]
    leases = api.get(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases")["items"]
    jobs = api.get(f"/apis/batch/v1/namespaces/{namespace}/jobs")["items"]
    status = resource.get("status", {}) | {"targetUID": None}
    return {
        "finalizers": resource["metadata"].get("finalizers", []),
        "status": timeless(status),
        "env": target["spec"]["template"]["spec"]["containers"][0].get("env", []),
        "runs": {run["metadata"]["name"]: timeless(run.get("status", {})) for run in runs},
        "jobs": sorted(job["metadata"]["name"] for job in jobs),
        "leases": len(leases),
    }


def timeless(value: Any) -> Any:
    """Return a document without its moments."""
    if isinstance(value, dict):
        return {name: timeless(inner) for name, inner in value.items() if name not in _TIMES}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


def run_until_over(api: Api, kubeconfig: Path, namespace: str, *, kill_after: int | None, seconds: float = 120) -> bool:
    """Run an operator process until it dies after so many calls or the pass is over; returns whether it died.

    Raises AssertionError with its output when it ends in any other way, or takes longer than `seconds`.
    """
    command = [sys.executable, "-m", "tests.faults.mortal", str(kubeconfig), namespace, str(kill_after or 0)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        deadline = time.monotonic() + seconds
        while process.poll() is None and not _over(api, namespace) and time.monotonic() < deadline:
            time.sleep(_PAUSE)
        late = time.monotonic() >= deadline
        process.kill()
        output = process.communicate()[0]
    died = process.returncode == DIED
    assert not late, f"{namespace} is not over after {seconds:g} s: {snapshot(api, namespace)}\n{output}"
    assert died or process.returncode < 0, output
    return died


def _over(api: Api, namespace: str) -> bool:
    found = snapshot(api, namespace)
    return bool(found.get("runs", {}).get("digits-r1", {}).get("outcome")) and not found["finalizers"]
