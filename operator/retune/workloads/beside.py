"""The owner's own containers beside a Job's: as restricted as the Job's, and they can reach less.

Each sees a folder that the Job shares with it and a scratch volume, but no store, credentials, token or request. It is
a sidecar, so that it is there before the Job starts and ends with it.
"""

from dataclasses import dataclass
from typing import Final

from retune.api.base import Json
from retune.api.metrics import CUSTOM
from retune.api.own_code import CustomMetric
from retune.api.quantities import cores, memory_bytes
from retune.api.resources import Resources
from retune.contract.exchange import EXCHANGE_DIR, EXCHANGE_VARIABLE, METRIC_DIR, METRIC_VARIABLE, command
from retune.contract.paths import SCRATCH_DIR
from retune.contract.requests import BaselineRequest, CheckRequest, JobRequest, JudgeRequest, SearchRequest
from retune.workloads.security import CONTAINER_SECURITY

TRAINING: Final = "training"
"""Name of the container that trains."""
_LIMIT: Final = "4Gi"
_CPU, _MEMORY_REQUEST, _MEMORY_LIMIT = "1", "1Gi", "4Gi"
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RETUNE_THREADS")


@dataclass(frozen=True)
class Beside:
    """A container of the owner's own."""

    name: str
    """Name of the container in the pod."""
    image: str
    command: tuple[str, ...]
    resources: Resources
    volume: str
    """Volume that it shares with the Job."""
    folder: str
    """Where both see that volume."""
    variable: str
    """Variable that tells the Job of the folder."""

    @property
    def scratch(self) -> str:
        """The volume that only this container sees."""
        return f"{self.name}-scratch"

    @property
    def mount(self) -> Json:
        """The mount of the shared volume, the same in both containers."""
        return {"name": self.volume, "mountPath": self.folder}

    @property
    def environment(self) -> Json:
        """The variable of the Job's container."""
        return {"name": self.variable, "value": self.folder}


def beside(request: JobRequest) -> tuple[Beside, ...]:
    """Return the containers that train and measure beside the Job of a request."""
    return (*_training(request), *_measuring(request))


def _training(request: JobRequest) -> tuple[Beside, ...]:
    if not isinstance(request, SearchRequest) or isinstance(request, JudgeRequest):
        return ()
    own = next((technique.container for technique in request.techniques or () if technique.container), None)
    if own is None:
        return ()
    return (Beside(TRAINING, own.image, own.command, own.resources, "exchange", EXCHANGE_DIR, EXCHANGE_VARIABLE),)


def _measuring(request: JobRequest) -> tuple[Beside, ...]:
    own = metric.container if (metric := _metric(request)) else None
    if own is None:
        return ()
    return (Beside("metric", own.image, own.command, own.resources, "metric-exchange", METRIC_DIR, METRIC_VARIABLE),)


def _metric(request: JobRequest) -> CustomMetric | None:
    """Return the owner's metric if the Job measures by it; the baseline always tries it, before a run is spent."""
    if isinstance(request, BaselineRequest):
        return request.model.custom_metric
    if not isinstance(request, SearchRequest | CheckRequest):
        return None
    named = request.quality.metric if isinstance(request, CheckRequest) and request.quality else None
    by_objectives = named is None and any(objective.metric in CUSTOM for objective in request.objectives)
    return request.custom_metric if named in CUSTOM or by_objectives else None


def container(own: Beside, image_pull_policy: str) -> Json:
    """Return the sidecar container that does what the spec says."""
    threads = {"resourceFieldRef": {"containerName": own.name, "resource": "limits.cpu"}}
    return {
        "name": own.name,
        "image": own.image,
        "imagePullPolicy": image_pull_policy,
        "restartPolicy": "Always",
        "command": command(own.folder, own.command),
        "env": [
            {"name": "HOME", "value": SCRATCH_DIR},
            {"name": "TMPDIR", "value": SCRATCH_DIR},
            *({"name": name, "valueFrom": threads} for name in _THREADS),
        ],
        "resources": _amounts(own.resources),
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [own.mount, {"name": own.scratch, "mountPath": SCRATCH_DIR}],
    }


def _amounts(spec: Resources) -> Json:
    """Return requests and limits. A CPU limit is always set, because it says how many threads to use."""
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


def volumes(own: Beside) -> list[Json]:
    """Return the volumes that only a pod with this container has."""
    return [{"name": name, "emptyDir": {"sizeLimit": _LIMIT}} for name in (own.volume, own.scratch)]
