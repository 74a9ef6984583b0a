"""The Job that answers a request: a closed pod template that fits Pod Security `restricted`, and no API token.

A user chooses amounts, nodes and queue, never the shape of the pod: creating Jobs on someone's behalf is delegation.
"""

import math
from typing import Protocol

from retune.api.base import Json, seconds
from retune.api.execution import Credentials, Execution
from retune.api.objects import ModelOptimization
from retune.contract.exits import Exit
from retune.contract.paths import (
    METRICS_PORT,
    PRIVATE_ADDRESSES_VARIABLE,
    REQUEST_ANNOTATION,
    REQUEST_FILE,
    RESULT_FILE,
    SCRATCH_DIR,
)
from retune.contract.requests import CheckRequest, VerifyRequest
from retune.contract.training import EXCHANGE_DIR, EXCHANGE_VARIABLE
from retune.plan.actions import CreateJob
from retune.plan.observed import Target
from retune.workloads.claims import claims, mounts, reads_from_servers, volumes
from retune.workloads.labels import KUEUE_QUEUE, labels, metadata
from retune.workloads.resources import container_resources
from retune.workloads.training import CLOSED, EXCHANGE_MOUNT, training_container, training_of, training_volumes

CONTAINER = "optimizer"
"""Name of the one container in every Job's pod."""
_USER = 65532
_SCRATCH_LIMIT = "4Gi"
_KILLED = 137
_LEAST_ASKING_SECONDS = 300.0
_LEAST_KEPT_SECONDS = 600
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
        """Allow, where https:// URIs may lead to private addresses, or Refuse."""


def job_manifest(
    action: CreateJob, *, resource: ModelOptimization, target: Target | None, settings: JobSettings
) -> Json:
    """Return the Job of `action`.

    Nodes and tolerations come from the spec, else from the target, so that measurements are made where it serves.
    """
    command = action.request.command
    execution = resource.spec.execution
    head = metadata(resource, action.name, command=command)
    spec = _completions(action) | {
        "backoffLimit": execution.backoff_limit,
        "podFailurePolicy": {"rules": _failure_rules()},
        "activeDeadlineSeconds": _deadline(action, resource),
        "ttlSecondsAfterFinished": _kept_seconds(action, execution),
        "template": {
            "metadata": {
                "labels": labels(resource, command=command),
                "annotations": {REQUEST_ANNOTATION: action.request.model_dump_json(by_alias=True, exclude_none=True)},
            },
            "spec": _pod(action, execution, target=target, settings=settings),
        },
    }
    if execution.queue_name:
        head["labels"] |= {KUEUE_QUEUE: execution.queue_name}
        spec["suspend"] = True
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": head, "spec": spec}


def _kept_seconds(action: CreateJob, execution: Execution) -> int:
    """Return how long the finished Job is kept; checks go soon, because there is one a window for ever."""
    kept, request = math.ceil(seconds(execution.ttl_after_finished)), action.request
    if not isinstance(request, CheckRequest):
        return kept
    return min(kept, max(_LEAST_KEPT_SECONDS, 2 * (request.window.end - request.window.start)))


def _deadline(action: CreateJob, resource: ModelOptimization) -> int:
    """Return the seconds a Job may take; while golden requests are asked, an unproven version serves."""
    if isinstance(action.request, VerifyRequest):
        return math.ceil(max(_LEAST_ASKING_SECONDS, seconds(resource.spec.rollout.progress_deadline)))
    return math.ceil(seconds(resource.spec.execution.run_timeout))


def _completions(action: CreateJob) -> Json:
    """One completion a worker; a search is always Indexed, so that every worker knows its number."""
    indexed = action.request.command == "search" or action.workers > 1
    return {
        "completionMode": "Indexed" if indexed else "NonIndexed",
        "completions": action.workers,
        "parallelism": action.workers,
    }


