"""Raw objects to facts: what a Job and its pods say, and what of a Deployment counts."""

import copy
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from retune.cluster import job_standing, parse
from retune.contract.results import Failure, Reason, VerifyResult, encode_result
from retune.plan.observed import Job, JobPhase, Queue
from retune.targets import DEPLOYMENT, kind_of
from retune.workloads.jobs import EXPIRED_SECONDS
from tests import samples
from tests.answers import answer

Json = dict[str, Any]
NOON = "2026-11-25T12:00:00Z"
SOON = "2026-11-25T12:01:00Z"
LATER = "2026-11-25T12:05:00Z"
LATEST = "2026-11-25T12:06:00Z"
VERIFIED = VerifyResult(bundle_digest=samples.DIGEST, pods=2, requests=16)
BAD_MODEL = Failure(
    reason=Reason.MODEL_INVALID, object="pvc://m/x.onnx", message="is no ONNX file.", next_step="Export it."
)


def a_job(*conditions: Json, command: str = "verify", **more: Any) -> Json:
    """A Job as the API server returns it."""
    owner = {"kind": "ModelOptimization", "name": "digits", "uid": samples.RESOURCE_UID, "controller": True}
    labels = {"retune.dev/resource": "digits", "retune.dev/command": command}
    meta: Json = {"name": "digits-r1-verify1", "namespace": "ml", "uid": "job-1", "resourceVersion": "7"}
    meta |= {"labels": labels, "ownerReferences": [owner], "annotations": more.pop("annotations", {})}
    return {"metadata": meta, "spec": more.pop("spec", {}), "status": {"conditions": list(conditions), **more}}


def condition(kind: str, reason: str = "", message: str = "", status: str = "True") -> Json:
    """A condition of a Job or a pod."""
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": NOON}


def a_pod(name: str = "p", *, phase: str = "Running", state: Json | None = None, **status: Any) -> Json:
    """One of its pods."""
    owner = {"kind": "Job", "name": "digits-r1-verify1", "uid": "job-1", "controller": True}
    meta = {"name": name, "namespace": "ml", "uid": name, "resourceVersion": "8", "ownerReferences": [owner]}
    containers = [{"name": "optimizer", "state": state}] if state else []
    return {
        "metadata": meta | {"labels": {"retune.dev/resource": "digits"}, "creationTimestamp": NOON},
        "status": {"phase": phase, "startTime": NOON, "containerStatuses": containers, **status},
    }


def ended(code: int = 0, message: str | bytes = "", *, at: str = NOON, reason: str = "") -> Json:
    """The state of a container that has ended."""
    text = message.decode() if isinstance(message, bytes) else message
    return {"terminated": {"exitCode": code, "reason": reason, "message": text, "finishedAt": at}}


TIME_OVER = condition("Failed", "DeadlineExceeded", "Job was active longer than specified deadline")
EXPIRED = {"activeDeadlineSeconds": EXPIRED_SECONDS}


def observed(job: Json, *pods: Json) -> Job:
    """What the plan sees of them."""
    return job_standing.observed_job(parse.job(job), [parse.pod(pod) for pod in pods])


@pytest.mark.parametrize(
    "job,pods,phase",
    [
        (a_job(), [], JobPhase.WAITING),
        (a_job(active=1), [a_pod(phase="Pending")], JobPhase.WAITING),
        (a_job(active=1), [a_pod()], JobPhase.RUNNING),
        (a_job(), [a_pod(phase="Succeeded")], JobPhase.RUNNING),
        (a_job(spec={"suspend": True}), [], JobPhase.SUSPENDED),
        (a_job(condition("Complete")), [], JobPhase.SUCCEEDED),
        (a_job(condition("Failed")), [], JobPhase.FAILED),
        (a_job(condition("FailureTarget"), active=1), [a_pod()], JobPhase.RUNNING),
    ],
)
def test_phase_follows_the_jobs_conditions(job: Json, pods: list[Json], phase: JobPhase) -> None:
    """A Job that is only about to fail still runs."""
    assert observed(job, *pods).phase is phase


