"""How a Job stands, in the words of a condition: why it failed, or what it waits for."""

from dataclasses import dataclass
from datetime import datetime

from retune.contract.results import Failure, Reason
from retune.plan.observed import Job, JobPhase, Queue


@dataclass(frozen=True)
class JobFailure:
    """Why a Job ended without a result that counts."""

    reason: str
    message: str
    infeasible: bool = False
    """The input is fine, but nothing can satisfy the request."""
    overtime: bool = False
    """It ran out of time; what it had stored until then still counts."""
    starved: bool = False
    """It ran out of memory; so does what it had stored until then, if there is anything."""


def failure_of(job: Job, *, now: datetime, pull_seconds: float) -> JobFailure | None:
    """Return why a Job failed; None while it may still succeed or when it did.

    Args:
        job: The Job as observed.
        now: The moment of the pass.
        pull_seconds: How long its image may fail to be pulled before that counts as failure.
    """
    trouble = job.trouble
    if job.phase is JobPhase.FAILED:
        return _ended(job)
    stuck = trouble is not None and trouble.reason == "ImagePullFailed" and job.phase is not JobPhase.SUCCEEDED
    if trouble and stuck and (now - trouble.since).total_seconds() >= pull_seconds:
        return JobFailure("ImagePullFailed", f"Job {job.name}: {trouble.message} Correct the image's name.")
    return None


def _ended(job: Job) -> JobFailure:
    if isinstance(job.result, Failure):
        infeasible = job.result.reason is Reason.NO_FEASIBLE_CANDIDATE
        return JobFailure(job.result.reason, job.result.sentence, infeasible=infeasible)
    if job.trouble:
        reason, message = job.trouble.reason, f"Job {job.name}: {job.trouble.message}"
        overtime, starved = reason == "DeadlineExceeded", reason == "OutOfMemory"
        return JobFailure(reason, message, overtime=overtime, starved=starved)
    if job.garbled:
        return JobFailure("ResultInvalid", f"Job {job.name}: {job.garbled}")
    return JobFailure("JobFailed", f"Job {job.name} failed without saying why: see its pods' logs")


def without_result(job: Job, what: str) -> JobFailure:
    """Return that a Job has ended well and without the result that counts: as no such result can be read, or at all.

    Args:
        job: The Job.
        what: What it ended without, as words.
    """
    return JobFailure("ResultInvalid", f"Job {job.name}: {job.garbled or f'it ended without {what}'}")


def progress_of(job: Job) -> tuple[str, str]:
    """Return reason and sentence for a Job that has not finished."""
    if job.trouble:
        return job.trouble.reason, f"Job {job.name}: {job.trouble.message}"
    if job.phase is JobPhase.SUSPENDED:
        return "Queued", f"Job {job.name} waits for admission by {_waiting(job.queue)}"
    if job.phase is JobPhase.WAITING:
        return starting(job.name)
    return "Running", f"Job {job.name} runs{_fewer(job)}"


def _waiting(queue: Queue | None) -> str:
    """Return which queue a Job waits for, since when, and why it has to, as the end of a sentence."""
    if queue is None:
        return "its queue"
    since = f" since {queue.since:%Y-%m-%d %H:%M:%S} UTC" if queue.since else ""
    return f"queue {queue.name}{since}{f': {queue.why}' if queue.why else ''}"


def _fewer(job: Job) -> str:
    """Return that a queue has admitted fewer workers than were asked for, as the end of a sentence."""
    if job.queue is None or job.asked is None or job.workers >= job.asked:
        return ""
    return f": {job.workers} of {job.asked} workers admitted by queue {job.queue.name}"


def starting(name: str) -> tuple[str, str]:
    """Return reason and sentence for a Job that was just asked for."""
    return "Starting", f"Job {name} waits for its pod"
