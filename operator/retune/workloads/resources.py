"""CPU and memory of a Job's container: what is reserved for it, and the most it may use.

Jobs that measure run under the serving container's CPU limit: what is measured under another limit says nothing about
what serves. Everything else comes from the spec, then from defaults that fit a small model on a small node.
"""

from dataclasses import dataclass

from retune.api.base import Json
from retune.api.quantities import cores, memory_bytes
from retune.api.resources import Resources
from retune.job_template import Storage
from retune.plan.actions import CreateJob

_MEASURING = frozenset({"baseline", "judge"})


@dataclass(frozen=True)
class _Default:
    """Amounts for a command where nothing else is known: CPU in cores, memory as Kubernetes writes it."""

    cpu_request: float
    cpu_limit: float
    memory_request: str
    memory_limit: str


_WORK = _Default(cpu_request=1.0, cpu_limit=1.0, memory_request="1Gi", memory_limit="2Gi")
_TRAIN = _Default(cpu_request=1.0, cpu_limit=1.0, memory_request="1Gi", memory_limit="4Gi")
_CHECK = _Default(cpu_request=0.25, cpu_limit=1.0, memory_request="512Mi", memory_limit="2Gi")
_ASK = _Default(cpu_request=0.1, cpu_limit=1.0, memory_request="256Mi", memory_limit="1Gi")
_EPHEMERAL, _STORAGE_REQUEST = "ephemeral-storage", "1Gi"
_DEFAULTS = {
    "baseline": _TRAIN,
    "gather": _WORK,
    "search": _TRAIN,
    "judge": _WORK,
    "verify": _ASK,
    "check": _CHECK,
    "register": _ASK,
}


def container_resources(action: CreateJob, spec: Resources, *, storage: Json) -> Json:
    """Return requests and limits of the Job's container; a request never exceeds its limit.

    Args:
        action: The Job.
        spec: What the resource says.
        storage: Requests and limits of the node's storage, as `node_storage` returns them.
    """
    default = _DEFAULTS[action.request.command]
    cpu_request, cpu_limit = _cpu(action, spec, default)
    memory_request, memory_limit = _memory(spec, default)
    return {
        "requests": {"cpu": format_cores(cpu_request), "memory": memory_request} | storage["requests"],
        "limits": {"cpu": format_cores(cpu_limit), "memory": memory_limit} | storage["limits"],
    }


def node_storage(storage: Storage, *, scratch: str) -> Json:
    """Return requests and limits of the node's storage, where the scratch folder lies.

    Without a request, a node with a full disk would be as good as any; what nobody has set fits a small model.
    """
    most = min(storage.limit or scratch, scratch, key=memory_bytes)
    request = storage.request or min(_STORAGE_REQUEST, most, key=memory_bytes)
    limits = {_EPHEMERAL: storage.limit} if storage.limit else {}
    return {"requests": {_EPHEMERAL: request}, "limits": limits}


def _cpu(action: CreateJob, spec: Resources, default: _Default) -> tuple[float, float]:
    """Return request and limit in cores."""
    requested = cores(spec.requests.cpu) if spec.requests.cpu else None
    limited = cores(spec.limits.cpu) if spec.limits.cpu else None
    if action.cpu_limit and (action.request.command in _MEASURING or limited is None):
        limit = action.cpu_limit
    else:
        limit = limited if limited is not None else max(default.cpu_limit, requested or 0.0)
    return min(requested if requested is not None else default.cpu_request, limit), limit


def _memory(spec: Resources, default: _Default) -> tuple[str, str]:
    """Return request and limit as Kubernetes writes them."""
    request = spec.requests.memory
    limit = spec.limits.memory or max(default.memory_limit, request or "0", key=memory_bytes)
    return request or min(default.memory_request, limit, key=memory_bytes), limit


def format_cores(amount: float) -> str:
    """Return cores as Kubernetes writes them, such as `2` or `500m`; at least one millicore."""
    milli = max(1, round(amount * 1000))
    return str(milli // 1000) if milli % 1000 == 0 else f"{milli}m"
