"""The user's own training container beside a search worker: closed in like the worker, and with less in reach.

It sees one folder that the worker shares with it and a scratch volume: no store, no credentials, no token, no request.
It is a native sidecar, so that it is there before the worker starts and ends with it.
"""

from typing import Final

from retune.api.base import Json
from retune.api.execution import Resources
from retune.api.quantities import cores, memory_bytes
from retune.api.techniques import TrainingContainer
from retune.contract.paths import SCRATCH_DIR
from retune.contract.requests import JobRequest, JudgeRequest, SearchRequest
from retune.contract.training import EXCHANGE_DIR, command

CONTAINER: Final = "training"
EXCHANGE_MOUNT: Final[Json] = {"name": "exchange", "mountPath": EXCHANGE_DIR}
CLOSED: Final[Json] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
"""Security context of every container."""
_LIMIT = "4Gi"
_CPU, _MEMORY_REQUEST, _MEMORY_LIMIT = "1", "1Gi", "4Gi"
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RETUNE_THREADS")


def training_of(request: JobRequest) -> TrainingContainer | None:
    """Return the container that trains the candidates of a search, if its techniques name one."""
    if not isinstance(request, SearchRequest) or isinstance(request, JudgeRequest):
        return None
    return next((each.container for each in request.techniques or () if each.container), None)


def training_container(spec: TrainingContainer, policy: str) -> Json:
    """Return the container; `policy` says when its image is pulled."""
    threads = {"resourceFieldRef": {"containerName": CONTAINER, "resource": "limits.cpu"}}
    return {
        "name": CONTAINER,
        "image": spec.image,
        "imagePullPolicy": policy,
        "restartPolicy": "Always",
        "command": command(EXCHANGE_DIR, spec.command),
        "env": [
            {"name": "HOME", "value": SCRATCH_DIR},
            {"name": "TMPDIR", "value": SCRATCH_DIR},
            *({"name": name, "valueFrom": threads} for name in _THREADS),
        ],
        "resources": _amounts(spec.resources),
        "securityContext": CLOSED,
        "volumeMounts": [EXCHANGE_MOUNT, {"name": "training-scratch", "mountPath": SCRATCH_DIR}],
    }


def _amounts(spec: Resources) -> Json:
    """Return requests and limits; a CPU limit is always set, because it says how many threads may train."""
    asked, allowed = spec.requests, spec.limits
    memory = allowed.memory or max(_MEMORY_LIMIT, asked.memory or "0", key=memory_bytes)
    cpu = allowed.cpu or asked.cpu or _CPU
    return {
        "requests": {
            "cpu": asked.cpu or min(_CPU, cpu, key=cores),
            "memory": asked.memory or min(_MEMORY_REQUEST, memory, key=memory_bytes),
        },
        "limits": {"cpu": cpu, "memory": memory},
    }


def training_volumes() -> list[Json]:
    """Return the volumes that only such a pod has."""
    return [{"name": name, "emptyDir": {"sizeLimit": _LIMIT}} for name in ("exchange", "training-scratch")]
