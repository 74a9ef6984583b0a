"""From raw objects to the facts that decisions are made from: one parser a kind, and only the fields that are used.

Objects of the same meaning compare equal, so that an event which changes nothing that matters wakes nobody.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from retune.api.base import Json
from retune.api.objects import ModelOptimization, OptimizationRun
from retune.cluster.sharing import share_given, share_parts
from retune.contract.paths import JOB_CONTAINER
from retune.contract.serving import SERVER_CONTAINER
from retune.kubelet import CANNOT_START
from retune.targets import TargetKind
from retune.workloads.canary import MADE_OF, REACHED_BY
from retune.workloads.jobs import EXPIRED_SECONDS
from retune.workloads.labels import COMMAND, HELD, KUEUE_QUEUE, MANAGED_BY, RESOURCE, WORKERS

_MESSAGE_LIMIT = 400
_OUT_OF_MEMORY = "OOMKilled"
_TOLD_TO_END = frozenset({0, 137, 143})
"""Exit codes of a server that was told to end."""
EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def resource(raw: Json, known: ModelOptimization | None = None) -> ModelOptimization:
    """Return a ModelOptimization.

    Args:
        raw: The object as the API server gave it.
        known: The same object as last read. While its generation stands, so does its spec, which is not read again.

    Raises:
        pydantic.ValidationError: The object does not keep to its schema.
    """
    parts = _three_parts(raw)
    same = known is not None and known.metadata.generation == raw["metadata"].get("generation")
    if known is not None and same:
        parts["spec"] = known.spec
    read = ModelOptimization.model_validate(parts)
    if not same:
        share_parts(read.spec)
    share_given(read)
    return read


@dataclass(frozen=True, slots=True)
class RunFacts:
    """An OptimizationRun and whose it is."""

    owner: str | None
    run: OptimizationRun


def run(raw: Json) -> RunFacts:
    """Return an OptimizationRun; raises pydantic.ValidationError."""
    read = OptimizationRun.model_validate(_three_parts(raw))
    share_parts(read.spec.snapshot)
    share_given(read)
    return RunFacts(owner(raw), read)


def _three_parts(raw: Json) -> Json:
    return {"metadata": raw["metadata"], "spec": raw["spec"], "status": raw.get("status") or {}}


def owner(raw: Json) -> str | None:
    """Return the UID of the object's controller, if it has one."""
    references = raw["metadata"].get("ownerReferences") or ()
    return next((str(reference["uid"]) for reference in references if reference.get("controller")), None)


def resource_name(raw: Json) -> str | None:
    """Return the name of the ModelOptimization that an object belongs to, by its label."""
    name = (raw["metadata"].get("labels") or {}).get(RESOURCE)
    return str(name) if name else None


@dataclass(frozen=True, slots=True)
class JobFacts:
    """What is kept of a Job."""

    name: str
    uid: str
    owner: str | None
    command: str | None
    suspended: bool
    held: bool
    expired: bool
    """Whether it was told to end."""
    queue: str | None
    """Queue that admits it."""
    suspended_since: datetime | None
    """Since when it has been suspended; None while it is not, or where its controller has not seen it yet."""
    workers: int
    """Pods that it runs at a time: fewer than asked for, where its queue has admitted fewer."""
    asked: int | None
    """Workers that were asked for, where a queue may admit fewer."""
    active: int
    started: datetime | None
    """When its controller took it up; None before that, and after a suspension."""
    complete: bool
    failure: tuple[str, str, datetime] | None
    """Reason, message and time of the Failed condition."""

    @property
    def finished(self) -> bool:
        """Whether no pod of it will run any more."""
        return self.complete or self.failure is not None


def job(raw: Json) -> JobFacts:
    """Return the facts of a Job."""
    meta, spec, status = raw["metadata"], raw["spec"], raw.get("status") or {}
    failed = _condition(status, "Failed")
    return JobFacts(
        name=meta["name"],
        uid=meta["uid"],
        owner=owner(raw),
        command=(meta.get("labels") or {}).get(COMMAND),
        suspended=bool(spec.get("suspend")),
        held=(meta.get("annotations") or {}).get(HELD) == "true",
        expired=spec.get("activeDeadlineSeconds") == EXPIRED_SECONDS,
        queue=(meta.get("labels") or {}).get(KUEUE_QUEUE),
        suspended_since=_suspended_since(raw) if spec.get("suspend") else None,
        workers=spec.get("parallelism", 1),
        asked=_number((meta.get("annotations") or {}).get(WORKERS)),
        active=status.get("active") or 0,
        started=time_of(status["startTime"]) if status.get("startTime") else None,
        complete=bool(_condition(status, "Complete")),
        failure=_failure(failed) if failed else None,
    )


def _suspended_since(raw: Json) -> datetime | None:
    """Return since when a suspended Job is: one that never ran was made so; else its controller will say it soon."""
    status = raw.get("status") or {}
    if suspended := _condition(status, "Suspended"):
        return time_of(suspended["lastTransitionTime"])
    return None if _condition(status, "Suspended", "False") else time_of(raw["metadata"].get("creationTimestamp"))


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdecimal() else None


def _failure(failed: Json) -> tuple[str, str, datetime]:
    return str(failed.get("reason")), line(failed.get("message")), time_of(failed.get("lastTransitionTime"))


