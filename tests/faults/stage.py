"""One resource in a namespace of its own, an operator that dies after any API call, and what became of it."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from retune.api.watched import Verdict
from retune.contract.requests import CheckRequest, JobRequest, JudgeRequest
from retune.contract.results import JobResult
from retune.contract.results import Verdict as Judged
from tests.answers import answer, check
from tests.cluster.gateway import ROUTES, http_route
from tests.faults.mortal import DIED
from tests.samples import manifest
from tools.localcluster.api import Api, ApiError

Json = dict[str, Any]
_TIMES = {
    "lastTransitionTime",
    "startTime",
    "completionTime",
    "acceptedAt",
    "promotedAt",
    "bakeStartTime",
    "cooldownUntil",
    "starts",
    "since",
    "windowEnd",
    "raisedAt",
    "scheduled",
}
_PAUSE = 0.25
MONITORING = {
    "production": {"uri": "pvc://store/production", "labels": {"uri": "pvc://store/labels", "maxDelay": "0s"}},
    "quality": {"consecutive": 1},
}
REFRESH = {"minRows": 900}
"""One window has as many rows with labels: a run need not wait for more of them."""
PROMOTED_AT = datetime(2026, 11, 2, 0, 0, 1, tzinfo=UTC)
WATCHED_AT = PROMOTED_AT + timedelta(days=1, minutes=10)
"""Windows of an hour are over then, and what signals rest after a run is too."""


def reply(request: JobRequest) -> JobResult:
    """Answer as a Job would: the first candidate wins; live quality is lost after it, and no candidate mends that."""
    if isinstance(request, CheckRequest):
        return check(request, quality=Verdict.BREACH)
    mending = isinstance(request, JudgeRequest) and request.trigger == "QualityDegradation"
    return answer(request, verdict=Judged.NO_GAIN if mending else Judged.PROMOTE)


def prepare(api: Api, namespace: str, *, rollout: Json | None = None, **spec: Any) -> None:
    """Make a namespace with a Deployment, its Service, and a ModelOptimization that rolls out without a pause.

    rollout: what to add to its spec.rollout.
    """
    api.apply(
        f"/api/v1/namespaces/{namespace}", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    )
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": namespace}}
    api.apply(f"/api/v1/namespaces/{namespace}/serviceaccounts/default", account)
    api.apply(f"/apis/apps/v1/namespaces/{namespace}/deployments/digits-server", deployment(namespace))
    service: Json = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "digits", "namespace": namespace}}
    service["spec"] = {"selector": {"app": "digits"}, "ports": [{"port": 80}]}
    api.apply(f"/api/v1/namespaces/{namespace}/services/digits", service)
    backends = [{"name": name, "port": 80} for name in ("digits", "other")]
    api.apply(f"{ROUTES}/namespaces/{namespace}/httproutes/digits", http_route("digits", backends))
    resource = manifest(
        target={"ref": {"name": "digits-server"}, "inference": {"modelName": "digits"}},
        rollout={"bakeTime": "0s"} | (rollout or {}),
        **spec,
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
    deployments = api.get(f"/apis/apps/v1/namespaces/{namespace}/deployments")["items"]
    services = api.get(f"/api/v1/namespaces/{namespace}/services")["items"]
    leases = api.get(f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases")["items"]
    jobs = api.get(f"/apis/batch/v1/namespaces/{namespace}/jobs")["items"]
    status = resource.get("status", {}) | {"targetUID": None, "holderUID": None}
    return {
        "finalizers": resource["metadata"].get("finalizers", []),
        "status": timeless(status),
        "env": target["spec"]["template"]["spec"]["containers"][0].get("env", []),
        "runs": {run["metadata"]["name"]: timeless(run.get("status", {})) for run in runs},
        "jobs": sorted(job["metadata"]["name"] for job in jobs),
        "deployments": sorted(deployment["metadata"]["name"] for deployment in deployments),
        "services": sorted(service["metadata"]["name"] for service in services),
        "rules": api.get(f"{ROUTES}/namespaces/{namespace}/httproutes/digits")["spec"]["rules"],
        "leases": len(leases),
    }


def timeless(value: Any) -> Any:
    """Return a document without its moments."""
    if isinstance(value, dict):
        return {name: timeless(inner) for name, inner in value.items() if name not in _TIMES}
    return [timeless(inner) for inner in value] if isinstance(value, list) else value


def promoted(found: Json) -> bool:
    """Return whether the first run is over in a state, and nothing is left to undo."""
    return bool(found.get("runs", {}).get("digits-r1", {}).get("outcome")) and not found["finalizers"]


def watched(found: Json) -> bool:
    """Return whether the champion of the first run is watched."""
    status = found.get("status", {})
    seen = status.get("monitoring", {}).get("championDigest")
    return promoted(found) and bool(seen == status["champion"]["digest"])


def judged(found: Json) -> bool:
    """Return whether the run that a signal started is over, and why that signal starts no other was told."""
    ended = found.get("runs", {}).get("digits-r2", {}).get("outcome")
    return bool(ended) and "held" in found["status"].get("triggers", {})


def run_until(
    over: Callable[[Json], bool],
    api: Api,
    kubeconfig: Path,
    namespaces: Sequence[str],
    *,
    kill_after: int | None = None,
    moment: datetime | None = None,
    seconds: float = 120,
) -> bool:
    """Run an operator process until it dies after so many calls or all is over; returns whether it died.

    moment: where its clock stands still; only writes are counted then.
    Raises AssertionError with its output when it ends in any other way, or takes longer than `seconds`.
    """
    moments = [moment.isoformat()] if moment else []
    arguments = [str(kubeconfig), ",".join(namespaces), str(kill_after or 0), *moments]
    command = [sys.executable, "-m", "tests.faults.mortal", *arguments]
    left = list(namespaces)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        deadline = time.monotonic() + seconds
        while process.poll() is None and left and time.monotonic() < deadline:
            time.sleep(_PAUSE)
            while left and over(snapshot(api, left[0])):
                left.pop(0)
        late = time.monotonic() >= deadline
        process.kill()
        output = process.communicate()[0]
    died = process.returncode == DIED
    assert not late, f"{left[0]} is not over after {seconds:g} s: {snapshot(api, left[0])}\n{output}"
    assert died or process.returncode < 0, output
    return died
