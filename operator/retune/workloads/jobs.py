"""The Job that answers a request: its pod fits Pod Security `restricted` and has no API token.

A user chooses resources, nodes and queue, never anything else of the pod: the operator creates it with its own rights.
"""

import json
import math
from collections.abc import Mapping
from typing import Protocol

from retune.api.base import Json, seconds
from retune.api.execution import Execution
from retune.api.objects import ModelOptimization
from retune.api.quantities import memory_bytes
from retune.contract.exits import Exit
from retune.contract.paths import (
    AUTHORITIES_VARIABLE,
    JOB_CONTAINER,
    METRICS_PORT,
    PRIVATE_ADDRESSES_VARIABLE,
    PROXIES_VARIABLE,
    QUOTA_VARIABLE,
    REQUEST_ANNOTATION,
    REQUEST_FILE,
    RESULT_FILE,
    SCRATCH_DIR,
    SCRATCH_VARIABLE,
)
from retune.contract.requests import (
    REQUEST_LIMIT,
    CheckRequest,
    JobRequest,
    VerifyRequest,
    encode_request,
)
from retune.job_profiles import Profile
from retune.job_template import PodTemplate
from retune.plan.actions import CreateJob
from retune.plan.observed import Target
from retune.workloads import beside, served
from retune.workloads.labels import KUEUE_ALL_RUN, KUEUE_FEWEST, KUEUE_QUEUE, REMOTE, WORKERS, labels, metadata
from retune.workloads.placement import affinity, classes, devices, nodes, store_label
from retune.workloads.resources import container_resources, node_storage
from retune.workloads.seals import seals
from retune.workloads.secret_variables import secret_variables
from retune.workloads.security import CONTAINER_SECURITY, pod_security
from retune.workloads.volumes import (
    claims_of,
    preparing_container,
    remote_schemes,
    store_claim_of,
    volume_mounts,
    volumes,
)

