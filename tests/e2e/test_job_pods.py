"""A real kubelet runs the Jobs we build: what is promised to a command is there, and its end means what we read.

The commands are shell scripts in place of the optimizer's, because the pod around them is what is tested.
"""

import os
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from retune.cluster import parse
from retune.contract.requests import JobRequest
from retune.job_profiles import Profile
from retune.job_template import PodTemplate
from retune.plan.actions import CreateJob
from retune.workloads import job_manifest
from retune.workloads.jobs import EXPIRED_SECONDS
from tests import samples
from tools.localcluster.api import Api
from tools.localcluster.settings import PAUSE_IMAGE, load

Json = dict[str, Any]
_MERGE_PATCH = "application/merge-patch+json"
_PATIENCE_SECONDS = 120.0
_CLAIMS = ("artifacts", "data", "models", "narrow")
REQUESTS: dict[str, JobRequest] = {
    "baseline": samples.baseline_request(),
    "search": samples.search_request(),
    "judge": samples.judge_request(),
    "verify": samples.verify_request(),
}
PROMISES = """
set -eu
grep -q '"command":"{command}"' /etc/retune/request.json
test "$(id -u)" = 65532
test ! -e /var/run/secrets/kubernetes.io
for claim in {readable}; do
  test -d "/mnt/pvc/$claim"
  ! touch "/mnt/pvc/$claim/probe" 2>/dev/null
done
for folder in {writable}; do touch "/mnt/pvc/$folder/probe-{command}-$HOSTNAME"; done
! touch /mnt/pvc/artifacts/probe 2>/dev/null
touch /tmp/probe
! touch /probe 2>/dev/null
printf 'index %s' "${{JOB_COMPLETION_INDEX-none}}" > /dev/termination-log
"""


NOTHING_MORE = PodTemplate()


@dataclass(frozen=True)
class Settings:
    """A small image with a shell, which the local cluster has for its own needs."""

    optimizer_image: str = os.environ.get("RETUNE_SHELL_IMAGE", PAUSE_IMAGE)
    monitor_image: str = os.environ.get("RETUNE_SHELL_IMAGE", PAUSE_IMAGE)
    image_pull_policy: str = "IfNotPresent"
    private_addresses: str = "Refuse"
    artifact_store: str = "pvc://artifacts"
    artifact_store_credentials: str = ""
    store_quota: str = ""
    records_key: str | None = None
    pod_template: PodTemplate = NOTHING_MORE
    profiles: Mapping[str, Profile] = field(default_factory=dict)


@pytest.fixture(scope="module")
def api() -> Api:
    """The cluster with nodes."""
    return Api(Path(os.environ.get("KUBECONFIG") or load().kubeconfig))


@pytest.fixture(scope="module")
def namespace(api: Api) -> Iterator[str]:
    """A namespace that enforces Pod Security `restricted`, with every claim that the samples name."""
    name = f"job-pods-{uuid.uuid4().hex[:8]}"
    marks = {"pod-security.kubernetes.io/enforce": "restricted"}
    api.request("POST", "/api/v1/namespaces", {"metadata": {"name": name, "labels": marks}})
    for claim in _CLAIMS:
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Mi"}}}
        path = f"/api/v1/namespaces/{name}/persistentvolumeclaims"
        api.request("POST", path, {"metadata": {"name": claim}, "spec": spec})
    yield name
    api.request("DELETE", f"/api/v1/namespaces/{name}")


@dataclass(frozen=True)
class Ended:
    """A Job that has ended."""

    conditions: dict[str, Json]
    pods: list[Json]

    @property
    def messages(self) -> list[str]:
        """Termination messages of its pods."""
        return sorted(terminated(pod).get("message", "") for pod in self.pods)


def terminated(pod: Json) -> Json:
    """How the pod's container ended."""
    (container,) = pod["status"]["containerStatuses"]
    found: Json = container["state"]["terminated"]
    return found


def run(
    api: Api,
    namespace: str,
    command: str,
    script: str,
    *,
    workers: int = 1,
    asked: JobRequest | None = None,
    **execution: Any,
) -> Ended:
    """Run the Job of a command with a script in place of the optimizer, and return how it ended."""
    resource = samples.resource(execution=execution)
    resource = resource.model_copy(update={"metadata": resource.metadata.model_copy(update={"namespace": namespace})})
    name = f"{command}-{uuid.uuid4().hex[:8]}"
    action = CreateJob(name, asked or REQUESTS[command], cpu_limit=0.2, workers=workers)
    manifest = job_manifest(action, resource=resource, target=None, settings=Settings())
    del manifest["metadata"]["ownerReferences"]
    manifest["spec"]["template"]["spec"]["containers"][0]["command"] = ["sh", "-c", script]
    path = f"/apis/batch/v1/namespaces/{namespace}/jobs"
    api.request("POST", f"{path}?fieldValidation=Strict", manifest)
    return Ended(finished(api, f"{path}/{name}"), pods_of(api, namespace, name))


