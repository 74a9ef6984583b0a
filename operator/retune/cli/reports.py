"""Fetch a report from its store: from a bucket with the caller's own credentials, from a claim by a short-lived pod.

The pod mounts the claim read-only and prints the file. It fits Pod Security `restricted`, has no token, ends by itself,
and is removed as soon as the file is here. What comes out of its log, or out of a bucket, is data from elsewhere: it is
written to the named file, and nothing else.
"""

import base64
import binascii
import gzip
import secrets
import time
import zlib
from dataclasses import dataclass
from pathlib import PurePosixPath

from retune.api import API_VERSION
from retune.api.base import Json
from retune.api.objects import ModelOptimization, OptimizationRun
from retune.cli import buckets
from retune.cli.access import PODS, AccessError, Cluster
from retune.contract.paths import CLAIM_ROOT, claim_of
from retune.kubelet import CANNOT_START
from retune.workloads.security import CONTAINER_SECURITY, POD_SECURITY

WAIT_SECONDS = 120.0
"""Longest that the pod may take to print the file."""
_POLL_SECONDS = 0.5
_LIFETIME_SECONDS = 300
"""Time after which the pod ends in any case."""
_PACK = (
    "import base64, gzip, pathlib, sys; "
    "print(base64.b64encode(gzip.compress(pathlib.Path(sys.argv[1]).read_bytes(), mtime=0)).decode())"
)
_INHERITED = ("nodeSelector", "tolerations", "imagePullSecrets")


@dataclass(frozen=True)
class Report:
    """Where the report of a run or of a window lies."""

    of: str
    """What it is the report of, in words."""
    owner: OptimizationRun | ModelOptimization
    """Owner of the pod that reads the report: the pod is removed with it, if nothing else removes it."""
    resource: str
    """Name of the ModelOptimization."""
    jobs: str
    """How the names of the Jobs begin whose image and nodes suit the pod best."""
    uri: str
    """URI of the report."""

    @property
    def claim(self) -> str | None:
        """Name of the PersistentVolumeClaim that it lies on; None where it is in a bucket."""
        return claim_of(self.uri)


def locate(resource: ModelOptimization, runs: list[OptimizationRun], *, run: str | None) -> Report:
    """Return the report of a run.

    Args:
        resource: The ModelOptimization.
        runs: Its runs, oldest first.
        run: Name of one of them; None for the newest that has a report.

    Raises:
        AccessError: There is no such run, or no report yet.
    """
    candidates = [recorded for recorded in runs if run in {None, recorded.metadata.name}]
    if run and not candidates:
        known = ", ".join(recorded.metadata.name for recorded in runs) or "none"
        raise AccessError(f"{resource.key} has no run {run}; its runs: {known}")
    newest = next((recorded for recorded in reversed(candidates) if recorded.status.report_uri), None)
    if newest is None or newest.status.report_uri is None:
        raise AccessError(f"{run or resource.key} has no report yet: the judge writes it; see `retune status`")
    name = newest.metadata.name
    of = f"{name} ({newest.status.outcome or 'under way'})"
    return Report(of=of, owner=newest, resource=resource.metadata.name, jobs=name, uri=newest.status.report_uri)


def locate_window(resource: ModelOptimization) -> Report:
    """Return the report of the last window whose check has ended; raises AccessError where it has none."""
    watched, name = resource.status.monitoring, resource.metadata.name
    if watched is None or watched.window is None:
        raise AccessError(f"{resource.key} has no judged window yet: see `retune status {name}`")
    if watched.report_uri is None:
        raise AccessError(f"window {watched.window} has no report: one is written where something was found")
    of = f"window {PurePosixPath(watched.report_uri).parent.name.removeprefix('w')}"
    return Report(of=of, owner=resource, resource=name, jobs=f"{name}-w", uri=watched.report_uri)


def link(report: Report) -> str:
    """Return an address by which a browser opens a report in a bucket for an hour; raises AccessError for others."""
    if report.claim:
        raise AccessError(f"{report.uri} is on a volume claim, to which no link leads: fetch it with --save FILE")
    return buckets.link(report.uri)


