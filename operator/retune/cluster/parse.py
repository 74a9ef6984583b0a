"""Raw objects to the facts decisions are made from: one parser a kind, and nothing kept that nobody asks for.

Objects of the same meaning compare equal, so that an event which changes nothing that matters wakes nobody.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from retune.api.base import Json
from retune.api.objects import ModelOptimization, OptimizationRun
from retune.contract.results import JobResult, parse_result
from retune.kubelet import CANNOT_START, IMAGE_PULL_FAILED
from retune.plan.observed import Job, JobPhase, Trouble
from retune.workloads.labels import COMMAND, HELD, RESOURCE

_MESSAGE_LIMIT = 400
_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def resource(raw: Json, known: ModelOptimization | None = None) -> ModelOptimization:
    """Return a ModelOptimization; raises pydantic.ValidationError.

    known: the same object as last read. While its generation stands, so does its spec, which is not read again.
    """
    parts = _three_parts(raw)
    if known is not None and known.metadata.generation == raw["metadata"].get("generation"):
        parts["spec"] = known.spec
    return ModelOptimization.model_validate(parts)


@dataclass(frozen=True, slots=True)
class RunFacts:
    """An OptimizationRun and whose it is."""

    owner: str | None
    run: OptimizationRun


def run(raw: Json) -> RunFacts:
    """Return an OptimizationRun; raises pydantic.ValidationError."""
    return RunFacts(owner(raw), OptimizationRun.model_validate(_three_parts(raw)))


def _three_parts(raw: Json) -> Json:
    return {"metadata": raw["metadata"], "spec": raw["spec"], "status": raw.get("status") or {}}


def owner(raw: Json) -> str | None:
    """Return the UID of the object's controller, if it has one."""
    references = raw["metadata"].get("ownerReferences") or ()
    return next((str(each["uid"]) for each in references if each.get("controller")), None)


def resource_name(raw: Json) -> str | None:
    """Return the name of the ModelOptimization that an object of ours says it belongs to."""
    name = (raw["metadata"].get("labels") or {}).get(RESOURCE)
    return str(name) if name else None


@dataclass(frozen=True, slots=True)
class JobFacts:
    """What is kept of a Job."""

    name: str
    uid: str
    owner: str | None
    resource: str | None
    command: str | None
    suspended: bool
    held: bool
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
    labels = meta.get("labels") or {}
    failed = _condition(status, "Failed")
    return JobFacts(
        name=meta["name"],
        uid=meta["uid"],
        owner=owner(raw),
        resource=resource_name(raw),
        command=labels.get(COMMAND),
        suspended=bool(spec.get("suspend")),
        held=(meta.get("annotations") or {}).get(HELD) == "true",
        active=status.get("active") or 0,
        started=_time(status["startTime"]) if status.get("startTime") else None,
        complete=bool(_condition(status, "Complete")),
        failure=(str(failed.get("reason")), _line(failed.get("message")), _time(failed.get("lastTransitionTime")))
        if failed
        else None,
    )


def _condition(status: Json, kind: str, value: str = "True") -> Json | None:
    found = (each for each in status.get("conditions") or () if each["type"] == kind and each["status"] == value)
    return next(found, None)


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
    owner: str | None
    resource: str | None
    command: str | None
    phase: str
    address: str | None
    started: datetime
    evicted: str | None
    """Why the pod was taken from its node, if it was."""
    unschedulable: tuple[str, datetime] | None
    waiting: tuple[str, str] | None
    """Reason and message of a container that cannot start."""
    ended: Ended | None


def pod(raw: Json) -> PodFacts:
    """Return the facts of a pod."""
    meta, status = raw["metadata"], raw.get("status") or {}
    state = next((each.get("state") or {} for each in status.get("containerStatuses") or ()), {})
    ended = state.get("terminated")
    unscheduled = _condition(status, "PodScheduled", "False")
    return PodFacts(
        name=meta["name"],
        owner=owner(raw),
        resource=resource_name(raw),
        command=(meta.get("labels") or {}).get(COMMAND),
        phase=status.get("phase") or "Pending",
        address=status.get("podIP"),
        started=_time(status.get("startTime") or meta.get("creationTimestamp")),
        evicted=_evicted(status),
        unschedulable=_since(unscheduled) if unscheduled else None,
        waiting=_waiting(status),
        ended=_ended(ended) if ended else None,
    )


def _waiting(status: Json) -> tuple[str, str] | None:
    """Return why a container cannot start; a training container counts, too, although it is no ordinary one."""
    every = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    states = ((each.get("state") or {}).get("waiting") or {} for each in every)
    found = (each for each in states if each.get("reason") in CANNOT_START)
    return next(((each["reason"], _line(each.get("message"))) for each in found), None)


def _evicted(status: Json) -> str | None:
    disruption = _condition(status, "DisruptionTarget")
    if disruption:
        return _line(disruption.get("message") or disruption.get("reason"))
    return _line(status.get("message")) if status.get("reason") == "Evicted" else None


def _since(condition: Json) -> tuple[str, datetime]:
    return _line(condition.get("message") or condition.get("reason")), _time(condition.get("lastTransitionTime"))


def _ended(state: Json) -> Ended:
    return Ended(
        code=state.get("exitCode", 0),
        reason=state.get("reason") or "",
        message=state.get("message") or "",
        at=_time(state.get("finishedAt")),
    )


def _line(text: Any) -> str:
    return " ".join(str(text or "").split())[:_MESSAGE_LIMIT]


def _time(text: str | None) -> datetime:
    return datetime.fromisoformat(text) if text else _EPOCH