@pytest.mark.parametrize("command,since", [("search", NOON), ("verify", None)])
def test_running_begins_with_the_first_pod_that_ran(command: str, since: str | None) -> None:
    """Fault 16: what waits for a node does not run yet; golden requests have a deadline that counts both."""
    waiting = a_pod("waiting", phase="Pending")
    pods = [a_pod(name, state={"running": {"startedAt": at}}) for name, at in (("second", LATER), ("first", NOON))]
    assert observed(a_job(active=1, command=command, startTime=NOON), waiting).running_since is None
    running = observed(a_job(active=3, command=command, startTime=NOON), waiting, *pods)
    assert running.running_since == (datetime.fromisoformat(since) if since else None)


def test_what_a_job_ran_before_it_was_suspended_does_not_count() -> None:
    """A worker that had failed by then is still listed, and one that is being ended may run on for a moment."""
    began = {"startedAt": NOON}
    failed = {"terminated": ended(1)["terminated"] | began | {"finishedAt": SOON}}
    before = [a_pod("failed", phase="Failed", state=failed), a_pod("leaving", state={"running": began})]
    resumed = a_job(active=2, command="search", startTime=LATER)
    assert observed(resumed, before[0]).running_since is None
    assert observed(resumed, *before).running_since == datetime.fromisoformat(LATER)
    again = a_pod("again", state={"running": {"startedAt": LATEST}})
    assert observed(resumed, before[0], again).running_since == datetime.fromisoformat(LATEST)


def test_a_worker_that_is_tried_again_does_not_get_its_time_anew() -> None:
    """Without a suspension, the Job's time goes on through its retries."""
    failed = {"terminated": ended(1)["terminated"] | {"startedAt": SOON, "finishedAt": LATER}}
    pods = [a_pod("failed", phase="Failed", state=failed), a_pod("again", state={"running": {"startedAt": LATEST}})]
    retried = observed(a_job(active=1, command="search", startTime=NOON), *pods)
    assert retried.running_since == datetime.fromisoformat(SOON)


def test_a_job_whose_pods_have_ended_runs_no_more() -> None:
    """Before its controller has counted that, it must not be ended as one that took too long; a sidecar may run on."""
    done = {"terminated": ended(0)["terminated"] | {"startedAt": SOON, "finishedAt": LATER}}
    pods = [a_pod("done", phase="Succeeded", state=done), a_pod("other", state={"running": {"startedAt": SOON}})]
    job = a_job(active=1, command="search", startTime=NOON)
    assert observed(job, pods[0]).running_since is None
    for more in (pods[1], a_pod("beside", state=done)):
        assert observed(job, pods[0], more).running_since == datetime.fromisoformat(SOON)


def test_the_last_finished_pod_speaks_for_a_job_that_succeeded() -> None:
    """A worker that was retried is answered for by the one that made it."""
    early, late = encode_result(BAD_MODEL), encode_result(VERIFIED)
    pods = [
        a_pod("late", phase="Succeeded", state=ended(0, late, at=LATER)),
        a_pod("early", phase="Failed", state=ended(64, early, at=NOON)),
    ]
    assert observed(a_job(condition("Complete")), *pods).result == VERIFIED


def test_a_failed_pod_speaks_for_a_job_that_failed() -> None:
    """Of several workers, the one that failed says why."""
    pods = [
        a_pod("bad", phase="Failed", state=ended(64, encode_result(BAD_MODEL), at=NOON)),
        a_pod("good", phase="Succeeded", state=ended(0, encode_result(VERIFIED), at=LATER)),
    ]
    assert observed(a_job(condition("Failed", "PodFailurePolicy")), *pods).result == BAD_MODEL