def _condition(status: Json, kind: str, value: str = "True") -> Json | None:
    """Return the condition of this type if it has this value."""
    conditions = status.get("conditions") or ()
    matching = (entry for entry in conditions if entry["type"] == kind and entry["status"] == value)
    return next(matching, None)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a container ended."""

    code: int
    reason: str
    message: str
    at: datetime


@dataclass(frozen=True, slots=True)
class PodFacts:
    """What is kept of a Job's pod."""

    name: str
    uid: str
    owner: str | None
    phase: str
    address: str | None
    started: datetime
    running_since: datetime | None
    """When its own container began to run, even if that has ended since."""
    evicted: str | None
    """Why the pod was taken from its node, if it was."""
    unschedulable: tuple[str, datetime] | None
    waiting: tuple[str, str] | None
    """Reason and message of a container that cannot start."""
    being_prepared: bool
    """Whether it has a node that has not begun to run it: it fetches images and mounts volumes."""
    ended: Ended | None
    server_ended: Ended | None
    """How the model server beside a judge last ended while the judge needed it; None where it did not, or is back."""
    beside: str | None
    """Container that somebody put beside ours and that runs on though ours has ended."""


def pod(raw: Json) -> PodFacts:
    """Return the facts of a pod."""
    meta, status = raw["metadata"], raw.get("status") or {}
    states = {entry.get("name"): entry.get("state") or {} for entry in status.get("containerStatuses") or ()}
    own = states.get(JOB_CONTAINER, {})
    ended, began = own.get("terminated"), (own.get("running") or own.get("terminated") or {}).get("startedAt")
    unscheduled = _condition(status, "PodScheduled", "False")
    return PodFacts(
        name=meta["name"],
        uid=meta["uid"],
        owner=owner(raw),
        phase=status.get("phase") or "Pending",
        address=status.get("podIP"),
        started=time_of(status.get("startTime") or meta.get("creationTimestamp")),
        running_since=time_of(began) if began else None,
        evicted=_evicted(status),
        unschedulable=_since(unscheduled) if unscheduled else None,
        waiting=_waiting(status),
        being_prepared=_is_being_prepared(status),
        ended=_ended(ended) if ended else None,
        server_ended=_server_ended(status, time_of(ended.get("finishedAt")) if ended else None),
        beside=next((name for name, state in states.items() if ended and "running" in state), None),
    )


def _is_being_prepared(status: Json) -> bool:
    started = any(entry.get("state", {}).get("running") for entry in status.get("initContainerStatuses") or ())
    scheduled = _condition(status, "PodScheduled") is not None
    return status.get("phase") == "Pending" and scheduled and not started and _waiting(status) is None


def _waiting(status: Json) -> tuple[str, str] | None:
    """Return why a container cannot start; init containers count, because a user's training code runs in one."""
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    waiting = ((container.get("state") or {}).get("waiting") or {} for container in containers)
    stuck = (state for state in waiting if state.get("reason") in CANNOT_START)
    return next(((state["reason"], line(state.get("message"))) for state in stuck), None)


def _evicted(status: Json) -> str | None:
    disruption = _condition(status, "DisruptionTarget")
    if disruption:
        return line(disruption.get("message") or disruption.get("reason"))
    return line(status.get("message")) if status.get("reason") == "Evicted" else None


def _since(condition: Json) -> tuple[str, datetime]:
    return line(condition.get("message") or condition.get("reason")), time_of(condition.get("lastTransitionTime"))


def _ended(state: Json) -> Ended:
    return Ended(
        code=state.get("exitCode", 0),
        reason=state.get("reason") or "",
        message=state.get("message") or "",
        at=time_of(state.get("finishedAt")),
    )


def _server_ended(status: Json, judged: datetime | None) -> Ended | None:
    """Return how the server's container last ended of itself; while the judge runs, None where it is there again.

    Args:
        status: The pod's status.
        judged: When the judge's own container ended, after which the server is told to; None while it runs.
    """
    listed = status.get("initContainerStatuses") or ()
    entries = [entry for entry in listed if entry.get("name") == SERVER_CONTAINER]
    if judged is None and any("running" in (entry.get("state") or {}) for entry in entries):
        return None
    states = [entry.get(which) or {} for entry in entries for which in ("state", "lastState")]
    ends = [_ended(state["terminated"]) for state in states if state.get("terminated")]
    return next((end for end in ends if judged is None or _was_early(end, judged)), None)


def _was_early(end: Ended, judged: datetime) -> bool:
    """Return whether a server ended before it was told to; times are whole seconds, so that both may be the same."""
    return end.at < judged or end.reason == _OUT_OF_MEMORY or (end.at == judged and end.code not in _TOLD_TO_END)


def line(text: Any) -> str:
    """Return a text that others wrote on one line, of bounded length."""
    return " ".join(str(text or "").split())[:_MESSAGE_LIMIT]


def time_of(text: str | None) -> datetime:
    """Return the moment that a timestamp names; 1970 where there is none."""
    return datetime.fromisoformat(text) if text else EPOCH


def trimmed_target(kind: TargetKind, raw: Json) -> bytes:
    """Return the compact JSON of what a target is judged by: equal when nothing of that changed."""
    document = kind.trimmed(raw)
    document["metadata"] |= _of_canary(raw["metadata"])
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def _of_canary(meta: Json) -> Json:
    """Return what tells whose a canary is, and what it was made of; nothing of other people's Deployments."""
    labels, annotations = meta.get("labels") or {}, meta.get("annotations") or {}
    if labels.get(MANAGED_BY) != "retune":
        return {}
    owners = [_picked(reference, "uid", "controller") for reference in meta.get("ownerReferences") or ()]
    kept = {"labels": _picked(labels, RESOURCE), "annotations": _picked(annotations, MADE_OF, REACHED_BY)}
    return kept | {"ownerReferences": owners}


def _picked(source: Mapping[str, Any], *names: str) -> Json:
    return {name: source[name] for name in names if name in source}
