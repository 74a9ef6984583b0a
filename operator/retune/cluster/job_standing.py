"""How a Job stands: its own conditions, together with what its pods and its events say."""

import re
from collections.abc import Iterable
from datetime import datetime

from pydantic import ValidationError

from retune.api.base import Json
from retune.cluster.errors import is_of_quota
from retune.cluster.parse import EPOCH, Ended, JobFacts, PodFacts, line, time_of
from retune.contract.results import Failure, JobResult, Reason, parse_result
from retune.kubelet import IMAGE_PULL_FAILED
from retune.plan.observed import OBJECT_MISSING, Job, JobPhase, Queue, Trouble

_ASKING = "verify"
"""Command of Jobs whose own deadline is all that bounds them."""
_SERVER_SAID = 300
"""Characters of what a server printed last that are passed on."""
_NOT_CREATED = "FailedCreate"
_SUB_PATH = "subPath"
"""Word of the kubelet's message about a folder of a claim, such as the resource's own one in the store."""
_OBSTACLES = frozenset({_NOT_CREATED, "FailedMount", "FailedAttachVolume"})
"""Reasons of events that explain why a Job does not start."""
_KINDS = {
    "persistentvolumeclaim": "PersistentVolumeClaim",
    "secret": "Secret",
    "configmap": "ConfigMap",
    "serviceaccount": "ServiceAccount",
    "runtimeclass": "RuntimeClass",
    "priorityclass": "PriorityClass",
}
"""What a pod may need that others have to create, as Kubernetes' own sentences call it in lower case."""
_ABSENT = re.compile(rf'\b(?P<kind>{"|".join(_KINDS)})s? "(?P<name>[^"]+)" not found', re.IGNORECASE)
_NO_PRIORITY_CLASS = re.compile(r"no (?P<kind>PriorityClass) with name (?P<name>\S+) was found")
_OF_THE_CLUSTER = frozenset({"RuntimeClass", "PriorityClass"})
"""Kinds of no namespace."""


def observed_job(
    facts: JobFacts, pods: Iterable[PodFacts], *, obstacle: Trouble | None = None, queue_says: str | None = None
) -> Job:
    """Return a Job together with what its pods said.

    Args:
        facts: The Job.
        pods: Its pods.
        obstacle: Why its pods cannot be created or prepared, where that is known.
        queue_says: Why it waits in its queue, where that is known.
    """
    ordered = sorted(pods, key=lambda pod: pod.ended.at if pod.ended else pod.started)
    result, garbled = _result(facts, ordered)
    return Job(
        name=facts.name,
        uid=facts.uid,
        phase=_phase(facts, ordered),
        command=facts.command,
        held=facts.held and facts.suspended,
        queue=Queue(facts.queue, facts.suspended_since, queue_says) if facts.queue else None,
        workers=facts.workers,
        asked=facts.asked,
        running_since=_running_since(facts, ordered),
        expired=facts.expired,
        result=result,
        garbled=garbled,
        trouble=_failure(facts, ordered) if facts.failure else obstacle or _hindrance(facts, ordered),
    )


def _running_since(facts: JobFacts, pods: list[PodFacts]) -> datetime | None:
    """Return since when the Job has run; what it ran before a suspension does not count, as for its own deadline."""
    if facts.command == _ASKING or facts.started is None or not any(pod.phase == "Running" for pod in pods):
        return None  # also where all is done, and its controller has not counted it yet
    present = (pod for pod in pods if pod.ended is None or pod.ended.at >= facts.started)
    began = min((pod.running_since for pod in present if pod.running_since), default=None)
    return max(began, facts.started) if began else None


def _phase(facts: JobFacts, pods: list[PodFacts]) -> JobPhase:
    if facts.complete:
        return JobPhase.SUCCEEDED
    if facts.failure:
        return JobPhase.FAILED
    if facts.suspended:
        return JobPhase.SUSPENDED
    running = facts.active > 0 and any(pod.phase == "Running" for pod in pods)
    ending = any(pod.phase == "Succeeded" for pod in pods)  # the Job's controller has not counted it yet
    return JobPhase.RUNNING if running or ending else JobPhase.WAITING


def speaking_pod(facts: JobFacts, pods: Iterable[PodFacts]) -> PodFacts | None:
    """Return the pod whose last words count: a failed one of a failed Job, else the one that finished last."""
    ended = [pod for pod in pods if pod.ended and (bool(pod.ended.code) == bool(facts.failure))]
    return max(ended, key=lambda pod: pod.ended.at if pod.ended else EPOCH, default=None)


def _result(facts: JobFacts, pods: list[PodFacts]) -> tuple[JobResult | None, str | None]:
    last = speaking_pod(facts, pods)
    if not facts.finished or last is None or last.ended is None:
        return None, None
    if not last.ended.message:
        return None, f"pod {last.name} left no result"
    try:
        return _with_server(parse_result(last.ended.message), last), None
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in wrong["loc"])
        cure = "If its image is of another release than the operator, give both one release."
        return None, f"pod {last.name} left a result that cannot be read: {where}: {wrong['msg']}. {cure}"


def _with_server(result: JobResult, pod: PodFacts) -> JobResult:
    """Return a result; that the server beside a judge does not answer is told with how it ended, as far as is seen."""
    if not isinstance(result, Failure) or result.reason is not Reason.SERVER_UNREACHABLE or pod.server_ended is None:
        return result
    return result.model_copy(update={"message": f"{result.message} {_server_words(pod.server_ended)}"})