def test_nothing_is_a_result_before_the_job_has_finished() -> None:
    """A worker that ended early does not end the run."""
    job = observed(a_job(active=1), a_pod(phase="Succeeded", state=ended(0, encode_result(VERIFIED))))
    assert job.result is None
    assert job.garbled is None


@pytest.mark.parametrize(
    "message,says",
    [
        ("", "left no result"),
        ("Traceback (most recent call last)", "cannot be read"),
        ('{"kind":"Other"}', "cannot be read"),
    ],
)
def test_what_is_no_result_is_said_to_be_none(message: str, says: str) -> None:
    """A forged or torn message never counts, and the sentence names the pod."""
    job = observed(a_job(condition("Complete")), a_pod("p7", phase="Succeeded", state=ended(0, message)))
    assert job.result is None
    assert job.garbled is not None
    assert "p7" in job.garbled
    assert says in job.garbled


@pytest.mark.parametrize(
    "fields",
    [
        {"reason": "R" * 65},
        {"report": "pvc://s/" + "r" * 1024},
        {"candidate": {"bundle": {"uri": "u" * 1025, "digest": samples.DIGEST}, "sizeBytes": 1, "techniques": []}},
        {"candidate": {"bundle": {"uri": "u", "digest": "d" * 81}, "sizeBytes": 1, "techniques": []}},
        {"candidate": {"bundle": {"uri": "u", "digest": samples.DIGEST}, "sizeBytes": -1, "techniques": []}},
        {"candidate": {"bundle": {"uri": "u", "digest": samples.DIGEST}, "sizeBytes": 1, "techniques": ["t"] * 17}},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_result_that_would_not_fit_a_status_is_no_result(fields: Json) -> None:
    """Whatever a Job's image claims, planning never stumbles over it: it ends as ResultInvalid."""
    honest = answer(samples.judge_request()).model_dump(mode="json", by_alias=True, exclude_none=True)
    job = observed(a_job(condition("Complete")), a_pod(state=ended(0, json.dumps(honest | fields))))
    assert job.result is None
    assert "cannot be read" in (job.garbled or "")
    assert observed(a_job(condition("Complete")), a_pod(state=ended(0, json.dumps(honest)))).result is not None


NO_FOLDER = 'failed to create subPath directory for volumeMount "claim-0" of container "optimizer"'


@pytest.mark.parametrize(
    "job,pod,reason,says",
    [
        (a_job(TIME_OVER), None, "DeadlineExceeded", "within spec.rollout.progressDeadline"),
        (a_job(TIME_OVER, command="search", spec=EXPIRED), None, "DeadlineExceeded", "longer than spec.execution"),
        (a_job(TIME_OVER, command="search"), None, "DeadlineExceeded", "waiting and running, it took longer"),
        (
            a_job(condition("Failed", "PodFailurePolicy")),
            a_pod(state=ended(137, reason="OOMKilled")),
            "OutOfMemory",
            "memory",
        ),
        (
            a_job(condition("Failed", "BackoffLimitExceeded")),
            a_pod(state=ended(1, reason="Error")),
            "ContainerFailed",
            "code 1",
        ),
        (
            a_job(active=1),
            a_pod(phase="Pending", state={"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling"}}),
            "ImagePullFailed",
            "Back-off",
        ),
        (
            a_job(active=1),
            a_pod(phase="Pending", state={"waiting": {"reason": "CreateContainerConfigError", "message": NO_FOLDER}}),
            "StoreNotWritable",
            "see that the claim has space left",
        ),
        (
            a_job(active=1),
            a_pod(
                phase="Pending", conditions=[condition("PodScheduled", "Unschedulable", "0/3 nodes", status="False")]
            ),
            "Unschedulable",
            "0/3 nodes",
        ),
        (
            a_job(condition("Failed", "BackoffLimitExceeded")),
            a_pod(
                state=ended(143),
                conditions=[condition("DisruptionTarget", "EvictionByEvictionAPI", "Eviction API: evicting")],
            ),
            "Evicted",
            "evicting",
        ),
    ],
)
def test_trouble_is_named_by_its_cause(job: Json, pod: Json | None, reason: str, says: str) -> None:
    """Each fault has its own reason, so that each gets its own answer."""
    trouble = observed(job, *([pod] if pod else [])).trouble
    assert trouble is not None
    assert trouble.reason == reason
    assert says in trouble.message
    assert trouble.since == datetime(2026, 11, 25, 12, tzinfo=UTC)


def test_only_a_job_that_we_suspended_is_held() -> None:
    """A queue's own suspension is not ours to lift."""
    ours = a_job(spec={"suspend": True}, annotations={"retune.dev/held": "true"})
    assert observed(ours).held
    assert not observed(a_job(spec={"suspend": True})).held
    assert not observed(a_job(annotations={"retune.dev/held": "true"})).held


def queued(*conditions: Json, suspend: bool = True, parallelism: int = 4) -> Json:
    """A search of four workers with a queue."""
    raw = a_job(*conditions, command="search", spec={"suspend": suspend, "parallelism": parallelism})
    raw["metadata"] |= {"creationTimestamp": NOON, "annotations": {"retune.dev/workers": "4"}}
    raw["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "team"
    return raw


@pytest.mark.parametrize(
    "conditions,since",
    [
        ([], NOON),
        ([condition("Suspended") | {"lastTransitionTime": LATER}], LATER),
        ([condition("Suspended", status="False")], None),
    ],
    ids=["just made", "suspended", "taken back a moment ago"],
)
def test_a_job_waits_for_its_queue_since_it_was_suspended(conditions: list[Json], since: str | None) -> None:
    """That is since it was made, or since its queue took it back, once its controller has seen that."""
    queue = observed(queued(*conditions)).queue
    assert queue == Queue("team", datetime.fromisoformat(since) if since else None)


def test_a_job_has_the_workers_that_its_queue_has_admitted() -> None:
    """Kueue rewrites the Job's own numbers; what was asked for is noted beside them."""
    job = observed(queued(suspend=False, parallelism=1))
    assert (job.workers, job.asked, job.queue) == (1, 4, Queue("team"))
    plain = observed(a_job())
    assert (plain.workers, plain.asked, plain.queue) == (1, None, None)


def deployment(**status: Any) -> Json:
    """A Deployment with much that nobody asks for."""
    env = [{"name": "MODEL_URI", "value": "pvc://a/b"}]
    key = 'k:{"name":"server"}'
    fields: Json = {key: {".": {}, "f:image": {}, "f:env": {'k:{"name":"MODEL_URI"}': {".": {}, "f:value": {}}}}}
    managed = [
        {
            "manager": "kubectl",
            "operation": "Apply",
            "fieldsV1": {"f:spec": {"f:template": {"f:spec": {"f:containers": fields}}}},
        },
        {
            "manager": "kcm",
            "operation": "Update",
            "subresource": "status",
            "fieldsV1": {"f:status": {"f:replicas": {}}},
        },
    ]
    return {
        "metadata": {
            "name": "digits-server",
            "namespace": "ml",
            "uid": "d-1",
            "resourceVersion": "5",
            "generation": 3,
            "annotations": {"note": "x" * 1000},
            "managedFields": managed,
        },
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "digits"}},
            "template": {
                "spec": {
                    "containers": [
                        {"name": "server", "image": "i", "env": env, "resources": {"limits": {"cpu": "500m"}}}
                    ],
                    "nodeSelector": {"zone": "a"},
                }
            },
        },
        "status": {"observedGeneration": 3, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2, **status},
    }


