"""Version 1: the delivered model, checked, bundled and measured before anything else may happen.

A failed attempt is tried again, ever more slowly, and at once when the spec or the way its Job runs changes.
"""

from datetime import timedelta

from retune.api.status import ConditionStatus, ConditionType, JobAttempt, Stage, Version
from retune.contract.requests import BaselineRequest
from retune.contract.results import BaselineResult
from retune.plan import names
from retune.plan.actions import CreateJob
from retune.plan.draft import Draft, Hold, condition_of
from retune.plan.hashing import attempt_hash, baseline_hash
from retune.plan.jobs import JobFailure, failure_of, progress_of, starting
from retune.plan.observed import Job, JobPhase, Verb

_FIRST_RETRY_SECONDS = 30.0
_LAST_RETRY_SECONDS = 600.0


def measure_champion(draft: Draft) -> Hold | None:
    """Make sure that the delivered model has a bundle and numbers."""
    original = draft.status.original
    if original and original.spec_hash == baseline_hash(draft.spec):
        return None
    attempt = _attempt(draft)
    if attempt.retry_after and draft.remaining(attempt.retry_after, 0) > 0:
        return _wait_for_retry(draft, attempt)
    if attempt.retry_after:
        attempt = _named(draft, attempt.attempt + 1)
    draft.update(baseline=attempt)
    job = draft.observed.jobs.get(attempt.name)
    return _start(draft, attempt) if job is None else _follow(draft, attempt, job)


def _attempt(draft: Draft) -> JobAttempt:
    current = draft.status.baseline
    return current if current and current.spec_hash == attempt_hash(draft.spec) else _named(draft, 1)


def _named(draft: Draft, number: int) -> JobAttempt:
    spec_hash = attempt_hash(draft.spec)
    name = names.baseline_job(draft.resource.metadata.name, number, spec_hash)
    return JobAttempt(name=name, attempt=number, spec_hash=spec_hash)


def measure_again(draft: Draft) -> None:
    """Have version 1's bundle made and measured anew, because the store does not hold it any more (fault 23)."""
    original = draft.status.original
    if original is not None:
        spec_hash = attempt_hash(draft.spec)
        number = 1
        while names.baseline_job(draft.resource.metadata.name, number, spec_hash) in draft.observed.jobs:
            number += 1
        lost = original.model_copy(update={"spec_hash": None})
        draft.update(original=lost, baseline=_named(draft, number))


def _start(draft: Draft, attempt: JobAttempt) -> Hold:
    refused = draft.refusal(Verb.CREATE_JOB)
    if refused:
        draft.wake(after=_FIRST_RETRY_SECONDS)
        return _not_baselined(draft, refused.reason, refused.message)
    if draft.store is None:
        message = "no artifact store: set spec.execution.artifactStore, or a default in the operator's settings"
        return _not_baselined(draft, "StoreNotConfigured", message)
    cpu = draft.container.cpu_limit if draft.container else None
    draft.do(CreateJob(attempt.name, _request(draft, draft.store), cpu_limit=cpu))
    before = draft.refused_before(ConditionType.BASELINED)
    return _not_baselined(draft, *before) if before else _working(draft, *starting(attempt.name))


def _request(draft: Draft, store: str) -> BaselineRequest:
    return BaselineRequest(
        resource=draft.resource.key,
        spec_hash=baseline_hash(draft.spec),
        model=draft.spec.model,
        data=draft.spec.data,
        serving=draft.spec.serving,
        store=store,
        threads=threads(draft),
        seed=draft.spec.search.seed,
    )


def threads(draft: Draft) -> int:
    """Return the threads a serving container may use: its CPU limit in whole cores, or fewer if the spec says so."""
    limit = max(1, int(draft.container.cpu_limit or 1)) if draft.container else 1
    return min(limit, draft.spec.serving.cores or limit)


def _follow(draft: Draft, attempt: JobAttempt, job: Job) -> Hold | None:
    failure = failure_of(job, now=draft.now, pull_seconds=draft.observed.defaults.image_pull_seconds)
    if job.phase is JobPhase.SUCCEEDED:
        if isinstance(job.result, BaselineResult) and job.result.spec_hash == baseline_hash(draft.spec):
            _adopt(draft, job.result)
            return None
        failure = JobFailure("ResultInvalid", f"Job {job.name} ended without a result that belongs to this spec")
    if failure:
        return _retry_later(draft, attempt, failure)
    reason, message = progress_of(job)
    return _working(draft, reason, message)


def _adopt(draft: Draft, result: BaselineResult) -> None:
    status, known = draft.status, draft.status.original
    same = known is not None and known.digest == result.bundle.digest
    number = 1 if known is None else known.version if same else status.next_version
    found = draft.container.value if draft.container else None
    original = Version(
        version=number,
        uri=result.bundle.uri,
        digest=result.bundle.digest,
        model_digest=result.model_digest,
        spec_hash=result.spec_hash,
        size_bytes=result.size_bytes,
        metrics=result.metrics,
        injected_value=known.injected_value if known else found,
    )
    promoted = status.champion if status.champion and status.champion.run_name else None
    draft.update(original=original, champion=promoted or original, baseline=None)
    if known is not None and not same:
        draft.update(next_version=number + 1)
    numbers = ", ".join(f"{metric.name} {metric.value}" for metric in result.metrics)
    draft.condition(ConditionType.BASELINED, ConditionStatus.TRUE, "Measured", f"version {number}: {numbers}")


def _retry_later(draft: Draft, attempt: JobAttempt, failure: JobFailure) -> Hold:
    seconds = min(_LAST_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 2 ** (attempt.attempt - 1))
    waiting = attempt.model_copy(update={"retry_after": draft.now + timedelta(seconds=seconds)})
    draft.update(baseline=waiting)
    draft.wake(after=seconds)
    return _not_baselined(draft, failure.reason, failure.message)


def _wait_for_retry(draft: Draft, attempt: JobAttempt) -> Hold:
    draft.wake(after=max(1.0, draft.remaining(attempt.retry_after or draft.now, 0)))
    old = condition_of(draft.status, ConditionType.BASELINED)
    return Hold(Stage.BLOCKED, old.reason if old else "Failed", old.message if old else "")


def _working(draft: Draft, reason: str, message: str) -> Hold:
    """Tell what the attempt does; while a failed one is repeated, its failure stays told, so that it does not flap."""
    failed = condition_of(draft.status, ConditionType.BASELINED)
    attempt = draft.status.baseline
    if failed and failed.status is ConditionStatus.FALSE and attempt and attempt.attempt > 1:
        return Hold(Stage.BLOCKED, failed.reason, failed.message)
    draft.condition(ConditionType.BASELINED, ConditionStatus.UNKNOWN, reason, message)
    return Hold(Stage.BASELINING, reason, message)


def _not_baselined(draft: Draft, reason: str, message: str) -> Hold:
    draft.condition(ConditionType.BASELINED, ConditionStatus.FALSE, reason, message)
    return Hold(Stage.BLOCKED, reason, message)