def _server_words(end: Ended) -> str:
    """Return how a server ended, with the last that it printed, as sentences."""
    if end.reason == "OOMKilled":
        return "Its container needed more memory than its limit: raise spec.execution.resources.limits.memory."
    last = "".join(letter if letter.isprintable() else " " for letter in end.message)[-_SERVER_SAID:]
    said = f": {' '.join(last.split())}" if last.strip() else ""
    return f"Its container ended with exit code {end.code} ({end.reason or 'Error'}){said}."


def _failure(facts: JobFacts, pods: list[PodFacts]) -> Trouble | None:
    """Return why a Job failed, by its own condition and by how its pods ended."""
    reason, message, since = facts.failure or ("", "", EPOCH)
    if reason == "DeadlineExceeded":
        return Trouble("DeadlineExceeded", _overtime(facts), since)
    last = speaking_pod(facts, pods)
    ended = last.ended if last else None
    if last and ended and ended.reason == "OOMKilled":
        limit = "raise spec.execution.resources.limits.memory."
        return Trouble("OutOfMemory", f"pod {last.name} needed more memory than its limit: {limit}", since)
    if last and last.evicted:
        return Trouble("Evicted", f"pod {last.name}: {last.evicted}", since)
    if last and ended:
        words = f"pod {last.name} ended with exit code {ended.code} ({ended.reason or 'Error'})"
        return Trouble("ContainerFailed", words, since)
    return Trouble(reason or "ContainerFailed", message or "it failed without saying why", since)


def _overtime(facts: JobFacts) -> str:
    if facts.command == _ASKING:
        return "it did not end within spec.rollout.progressDeadline."
    if facts.expired:
        return "it ran longer than spec.execution.runTimeout allows."
    return (
        "waiting and running, it took longer than its deadline allows: see in the events of its namespace what its "
        "pods waited for, or raise spec.execution.runTimeout."
    )


def _hindrance(facts: JobFacts, pods: list[PodFacts]) -> Trouble | None:
    """Return what keeps an unfinished Job's pods from doing their work."""
    if facts.finished or facts.suspended:
        return None
    return next((trouble for pod in pods if (trouble := _pod_trouble(pod))), None)


def _pod_trouble(pod: PodFacts) -> Trouble | None:
    if pod.unschedulable:
        message, since = pod.unschedulable
        return _missing(pod.name, message, since) or Trouble("Unschedulable", f"pod {pod.name}: {message}", since)
    if pod.waiting:
        kubelets_reason, message = pod.waiting
        if _SUB_PATH in message:
            cure = "see that the claim has space left and is not read-only."
            words = f"pod {pod.name}: the resource's folder cannot be made or mounted ({message}): {cure}"
            return Trouble("StoreNotWritable", words, pod.started)
        reason = "ImagePullFailed" if kubelets_reason in IMAGE_PULL_FAILED else "ContainerFailed"
        words = f"pod {pod.name}: {kubelets_reason}: {message}"
        return _missing(pod.name, message, pod.started) or Trouble(reason, words, pod.started)
    if pod.server_ended and pod.ended is None:
        words = f"pod {pod.name}: the model server beside the judge does not run. {_server_words(pod.server_ended)}"
        return Trouble("ContainerFailed", words, pod.server_ended.at)
    if pod.beside and pod.ended:
        words = f"pod {pod.name} has done its work, but container {pod.beside} beside it runs on: have it not injected"
        return Trouble("SidecarRunsOn", f"{words} into pods of Jobs, or as a native sidecar", pod.ended.at)
    return None


def obstacle_in(events: Iterable[Json]) -> Trouble | None:
    """Return what keeps a Job from starting, by the newest event of its own or of its pod's that says so, or None."""
    telling = (event for event in events if event.get("reason") in _OBSTACLES)
    newest = max(telling, key=lambda event: event.get("lastTimestamp") or "", default=None)
    if newest is None:
        return None
    message, since = line(newest.get("message")), time_of(newest.get("firstTimestamp"))
    pod = (newest.get("involvedObject") or {}).get("name") if newest["reason"] != _NOT_CREATED else None
    if missing := _missing(pod, message, since):
        return missing
    if pod is not None:
        return Trouble("VolumeNotMounted", f"pod {pod}: {message}{_cure_of(message)}", since)
    return Trouble("QuotaExceeded" if is_of_quota(message) else "AdmissionDenied", message, since)


def _missing(pod: str | None, message: str, since: datetime) -> Trouble | None:
    """Return what a pod waits for that somebody has to create, if Kubernetes' own sentence says so.

    Args:
        pod: Name of the pod; None where it could not even be created.
        message: What the scheduler, the kubelet or the API server says.
        since: When it was first said.
    """
    absent = _ABSENT.search(message) or _NO_PRIORITY_CLASS.search(message)
    if absent is None:
        return None
    kind, whose = _KINDS[absent["kind"].lower()], f"pod {pod}: " if pod else "its pods cannot be created: "
    place = "" if kind in _OF_THE_CLUSTER else " in this namespace"
    words = f"{whose}{kind} {absent['name']} does not exist{place}: create it, or correct its name."
    return Trouble(OBJECT_MISSING, words, since)


def _cure_of(message: str) -> str:
    """Return what to do about a volume, as a sentence after another."""
    if "Multi-Attach" in message or "already" in message:
        return ". The claim is in use on another node: take a ReadWriteMany claim, or keep its users on one node."
    return ""
