"""What keeps a pod from becoming ready, in words that name the pod, the container and the cause."""

from datetime import datetime
from typing import Any

from retune.api.base import Json
from retune.kubelet import STUCK
from retune.plan.observed import Incident

_MESSAGE_LIMIT = 600
"""Characters of others' words: room for a bundle's URI, two digests and what to do about them."""
_LOST = {"ContainerStatusUnknown", "Unknown"}
"""Reasons of an end that the kubelet has not seen: the node went, not the container."""


def ready(pod: Json) -> bool:
    """Return whether the kubelet says that the pod is ready, and it has an address."""
    return condition(pod, "Ready").get("status") == "True" and bool(pod.get("status", {}).get("podIP"))


def of_pod(pod: Json) -> str | None:
    """Return what is wrong with the pod, in one line; None while it is well or only starting."""
    trouble = _scheduling(pod) or _ended(pod) or _containers(pod)
    return f"pod {pod['metadata']['name']}: {trouble}" if trouble else None


def crash_of(pod: Json, container: str) -> Incident | None:
    """Return how the named container ended with an error last; None in a pod that was evicted or is taken away."""
    status = _status_of(pod, container)
    ends = [status.get(state, {}).get("terminated", {}) for state in ("state", "lastState")]
    failed = [end for end in ends if end.get("exitCode", 0) != 0 and end.get("reason") not in _LOST]
    if not failed or _is_disrupted(pod):
        return None
    at = datetime.fromisoformat(failed[0].get("finishedAt") or pod["metadata"]["creationTimestamp"])
    return Incident(f"pod {pod['metadata']['name']}: container {container}: {_exit(failed[0])}", at)


def unready(pod: Json, container: str) -> Incident | None:
    """Return since when the named container runs without being ready; None where it is, or is not to blame."""
    status = _status_of(pod, container)
    running = status.get("state", {}).get("running", {})
    if not running.get("startedAt") or status.get("ready") or _is_disrupted(pod):
        return None
    times = (running["startedAt"], condition(pod, "Ready").get("lastTransitionTime"))
    at = max(datetime.fromisoformat(time) for time in times if time)
    return Incident(f"pod {pod['metadata']['name']}: container {container} runs and is not ready", at)


def _status_of(pod: Json, container: str) -> Json:
    statuses = _statuses(pod.get("status", {}))
    return next((status for status in statuses if status["name"] == container), {})


def _statuses(status: Json) -> list[Json]:
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _is_disrupted(pod: Json) -> bool:
    """Whether the pod was evicted, preempted or drained, or is lost with its node, whatever its containers did then."""
    return pod.get("status", {}).get("phase") == "Failed" or condition(pod, "DisruptionTarget").get("status") == "True"


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
    statuses = _statuses(pod.get("status", {}))
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