def test_trimming_a_deployment_changes_nothing_that_the_target_is_judged_by() -> None:
    """What memory keeps parses to the same target as the whole object, in far less space."""
    raw = deployment()
    kept = parse.trimmed_target(DEPLOYMENT, raw)
    kind = kind_of(samples.resource().spec.target.ref)
    assert kind.parse(json.loads(kept), variable="MODEL_URI") == kind.parse(raw, variable="MODEL_URI")
    assert kind.pod_selector(json.loads(kept)) == kind.pod_selector(raw)
    assert len(kept) < 800


def test_a_change_that_does_not_matter_looks_like_none() -> None:
    """Annotations, versions and heartbeats of a foreign object wake nobody."""
    before, after = deployment(), copy.deepcopy(deployment())
    after["metadata"] |= {"resourceVersion": "6", "annotations": {"note": "y"}}
    after["status"]["conditions"] = []
    assert parse.trimmed_target(DEPLOYMENT, before) == parse.trimmed_target(DEPLOYMENT, after)
    assert parse.trimmed_target(DEPLOYMENT, before) != parse.trimmed_target(DEPLOYMENT, deployment(availableReplicas=1))


@pytest.mark.parametrize(
    "words", ["exceeded quota: few, requested: pods=1", "status unknown for quota: few, resources: pods"]
)
def test_the_newest_failure_to_create_a_pod_says_why_there_is_none(words: str) -> None:
    """A quota on pods is a reason to wait, anything else needs whoever made the policy."""
    quota = f'Error creating: pods "a" is forbidden: {words}'
    old = {"reason": "FailedCreate", "message": "violates PodSecurity", "lastTimestamp": NOON, "firstTimestamp": NOON}
    new = {"reason": "FailedCreate", "message": quota, "lastTimestamp": LATER, "firstTimestamp": NOON}
    trouble = job_standing.obstacle_in([new, old])
    assert trouble is not None
    assert (trouble.reason, trouble.message) == ("QuotaExceeded", quota)
    assert job_standing.obstacle_in([]) is None
    only_old = job_standing.obstacle_in([old])
    assert only_old is not None
    assert only_old.reason == "AdmissionDenied"