def finished(api: Api, path: str) -> dict[str, Json]:
    """Conditions of a Job once it is complete or failed."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        status = api.get(path)["status"]
        conditions = {each["type"]: each for each in status.get("conditions", ()) if each["status"] == "True"}
        if conditions.keys() & {"Complete", "Failed"}:
            return conditions
        assert time.monotonic() < deadline, f"{path} did not end: {status}"
        time.sleep(0.3)


def pods_of(api: Api, namespace: str, job: str) -> list[Json]:
    """Pods of a Job."""
    found: list[Json] = api.get(f"/api/v1/namespaces/{namespace}/pods?labelSelector=job-name%3D{job}")["items"]
    return found


@pytest.mark.parametrize("command", sorted(REQUESTS))
def test_what_is_promised_to_a_command_is_there(api: Api, namespace: str, command: str) -> None:
    """Request file, claims with their rights, scratch, no token, no other writable place, a way to answer.

    Of the store, the resource's own folder can be written, which nobody has made before.
    """
    writable = set() if command == "verify" else {"artifacts/digits"}
    readable = {"baseline": {"models", "data"}, "verify": {"artifacts"}}.get(command, {"data"})
    words = {"readable": " ".join(sorted(readable)), "writable": " ".join(writable), "command": command}
    ended = run(api, namespace, command, PROMISES.format(**words), workers=2 if command == "search" else 1)
    assert "Complete" in ended.conditions, ended
    assert ended.messages == (["index 0", "index 1"] if command == "search" else ["index none"])


def test_resources_on_one_claim_cannot_touch_each_other(api: Api, namespace: str) -> None:
    """A Job writes into its own folder, and what another resource keeps beside it can be neither changed nor removed.

    The claim also holds data that the Job reads, so that it sees all of it, read-only.
    """
    shared, path = "pvc://artifacts/shared", "/mnt/pvc/artifacts/shared"
    data = samples.baseline_request().data
    theirs = data.model_copy(update={"test": data.validation.model_copy(update={"uri": f"{shared}/data/test.npz"})})
    request = samples.baseline_request().model_copy(update={"data": theirs, "store": f"{shared}/victim"})
    kept = run(
        api, namespace, "baseline", f"mkdir {path}/victim/runs; echo mine > {path}/victim/runs/record", asked=request
    )
    assert "Complete" in kept.conditions, kept
    attack = f"""
    grep mine {path}/victim/runs/record
    ! echo forged 2>/dev/null > {path}/victim/runs/record
    ! rm -rf {path}/victim 2>/dev/null
    ! mv {path}/victim {path}/away 2>/dev/null
    ! touch {path}/planted 2>/dev/null
    touch {path}/attacker/record
    grep mine {path}/victim/runs/record && printf unharmed > /dev/termination-log
    """
    request = request.model_copy(update={"store": f"{shared}/attacker"})
    ended = run(api, namespace, "baseline", f"set -eu{attack}", asked=request)
    assert "Complete" in ended.conditions, ended
    assert ended.messages == ["unharmed"]


def test_the_first_job_can_write_where_only_its_user_may(api: Api, namespace: str) -> None:
    """On an empty volume that belongs to the Jobs' user and takes no fsGroup, the folder is not made by root."""
    claims = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims"
    volume = api.get(f"/api/v1/persistentvolumes/{bound_volume(api, f'{claims}/narrow')}")
    folder = Path(volume["spec"]["hostPath"]["path"])
    os.chown(folder, 65532, 65532)
    folder.chmod(0o755)
    request = samples.baseline_request().model_copy(update={"store": "pvc://narrow/team/digits"})
    script = "touch /mnt/pvc/narrow/team/digits/probe && printf written > /dev/termination-log"
    assert run(api, namespace, "baseline", script, asked=request).messages == ["written"]