def observed_job(facts: JobFacts, pods: Iterable[PodFacts], *, obstacle: Trouble | None = None) -> Job:
    """Return a Job together with what its pods said, or with the obstacle to its having any."""
    ordered = sorted(pods, key=lambda each: each.ended.at if each.ended else each.started)
    result, garbled = _result(facts, ordered)
    return Job(
        name=facts.name,
        uid=facts.uid,
        phase=_phase(facts, ordered),
        held=facts.held and facts.suspended,
        result=result,
        garbled=garbled,
        trouble=_failure(facts, ordered) if facts.failure else _hindrance(facts, ordered) or obstacle,
    )


def _phase(facts: JobFacts, pods: list[PodFacts]) -> JobPhase:
    if facts.complete:
        return JobPhase.SUCCEEDED
    if facts.failure:
        return JobPhase.FAILED
    if facts.suspended:
        return JobPhase.SUSPENDED
    running = facts.active > 0 and any(each.phase == "Running" for each in pods)
    ending = any(each.phase == "Succeeded" for each in pods)  # the Job's controller has not counted it yet
    return JobPhase.RUNNING if running or ending else JobPhase.WAITING


def speaking_pod(facts: JobFacts, pods: Iterable[PodFacts]) -> PodFacts | None:
    """Return the pod whose last words count: a failed one of a failed Job, else the one that finished last."""
    spoke = [each for each in pods if each.ended and (bool(each.ended.code) == bool(facts.failure))]
    return max(spoke, key=lambda each: each.ended.at if each.ended else _EPOCH, default=None)


def _result(facts: JobFacts, pods: list[PodFacts]) -> tuple[JobResult | None, str | None]:
    last = speaking_pod(facts, pods)
    if not facts.finished or last is None or last.ended is None:
        return None, None
    if not last.ended.message:
        return None, f"pod {last.name} left no result"
    try:
        return parse_result(last.ended.message), None
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in wrong["loc"])
        return None, f"pod {last.name} left a result that cannot be read: {where}: {wrong['msg']}"


def _failure(facts: JobFacts, pods: list[PodFacts]) -> Trouble | None:
    """Return why a Job failed, by its own condition and by how its pods ended."""
    reason, message, since = facts.failure or ("", "", _EPOCH)
    if reason == "DeadlineExceeded":
        return Trouble("DeadlineExceeded", message or "it ran longer than spec.execution.runTimeout allows.", since)
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


def _hindrance(facts: JobFacts, pods: list[PodFacts]) -> Trouble | None:
    """Return what keeps an unfinished Job's pods from doing their work."""
    if facts.finished or facts.suspended:
        return None
    return next((trouble for each in pods if (trouble := _pod_trouble(each))), None)


def _pod_trouble(each: PodFacts) -> Trouble | None:
    if each.unschedulable:
        message, since = each.unschedulable
        return Trouble("Unschedulable", f"pod {each.name}: {message}", since)
    if each.waiting:
        reason = "ImagePullFailed" if each.waiting[0] in IMAGE_PULL_FAILED else "ContainerFailed"
        return Trouble(reason, f"pod {each.name}: {each.waiting[0]}: {each.waiting[1]}", each.started)
    return None


def failed_create(events: Iterable[Json]) -> Trouble | None:
    """Return why pods could not be created, by the newest of a Job's FailedCreate events."""
    newest = max(events, key=lambda each: each.get("lastTimestamp") or "", default=None)
    if newest is None:
        return None
    message = _line(newest.get("message"))
    reason = "QuotaExceeded" if "exceeded quota" in message else "AdmissionDenied"
    return Trouble(reason, message, _time(newest.get("firstTimestamp")))


def trimmed_deployment(raw: Json) -> bytes:
    """Return the compact JSON of what a target is judged by: equal when nothing of that changed."""
    meta, spec, status = raw["metadata"], raw["spec"], raw.get("status") or {}
    template = spec["template"]["spec"]
    document = {
        "metadata": {
            **_picked(meta, ("name", "namespace", "uid", "generation", "deletionTimestamp")),
            "managedFields": _env_owners(meta.get("managedFields") or ()),
        },
        "spec": {
            **_picked(spec, ("replicas", "selector", "paused")),
            "template": {
                "spec": {
                    **_picked(template, ("nodeSelector", "tolerations")),
                    "containers": [_picked(each, ("name", "env", "resources")) for each in template["containers"]],
                }
            },
        },
        "status": {
            **_picked(status, ("observedGeneration", "replicas", "updatedReplicas", "availableReplicas")),
            "conditions": [
                _picked(each, ("type", "status", "reason", "message")) for each in status.get("conditions") or ()
            ],
        },
    }
    return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()


def _picked(source: Mapping[str, Any], names: Iterable[str]) -> Json:
    return {name: source[name] for name in names if name in source}


def _env_owners(entries: Iterable[Json]) -> list[Json]:
    """Return the managed-field entries that speak of environment variables, with only that branch."""
    found = []
    for entry in entries:
        containers = _descend(entry.get("fieldsV1"), "f:spec", "f:template", "f:spec", "f:containers")
        envs = {name: {"f:env": fields["f:env"]} for name, fields in containers.items() if "f:env" in fields}
        if envs and "subresource" not in entry:
            fields = {"f:spec": {"f:template": {"f:spec": {"f:containers": envs}}}}
            found.append({"manager": entry.get("manager"), "operation": entry.get("operation"), "fieldsV1": fields})
    return found


def _descend(fields: Any, *path: str) -> Json:
    for step in path:
        fields = fields.get(step) if isinstance(fields, dict) else None
    return fields if isinstance(fields, dict) else {}
