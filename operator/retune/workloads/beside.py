"""The user's own training container beside a search worker: as restricted as the worker, and it can reach less.

It sees a folder that the worker shares with it and a scratch volume, but no store, credentials, token or request. It is
a sidecar, so that it is there before the worker starts and ends with it.
"""

from typing import Final

from retune.api.base import Json
from retune.api.execution import Resources
from retune.api.quantities import cores, memory_bytes
from retune.api.techniques import TrainingContainer
from retune.contract.exchange import EXCHANGE_DIR, command
from retune.contract.paths import SCRATCH_DIR
from retune.contract.requests import JobRequest, JudgeRequest, SearchRequest
from retune.workloads.security import CONTAINER_SECURITY

CONTAINER: Final = "training"
EXCHANGE_MOUNT: Final[Json] = {"name": "exchange", "mountPath": EXCHANGE_DIR}
_LIMIT = "4Gi"
_CPU, _MEMORY_REQUEST, _MEMORY_LIMIT = "1", "1Gi", "4Gi"
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RETUNE_THREADS")


def training_of(request: JobRequest) -> TrainingContainer | None:
    """Return the container that trains the candidates of a search, if its techniques name one."""
    if not isinstance(request, SearchRequest) or isinstance(request, JudgeRequest):
        return None
    return next((technique.container for technique in request.techniques or () if technique.container), None)


def training_container(spec: TrainingContainer, image_pull_policy: str) -> Json:
    """Return the sidecar container that trains as the spec says."""
    threads = {"resourceFieldRef": {"containerName": CONTAINER, "resource": "limits.cpu"}}
    return {
        "name": CONTAINER,
        "image": spec.image,
        "imagePullPolicy": image_pull_policy,
        "restartPolicy": "Always",
        "command": command(EXCHANGE_DIR, spec.command),
        "env": [
            {"name": "HOME", "value": SCRATCH_DIR},
            {"name": "TMPDIR", "value": SCRATCH_DIR},
            *({"name": name, "valueFrom": threads} for name in _THREADS),
        ],
        "resources": _amounts(spec.resources),
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [EXCHANGE_MOUNT, {"name": "training-scratch", "mountPath": SCRATCH_DIR}],
    }


def _amounts(spec: Resources) -> Json:
    """Return requests and limits. A CPU limit is always set, because it says how many threads may train."""
    requests, limits = spec.requests, spec.limits
    memory = limits.memory or max(_MEMORY_LIMIT, requests.memory or "0", key=memory_bytes)
    cpu = limits.cpu or requests.cpu or _CPU
    return {
        "requests": {
            "cpu": requests.cpu or min(_CPU, cpu, key=cores),
            "memory": requests.memory or min(_MEMORY_REQUEST, memory, key=memory_bytes),
        },
        "limits": {"cpu": cpu, "memory": memory},
    }


def training_volumes() -> list[Json]:
    """Return the volumes that only a pod with a training container has."""
    return [{"name": name, "emptyDir": {"sizeLimit": _LIMIT}} for name in ("exchange", "training-scratch")]