def bound_volume(api: Api, claim: str) -> str:
    """Name of the volume of a claim, once it has one."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not (name := api.get(claim)["spec"].get("volumeName")):
        assert time.monotonic() < deadline, f"{claim} gets no volume"
        time.sleep(0.3)
    return str(name)


@pytest.mark.parametrize("code", [64, 65])
def test_bad_input_is_not_tried_again(api: Api, namespace: str, code: int) -> None:
    """One pod, one message, and a Job that failed by policy."""
    ended = run(api, namespace, "judge", f"printf said > /dev/termination-log; exit {code}", backoffLimit=5)
    assert ended.conditions["Failed"]["reason"] == "PodFailurePolicy"
    assert ended.messages == ["said"]


def test_an_unexpected_end_is_tried_as_often_as_allowed(api: Api, namespace: str) -> None:
    """With one retry there are two pods."""
    ended = run(api, namespace, "judge", "exit 1", backoffLimit=1)
    assert ended.conditions["Failed"]["reason"] == "BackoffLimitExceeded"
    assert len(ended.pods) == 2


def test_memory_that_is_short_stays_short(api: Api, namespace: str) -> None:
    """A container over its limit is killed once, and the Job fails without a second try."""
    small = {"requests": {"memory": "16Mi"}, "limits": {"memory": "16Mi"}}
    ended = run(api, namespace, "judge", "tail /dev/zero", backoffLimit=5, resources=small)
    assert ended.conditions["Failed"]["reason"] == "PodFailurePolicy"
    assert [terminated(pod)["reason"] for pod in ended.pods] == ["OOMKilled"]


def test_time_that_is_over_ends_the_job(api: Api, namespace: str) -> None:
    """A Job that is told to end while it runs fails with a reason of its own."""
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(run, api, namespace, "judge", "trap 'exit 0' TERM; while :; do sleep 1; done")
        expire(api, namespace, running_pod(api, namespace))
        ended = job.result()
    assert ended.conditions["Failed"]["reason"] == "DeadlineExceeded"


def expire(api: Api, namespace: str, pod: str) -> None:
    """Give the Job of a pod the deadline of a Job that was told to end."""
    labels = api.get(f"/api/v1/namespaces/{namespace}/pods/{pod}")["metadata"]["labels"]
    path = f"/apis/batch/v1/namespaces/{namespace}/jobs/{labels['batch.kubernetes.io/job-name']}"
    api.request("PATCH", path, {"spec": {"activeDeadlineSeconds": EXPIRED_SECONDS}}, kind=_MERGE_PATCH)


def test_a_pod_that_is_drained_from_its_node_is_replaced_without_a_retry(api: Api, namespace: str) -> None:
    """Fault 18: evicted in the middle of its work and ended by a signal, it is followed by a pod that completes."""
    folder = "/mnt/pvc/artifacts/digits"
    script = f"""
    trap 'touch {folder}/drained; exit 143' TERM
    test -e {folder}/drained && exit 0
    while :; do sleep 1; done
    """
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(run, api, namespace, "judge", script, backoffLimit=0)
        evict(api, namespace, running_pod(api, namespace))
        ended = job.result()
    assert "Complete" in ended.conditions, ended


def test_a_pod_that_no_node_takes_runs_once_one_does(api: Api, namespace: str) -> None:
    """Fault 16: the Job waits for as long as nodes lack what it asks for, says so, and does not fail."""
    mark = f"retune.dev/test-{uuid.uuid4().hex[:8]}"
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(run, api, namespace, "judge", "exit 0", nodeSelector={mark: "yes"})
        assert "node" in unschedulable(api, namespace)
        node = api.get("/api/v1/nodes")["items"][0]["metadata"]["name"]
        marked = f"/api/v1/nodes/{node}"
        api.request("PATCH", marked, {"metadata": {"labels": {mark: "yes"}}}, kind=_MERGE_PATCH)
        try:
            assert "Complete" in job.result().conditions
        finally:
            api.request("PATCH", marked, {"metadata": {"labels": {mark: None}}}, kind=_MERGE_PATCH)


def unschedulable(api: Api, namespace: str) -> str:
    """What the first pod that finds no node says of it."""
    path = f"/api/v1/namespaces/{namespace}/pods?fieldSelector=status.phase%3DPending"
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        facts = [parse.pod(pod) for pod in api.get(path)["items"]]
        if said := next((pod.unschedulable[0] for pod in facts if pod.unschedulable), None):
            return said
        assert time.monotonic() < deadline, "no pod waits for a node"
        time.sleep(0.3)


def running_pod(api: Api, namespace: str) -> str:
    """Name of the first pod that runs."""
    path = f"/api/v1/namespaces/{namespace}/pods?fieldSelector=status.phase%3DRunning"
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not (pods := api.get(path)["items"]):
        assert time.monotonic() < deadline, "no pod runs"
        time.sleep(0.3)
    return str(pods[0]["metadata"]["name"])


def evict(api: Api, namespace: str, pod: str) -> None:
    """Take a pod from its node as `kubectl drain` does."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}}
    api.request("POST", f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction", body)