_NO_SIDECARS = {
    "sidecar.istio.io/inject": "false",
    "linkerd.io/inject": "disabled",
    "kuma.io/sidecar-injection": "disabled",
    "consul.hashicorp.com/connect-inject": "false",
    "openservicemesh.io/sidecar-injection": "disabled",
}
"""Annotations by which pods ask meshes for no proxy beside them: where one runs on, the Job never ends."""
_MESH_LABELS = {name: _NO_SIDECARS[name] for name in ("sidecar.istio.io/inject", "kuma.io/sidecar-injection")}
"""The same as labels, which newer releases of these meshes read."""
_KILLED = 137
"""Exit code of a process that was killed, as it is when its container has too little memory."""
EXPIRED_SECONDS = 1
"""Deadline of a Job that was told to end; no other Job has one so short."""
_WAITING_SECONDS = 24 * 3600.0
"""How long the pods of a Job may wait before they run, all of them together."""
_LEAST_ASKING_SECONDS = 300.0
"""Time that golden requests have at least."""
_LEAST_KEPT_SECONDS = 600
"""How long a finished check is kept at least."""
_REQUEST_DIR, _REQUEST_NAME = REQUEST_FILE.rsplit("/", 1)
_ENVIRONMENT = {
    "HOME": SCRATCH_DIR,
    "TMPDIR": SCRATCH_DIR,
    "MPLCONFIGDIR": f"{SCRATCH_DIR}/matplotlib",
    "DO_NOT_TRACK": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "PYTHONUNBUFFERED": "1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class JobSettings(Protocol):
    """The operator's settings that Jobs depend on."""

    @property
    def optimizer_image(self) -> str:
        """Image of Jobs whose spec names none."""

    @property
    def monitor_image(self) -> str:
        """Image of the Jobs that check windows."""

    @property
    def image_pull_policy(self) -> str:
        """Always, IfNotPresent or Never."""

    @property
    def private_addresses(self) -> str:
        """Allow where https:// URIs may lead to private addresses, else Refuse."""

    @property
    def artifact_store(self) -> str:
        """Store of resources whose spec names none; empty where every spec names one."""

    @property
    def artifact_store_credentials(self) -> str:
        """Secret of that store in the namespace of a resource, for a store in a bucket; may be empty."""

    @property
    def store_quota(self) -> str:
        """What a resource's folder of the store may hold, such as 20Gi; empty: whatever there is room for."""

    @property
    def records_key(self) -> str | None:
        """The administrator's own part of the keys that records in stores are sealed by; None where there is none."""

    @property
    def pod_template(self) -> PodTemplate:
        """What the administrator gives every Job's pod."""

    @property
    def profiles(self) -> Mapping[str, Profile]:
        """Nodes and devices that a resource may name, by name."""


def job_manifest(
    action: CreateJob, *, resource: ModelOptimization, target: Target | None, settings: JobSettings
) -> Json:
    """Return the Job that answers a request.

    Args:
        action: Name, request, workers and CPU limit of the Job.
        resource: The ModelOptimization that owns the Job.
        target: The workload that serves. Its nodes and tolerations are the Job's where the spec names none, so that
            measurements are made where the model serves.
        settings: Images and policies of the operator.
    """
    command, template = action.request.command, settings.pod_template
    execution = resource.spec.execution
    own_labels = labels(resource, command=command) | _MESH_LABELS | store_label(store_claim_of(action.request))
    own_labels |= {REMOTE: "true"} if remote_schemes(action.request) else {}
    head = metadata(resource, action.name, command=command)
    spec = _completions(action) | {
        "backoffLimit": execution.backoff_limit,
        "podFailurePolicy": {"rules": _failure_rules()},
        "activeDeadlineSeconds": _deadline(action, resource),
        "ttlSecondsAfterFinished": _kept_seconds(action, execution),
        "template": {
            "metadata": {
                "labels": template.labels | own_labels,
                "annotations": template.annotations
                | _NO_SIDECARS
                | {REQUEST_ANNOTATION: encode_request(action.request)},
            },
            "spec": _pod(action, resource, target=target, settings=settings),
        },
    }
    if execution.queue_name:
        head["labels"] |= {KUEUE_QUEUE: execution.queue_name}
        spec["suspend"] = True
        if action.workers > 1:
            head["annotations"] = _any_number(action.workers)
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": head, "spec": spec}


def too_long(request: JobRequest) -> str | None:
    """Return why a request has no room in the annotation that carries it, and what to shorten; None where it has."""
    size = len(encode_request(request).encode())
    if size <= REQUEST_LIMIT:
        return None
    document = request.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    parts = {name: len(json.dumps(part, ensure_ascii=False).encode()) for name, part in document.items()}
    longest = max(parts, key=lambda name: parts[name])
    return (
        f"what the Job is to do takes {size} bytes, and there is room for {REQUEST_LIMIT}: shorten spec.{longest}, "
        f"which takes {parts[longest]} of them"
    )


def _kept_seconds(action: CreateJob, execution: Execution) -> int:
    """Return how long the finished Job is kept; checks go soon, because every window has one."""
    kept, request = math.ceil(seconds(execution.ttl_after_finished)), action.request
    if not isinstance(request, CheckRequest):
        return kept
    return min(kept, max(_LEAST_KEPT_SECONDS, 2 * (request.window.end - request.window.start)))


def _deadline(action: CreateJob, resource: ModelOptimization) -> int:
    """Return the seconds that a Job may wait and run; how long it runs is bounded by the plan.

    Golden requests have less time for both, because an unproven version serves.
    """
    if isinstance(action.request, VerifyRequest):
        return math.ceil(max(_LEAST_ASKING_SECONDS, seconds(resource.spec.rollout.progress_deadline)))
    return math.ceil(_WAITING_SECONDS + seconds(resource.spec.execution.run_timeout))


def _completions(action: CreateJob) -> Json:
    """Return one completion a worker. A search is always Indexed, so that every worker knows its number."""
    indexed = action.request.command == "search" or action.workers > 1
    return {
        "completionMode": "Indexed" if indexed else "NonIndexed",
        "completions": action.workers,
        "parallelism": action.workers,
    }


def _any_number(workers: int) -> Json:
    """Return by which annotations a queue admits as many workers as there is room for, of those that are asked for."""
    return {WORKERS: str(workers), KUEUE_FEWEST: "1", KUEUE_ALL_RUN: "true"}


def _failure_rules() -> list[Json]:
    """Return when a failed pod is not replaced: wrong input and too little memory stay so. Evictions do not count."""
    return [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": _exits(Exit.BAD_INPUT, Exit.INFEASIBLE)},
        {"action": "FailJob", "onExitCodes": _exits(_KILLED)},
    ]


def _exits(*codes: int) -> Json:
    return {"containerName": JOB_CONTAINER, "operator": "In", "values": [int(code) for code in codes]}


def _pod(action: CreateJob, resource: ModelOptimization, *, target: Target | None, settings: JobSettings) -> Json:
    execution, profile = resource.spec.execution, _profile(action, resource, settings)
    before = _init_containers(action, execution, settings, profile)
    near = affinity(settings.pod_template, claim=store_claim_of(action.request), target=target)
    return (
        {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": pod_security(settings.pod_template),
            "containers": [_container(action, resource, settings, profile)],
            "volumes": [
                _request_volume(),
                {"name": "scratch", "emptyDir": {"sizeLimit": _scratch_size(execution, settings)}},
                *volumes(claims_of(action.request)),
                *(volume for own in beside.beside(action.request) for volume in beside.volumes(own)),
                *served.volumes(action.request),
            ],
        }
        | ({"initContainers": before} if before else {})
        | nodes(execution, profile, target)
        | ({"affinity": near} if near else {})
        | settings.pod_template.pod_fields
        | classes(profile)
    )


def _profile(action: CreateJob, resource: ModelOptimization, settings: JobSettings) -> Profile | None:
    """Return the profile of nodes that the Job runs by; None where the resource names none for such Jobs."""
    profile = settings.profiles.get(resource.spec.execution.profile or "")
    return profile if profile is not None and action.request.command in profile.commands else None


def _init_containers(
    action: CreateJob, execution: Execution, settings: JobSettings, profile: Profile | None
) -> list[Json]:
    """Return what runs before the Job's own container: what makes the folders to write to, and what works beside it."""
    image = settings.monitor_image if isinstance(action.request, CheckRequest) else settings.optimizer_image
    policy = settings.image_pull_policy
    amounts = _amounts(action, execution, settings)
    preparing = preparing_container(claims_of(action.request), image=image, image_pull_policy=policy, resources=amounts)
    owned = [beside.container(own, policy) for own in beside.beside(action.request)]
    for container in owned:
        if profile is not None and container["name"] == beside.TRAINING:
            container["resources"]["limits"] |= devices(profile)
    as_own = amounts | {"limits": amounts["limits"] | (devices(profile) if profile else {})}
    serving = served.containers(action.request, own_image=image, image_pull_policy=policy, resources=as_own)
    return [*([preparing] if preparing else []), *owned, *serving]


def _container(action: CreateJob, resource: ModelOptimization, settings: JobSettings, profile: Profile | None) -> Json:
    execution = resource.spec.execution
    container: Json = {
        "name": JOB_CONTAINER,
        "image": _image(action, execution, settings),
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["python", "-m", *_program(action, resource), "--request", REQUEST_FILE],
        "env": _environment(action, resource, settings),
        "resources": _amounts(action, execution, settings),
        "securityContext": CONTAINER_SECURITY,
        "terminationMessagePath": RESULT_FILE,
        "terminationMessagePolicy": "File",
        "volumeMounts": [
            {"name": "request", "mountPath": _REQUEST_DIR, "readOnly": True},
            {"name": "scratch", "mountPath": SCRATCH_DIR},
            *volume_mounts(claims_of(action.request)),
        ],
    }
    container["env"] += secret_variables(
        execution,
        action.request,
        default_store=settings.artifact_store or None,
        default_secret=settings.artifact_store_credentials,
    )
    for own in beside.beside(action.request):
        container["env"].append(own.environment)
        container["volumeMounts"].append(own.mount)
    if finding := served.environment(action.request):
        container["env"] += finding
        container["volumeMounts"].append(served.mount())
    if profile is not None and all(own.name != beside.TRAINING for own in beside.beside(action.request)):
        container["resources"]["limits"] |= devices(profile)
    if action.request.command == "search":
        container["ports"] = [{"name": "metrics", "containerPort": METRICS_PORT}]
    return container


def _program(action: CreateJob, resource: ModelOptimization) -> list[str]:
    """Return what does the work: all of it here, or where a check may be done by a host, what asks that.

    What owners' containers measure beside the Job no host can.
    """
    monitoring = resource.spec.monitoring
    host = monitoring.check_host if monitoring and isinstance(action.request, CheckRequest) else None
    if host is None or beside.beside(action.request):
        return ["optimizer_jobs"]
    return ["optimizer_jobs.warm.ask", "--host", f"{host}.{resource.metadata.namespace}.svc"]


def _amounts(action: CreateJob, execution: Execution, settings: JobSettings) -> Json:
    """Return requests and limits of the Job's own container, without devices."""
    storage = node_storage(settings.pod_template.ephemeral_storage, scratch=_scratch_size(execution, settings))
    return container_resources(action, execution.resources, storage=storage)


def _image(action: CreateJob, execution: Execution, settings: JobSettings) -> str:
    """Return the image: windows are checked with Evidently, which has an image of its own."""
    if isinstance(action.request, CheckRequest):
        return settings.monitor_image
    return execution.image or settings.optimizer_image


def _environment(action: CreateJob, resource: ModelOptimization, settings: JobSettings) -> list[Json]:
    """Return the environment variables that the operator decides.

    Numerical libraries get the threads of the serving container, never the node's cores.
    """
    threads, template = getattr(action.request, "threads", 1), settings.pod_template
    values = _ENVIRONMENT | dict.fromkeys(_THREADS, str(threads))
    values[PRIVATE_ADDRESSES_VARIABLE] = settings.private_addresses
    values[PROXIES_VARIABLE] = "Trust" if template.names_proxies else "Ignore"
    values[SCRATCH_VARIABLE] = str(int(memory_bytes(_scratch_size(resource.spec.execution, settings))))
    if settings.store_quota:
        values[QUOTA_VARIABLE] = settings.store_quota
    values |= seals(action.request, uid=resource.metadata.uid, key=settings.records_key)
    administrators = [variable.to_dict() for variable in template.env]
    if template.ca_certificates:
        key = {"name": template.ca_certificates.name, "key": template.ca_certificates.key}
        administrators.append({"name": AUTHORITIES_VARIABLE, "valueFrom": {"configMapKeyRef": key}})
    return [*({"name": name, "value": value} for name, value in values.items()), *administrators]


def _scratch_size(execution: Execution, settings: JobSettings) -> str:
    return execution.scratch_size or settings.pod_template.scratch_size


def _request_volume() -> Json:
    field = {"fieldPath": f"metadata.annotations['{REQUEST_ANNOTATION}']"}
    return {"name": "request", "downwardAPI": {"items": [{"path": _REQUEST_NAME, "fieldRef": field}]}}