def test_a_job_without_pods_shows_what_keeps_it_from_having_any() -> None:
    """The obstacle that was read beside it becomes its trouble."""
    obstacle = job_standing.obstacle_in(
        [{"reason": "FailedCreate", "message": "exceeded quota", "lastTimestamp": NOON, "firstTimestamp": NOON}]
    )
    job = job_standing.observed_job(parse.job(a_job()), [], obstacle=obstacle)
    assert job.trouble == obstacle
    assert job.phase is JobPhase.WAITING


def beside(raw: Json, state: Json, name: str = "istio-proxy") -> Json:
    """The pod with a container that a mesh put beside ours; the kubelet sorts their states by name."""
    mesh = {"name": name, "state": state}
    raw["status"]["containerStatuses"] = sorted([mesh, *raw["status"]["containerStatuses"]], key=lambda it: it["name"])
    return raw


@pytest.mark.parametrize("name", ["istio-proxy", "linkerd-proxy", "vault-agent", "zz-logger"])
def test_the_result_is_that_of_our_own_container(name: str) -> None:
    """A mesh's proxy beside it says nothing of the work, wherever its name sorts."""
    done = a_pod(phase="Succeeded", state=ended(0, encode_result(VERIFIED)))
    assert observed(a_job(condition("Complete")), beside(done, ended(0), name)).result == VERIFIED


def test_a_proxy_that_runs_on_after_the_work_is_named() -> None:
    """The Job would never end, and nobody would know why."""
    done = beside(a_pod(state=ended(0, encode_result(VERIFIED))), {"running": {"startedAt": NOON}})
    trouble = observed(a_job(active=1), done).trouble
    assert trouble is not None
    assert trouble.reason == "SidecarRunsOn"
    assert "istio-proxy" in trouble.message