def _failure_rules() -> list[Json]:
    """An eviction is nobody's fault; input that is wrong, or memory that is short, stays so."""
    return [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": _exits(Exit.BAD_INPUT, Exit.INFEASIBLE)},
        {"action": "FailJob", "onExitCodes": _exits(_KILLED)},
    ]


def _exits(*codes: int) -> Json:
    return {"containerName": CONTAINER, "operator": "In", "values": [int(code) for code in codes]}


def _pod(action: CreateJob, execution: Execution, *, target: Target | None, settings: JobSettings) -> Json:
    selector = execution.node_selector or (dict(target.node_selector) if target else {})
    tolerations = [each.to_dict() for each in execution.tolerations]
    if not tolerations and target:
        tolerations = [dict(each) for each in target.tolerations]
    training = training_of(action.request)
    return (
        {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": _pod_security(),
            "containers": [_container(action, execution, settings)],
            "volumes": [
                _request_volume(),
                _scratch_volume(),
                *volumes(claims(action.request)),
                *(training_volumes() if training else []),
            ],
        }
        | ({"initContainers": [training_container(training, settings.image_pull_policy)]} if training else {})
        | ({"nodeSelector": selector} if selector else {})
        | ({"tolerations": tolerations} if tolerations else {})
    )


def _pod_security() -> Json:
    return {
        "runAsNonRoot": True,
        "runAsUser": _USER,
        "runAsGroup": _USER,
        "fsGroup": _USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _container(action: CreateJob, execution: Execution, settings: JobSettings) -> Json:
    container: Json = {
        "name": CONTAINER,
        "image": _image(action, execution, settings),
        "imagePullPolicy": settings.image_pull_policy,
        "command": ["python", "-m", "optimizer_jobs", "--request", REQUEST_FILE],
        "env": _environment(action, settings),
        "resources": container_resources(action, execution.resources),
        "securityContext": CLOSED,
        "terminationMessagePath": RESULT_FILE,
        "terminationMessagePolicy": "File",
        "volumeMounts": [
            {"name": "request", "mountPath": _REQUEST_DIR, "readOnly": True},
            {"name": "scratch", "mountPath": SCRATCH_DIR},
            *mounts(claims(action.request)),
        ],
    }
    if execution.credentials and reads_from_servers(action.request):
        container["envFrom"] = [_credentials(execution.credentials)]
    if training_of(action.request):
        container["env"].append({"name": EXCHANGE_VARIABLE, "value": EXCHANGE_DIR})
        container["volumeMounts"].append(EXCHANGE_MOUNT)
    if action.request.command == "search":
        container["ports"] = [{"name": "metrics", "containerPort": METRICS_PORT}]
    return container


def _image(action: CreateJob, execution: Execution, settings: JobSettings) -> str:
    """Return the image: Evidently lives in one of its own, and only that checks windows."""
    if isinstance(action.request, CheckRequest):
        return settings.monitor_image
    return execution.image or settings.optimizer_image


def _credentials(credentials: Credentials) -> Json:
    """Return the Secret as variables; where it is absent, the Job starts and says what it misses."""
    return {"secretRef": {"name": credentials.secret_name, "optional": True}}


def _environment(action: CreateJob, settings: JobSettings) -> list[Json]:
    """Return the variables, which win over those of a Secret.

    Numerical libraries get the threads of the serving container, never the node's cores.
    """
    threads = getattr(action.request, "threads", 1)
    values = _ENVIRONMENT | dict.fromkeys(_THREADS, str(threads))
    values[PRIVATE_ADDRESSES_VARIABLE] = settings.private_addresses
    return [{"name": name, "value": value} for name, value in values.items()]


def _request_volume() -> Json:
    field = {"fieldPath": f"metadata.annotations['{REQUEST_ANNOTATION}']"}
    return {"name": "request", "downwardAPI": {"items": [{"path": _REQUEST_NAME, "fieldRef": field}]}}


def _scratch_volume() -> Json:
    return {"name": "scratch", "emptyDir": {"sizeLimit": _SCRATCH_LIMIT}}
