"""Attempts to measure the delivered model: numbered, named by the spec they are for, repeated ever more slowly."""

from datetime import timedelta

from retune.api.status import JobAttempt
from retune.plan import names
from retune.plan.draft import Draft
from retune.plan.hashing import attempt_hash

FIRST_RETRY_SECONDS = 30.0
_LAST_RETRY_SECONDS = 600.0


def current_attempt(draft: Draft) -> JobAttempt:
    """Return the attempt that is under way or waits for its repetition; the first one of a new spec otherwise."""
    attempt = draft.status.baseline
    return attempt if attempt and attempt.spec_hash == attempt_hash(draft.spec) else numbered(draft, 1)


def numbered(draft: Draft, number: int) -> JobAttempt:
    """Return an attempt of the present spec by its number."""
    spec_hash = attempt_hash(draft.spec)
    name = names.baseline_job(draft.resource.metadata.name, number, spec_hash)
    return JobAttempt(name=name, attempt=number, spec_hash=spec_hash)


def retry_later(draft: Draft, attempt: JobAttempt) -> None:
    """Have a failed attempt repeated: after 30 s at first, after 10 min at last."""
    seconds = min(_LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** (attempt.attempt - 1))
    waiting = attempt.model_copy(update={"retry_after": draft.now + timedelta(seconds=seconds)})
    draft.update(baseline=waiting)
    draft.wake(after=seconds)


def measure_again(draft: Draft) -> None:
    """Have the delivered model bundled and measured anew: its bundle is lost (fault 23), or its file is another."""
    original = draft.status.original
    if original is None:
        return
    attempt = numbered(draft, 1)
    while attempt.name in draft.observed.jobs:
        attempt = numbered(draft, attempt.attempt + 1)
    draft.update(original=original.model_copy(update={"spec_hash": None}), baseline=attempt)