@pytest.mark.parametrize(
    "message,cure",
    [
        ('Multi-Attach error for volume "pvc-1": Volume is already used by pod(s) digits-5', "ReadWriteMany"),
        ("Unable to attach or mount volumes: timed out waiting for the condition", "timed out"),
    ],
)
def test_a_volume_that_cannot_be_mounted_is_told_with_what_to_do(message: str, cure: str) -> None:
    """A pod whose node cannot attach its volume waits without a word in its own status."""
    pulled = {"reason": "Pulled", "message": "image", "lastTimestamp": LATER, "firstTimestamp": LATER}
    mount = {"reason": "FailedAttachVolume", "message": message, "lastTimestamp": NOON, "firstTimestamp": NOON}
    trouble = job_standing.obstacle_in([pulled, mount | {"involvedObject": {"name": "p7"}}])
    assert trouble is not None
    assert trouble.reason == "VolumeNotMounted"
    assert "p7" in trouble.message
    assert cure in trouble.message


SCHEDULER = 'persistentvolumeclaim "models" not found. preemption: 0/3 nodes are available: 3 not eligible.'
KUBELET = 'MountVolume.SetUp failed for volume "claim-0" : failed to fetch PVC: persistentvolumeclaims "m" not found'
CONTROLLER = 'Error creating: pods "digits-" is forbidden: '


@pytest.mark.parametrize(
    "message,missing",
    [
        (KUBELET, "PersistentVolumeClaim m does not exist in this namespace"),
        ('MountVolume.SetUp failed for volume "ca" : configmap "company-ca" not found', "ConfigMap company-ca"),
        (f'{CONTROLLER}error looking up service account ml/r: serviceaccount "r" not found', "ServiceAccount r "),
        (f"{CONTROLLER}no PriorityClass with name batch was found", "PriorityClass batch does not exist: create"),
        (f'{CONTROLLER}pod rejected: RuntimeClass "gvisor" not found', "RuntimeClass gvisor does not exist: create"),
    ],
)
def test_what_an_event_says_is_missing_is_named_with_what_to_do(message: str, missing: str) -> None:
    """Whatever kind of object a pod needs: a person has to create it, and reads its kind and name."""
    reason = "FailedCreate" if message.startswith(CONTROLLER) else "FailedMount"
    event = {"reason": reason, "message": message, "lastTimestamp": NOON, "firstTimestamp": NOON}
    trouble = job_standing.obstacle_in([event | {"involvedObject": {"name": "p7"}}])
    assert trouble is not None
    assert trouble.reason == "ObjectMissing"
    assert missing in trouble.message
    assert "create it" in trouble.message


@pytest.mark.parametrize(
    "status,missing",
    [
        (
            {"conditions": [condition("PodScheduled", status="False", reason="Unschedulable", message=SCHEDULER)]},
            "PersistentVolumeClaim models",
        ),
        (
            {"state": {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "keys" not found'}}},
            "Secret keys",
        ),
    ],
)
def test_what_a_pod_says_is_missing_is_named_with_what_to_do(status: Json, missing: str) -> None:
    """The scheduler knows of claims, the kubelet of Secrets; neither is said to pass by itself."""
    trouble = observed(a_job(active=1), a_pod(phase="Pending", **status)).trouble
    assert trouble is not None
    assert trouble.reason == "ObjectMissing"
    assert f"{missing} does not exist in this namespace: create it" in trouble.message


@pytest.mark.parametrize(
    "status,prepared",
    [
        ({"conditions": [condition("PodScheduled")]}, True),
        ({"conditions": [condition("PodScheduled", status="False")]}, False),
        ({"conditions": [condition("PodScheduled")], "phase": "Running"}, False),
    ],
)
def test_only_a_pod_with_a_node_that_does_not_run_it_yet_is_being_prepared(status: Json, *, prepared: bool) -> None:
    """Its events are read then, and never while it runs."""
    raw = a_pod(phase=status.pop("phase", "Pending"), state={"waiting": {"reason": "ContainerCreating"}}, **status)
    assert parse.pod(raw).being_prepared is prepared