def fetch(cluster: Cluster, report: Report, *, image: str | None) -> bytes:
    """Return the report's bytes: from a bucket, or read by a pod that is removed afterwards.

    Args:
        cluster: Where the pod is started.
        report: Where the report lies.
        image: Image of the pod, with Python in it; that of the resource's Jobs where it is None.

    Raises:
        AccessError: The pod cannot be started, does not end in time, or the file is not there.
    """
    if report.claim is None:
        return buckets.read(report.uri)
    template = _template(cluster, report)
    chosen = image or template.get("containers", [{}])[0].get("image")
    if not chosen:
        raise AccessError("no Job of this resource is left to tell an image with Python: name one with --image")
    name = f"retune-report-{secrets.token_hex(4)}"
    path = PODS.path(cluster.namespace, name)
    cluster.call("POST", PODS.path(cluster.namespace), _pod(name, report, image=chosen, template=template))
    try:
        _wait(cluster, path)
        return _unpack(cluster.read(f"{path}/log"), report)
    finally:
        cluster.call("DELETE", path)


def _template(cluster: Cluster, report: Report) -> Json:
    """Return the pod template of a Job of this resource: the image and the nodes that its claim is used from."""
    jobs = cluster.jobs(report.resource)
    jobs.sort(key=lambda job: str(job["metadata"]["name"]).startswith(report.jobs), reverse=True)
    template: Json = jobs[0]["spec"]["template"]["spec"] if jobs else {}
    return template


def _pod(name: str, report: Report, *, image: str, template: Json) -> Json:
    kind, meta = type(report.owner).__name__, report.owner.metadata
    owner = {"apiVersion": API_VERSION, "kind": kind, "name": meta.name, "uid": meta.uid}
    metadata = {"name": name, "labels": {"app.kubernetes.io/name": "retune-report"}, "ownerReferences": [owner]}
    spec = {key: template[key] for key in _INHERITED if template.get(key)} | {
        "restartPolicy": "Never",
        "activeDeadlineSeconds": _LIFETIME_SECONDS,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": POD_SECURITY,
        "containers": [_container(report, image)],
        "volumes": [{"name": "store", "persistentVolumeClaim": {"claimName": report.claim, "readOnly": True}}],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _container(report: Report, image: str) -> Json:
    """Return the container that prints the report, packed."""
    folder, path = f"{CLAIM_ROOT}/{report.claim}", report.uri.removeprefix(f"pvc://{report.claim}/")
    return {
        "name": "report",
        "image": image,
        "command": ["python", "-c", _PACK, f"{folder}/{path}"],
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}},
        "securityContext": CONTAINER_SECURITY,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": "store", "mountPath": folder, "readOnly": True}],
    }


def _wait(cluster: Cluster, path: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        status = cluster.call("GET", path).get("status", {})
        if status.get("phase") == "Succeeded":
            return
        trouble = _trouble(status)
        if status.get("phase") == "Failed" or (trouble and trouble.split(":")[0] in CANNOT_START):
            raise AccessError(f"the report cannot be read: {trouble or status.get('message') or 'its pod failed'}")
        if time.monotonic() > deadline:
            raise AccessError(f"the pod that reads the report did not run within {WAIT_SECONDS:.0f} s: {trouble}")
        time.sleep(_POLL_SECONDS)


def _trouble(status: Json) -> str:
    """Return what the container or the scheduler says, in one line."""
    for container in status.get("containerStatuses", []):
        for state in container.get("state", {}).values():
            if state.get("reason"):
                return f"{state['reason']}: {_last_line(state.get('message'))}"
    messages = (condition.get("message") for condition in status.get("conditions", []))
    return next((_last_line(message) for message in messages if message), "")


def _last_line(text: str | None) -> str:
    lines = (text or "").strip().splitlines()
    return lines[-1] if lines else ""


def _unpack(log: bytes, report: Report) -> bytes:
    try:
        return gzip.decompress(base64.b64decode(log.strip(), validate=True))
    except (binascii.Error, OSError, EOFError, zlib.error) as error:
        raise AccessError(f"{report.uri} arrived damaged ({error}): try again") from error
