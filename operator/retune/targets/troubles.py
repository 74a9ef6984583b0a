"""What keeps a pod from becoming ready, in words that name the pod, the container and the cause."""

from typing import Any

from retune.api.base import Json
from retune.kubelet import STUCK

_MESSAGE_LIMIT = 300


def ready(pod: Json) -> bool:
    """Return whether the kubelet says that the pod is ready, and it has an address."""
    return condition(pod, "Ready").get("status") == "True" and bool(pod.get("status", {}).get("podIP"))


def of_pod(pod: Json) -> str | None:
    """Return what is wrong with the pod, in one line; None while it is well or only starting."""
    trouble = _scheduling(pod) or _ended(pod) or _containers(pod)
    return f"pod {pod['metadata']['name']}: {trouble}" if trouble else None


def condition(pod: Json, kind: str) -> Json:
    """Return the pod's condition of this type, empty when it has none."""
    conditions: list[Json] = pod.get("status", {}).get("conditions", [])
    return next((condition for condition in conditions if condition["type"] == kind), {})


def _scheduling(pod: Json) -> str | None:
    scheduled = condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return _sentence(scheduled.get("reason", "Unschedulable"), scheduled.get("message"))
    return None


def _ended(pod: Json) -> str | None:
    """Return why the pod failed as a whole, such as that it was evicted."""
    status = pod.get("status", {})
    if status.get("phase") == "Failed":
        return _sentence(status.get("reason", "Failed"), status.get("message"))
    return None


def _containers(pod: Json) -> str | None:
    status = pod.get("status", {})
    statuses = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    return next((trouble for container in statuses if (trouble := _container(container))), None)


def _container(status: Json) -> str | None:
    waiting, ended = status.get("state", {}).get("waiting", {}), status.get("state", {}).get("terminated", {})
    last = status.get("lastState", {}).get("terminated", {})
    name = f"container {status['name']}"
    if waiting.get("reason") in STUCK:
        cause = _exit(last) if last else waiting.get("message")
        return f"{name}: {_sentence(waiting['reason'], cause)}"
    if ended.get("exitCode", 0) != 0:
        return f"{name}: {_exit(ended)}"
    if last.get("exitCode", 0) != 0 and not status.get("ready"):
        return f"{name} was restarted {status.get('restartCount', 1)} times: {_exit(last)}"
    return None


def _exit(ended: Json) -> str:
    head = f"ended with exit code {ended.get('exitCode')}"
    reason = ended.get("reason")
    head += f" ({reason})" if reason and reason != "Error" else ""
    return _sentence(head, ended.get("message"))


def _sentence(head: str, detail: Any) -> str:
    """Return head and detail on one line; the detail is written by others and may be long."""
    tail = " ".join(str(detail or "").split())
    return f"{head}: {tail[:_MESSAGE_LIMIT]}" if tail else head
