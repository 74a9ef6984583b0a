"""Whether what a person has asked for by a version's name can be done: approvedVersion, rollbackTo and retry.

A name that fits nothing changes nothing, and is told. The condition is there from the first such name on.
"""

from retune.api.spec import Mode
from retune.api.status import ConditionStatus, ConditionType, ModelOptimizationStatus
from retune.plan.draft import Draft, condition_of
from retune.plan.kept import named
from retune.plan.rollout.approval import AWAITING
from retune.plan.rollout.progress import UNSETTLED
from retune.plan.rollout.proposing import PROPOSED, is_for_git
from retune.plan.rollout.returned import has_failed
from retune.plan.rollout.returning import unknown

FOLLOWED, NOT_APPROVED, WITHDRAWN = "Followed", "NotApproved", "Withdrawn"


def say_what_is_followed(draft: Draft) -> None:
    """Set CommandsFollowed, and end what is said of an approval that nobody waits for any more."""
    _end_waiting(draft)
    fault = _rollback_fault(draft) or _approval_fault(draft) or _retry_fault(draft)
    if fault is not None:
        draft.condition(ConditionType.COMMANDS_FOLLOWED, ConditionStatus.FALSE, *fault)
    elif condition_of(draft.status, ConditionType.COMMANDS_FOLLOWED) is not None:
        message = "every version that spec.rollout names is known"
        draft.condition(ConditionType.COMMANDS_FOLLOWED, ConditionStatus.TRUE, FOLLOWED, message)


def _rollback_fault(draft: Draft) -> tuple[str, str] | None:
    """Return reason and sentence where a version cannot be put back that a person names."""
    name, last = draft.spec.rollout.rollback_to, draft.status.last_rollback
    if name is None or draft.status.champion is None:
        return None
    version = named(draft.status, name)
    if version is None:
        return "RollbackUnknown", unknown(draft)
    return ("RollbackFailed", last.message) if last is not None and has_failed(draft, version) else None


def _approval_fault(draft: Draft) -> tuple[str, str] | None:
    """Return reason and sentence where people are asked and approve a version that never waited here."""
    wanted, status = draft.spec.rollout, draft.status
    digest = wanted.approved_version
    if wanted.approval == "Automatic" or digest is None or digest in _approvable(status):
        return None
    return "ApprovalUnknown", _unknown(status, "approvedVersion", digest, "waits for approval")


def _retry_fault(draft: Draft) -> tuple[str, str] | None:
    """Return reason and sentence where a version is to be tried again that was never rejected."""
    status, digest = draft.status, draft.spec.rollout.retry
    if digest is None or digest in _retriable(status):
        return None
    return "RetryUnknown", _unknown(status, "retry", digest, "was rejected (status.rejected)")


def _approvable(status: ModelOptimizationStatus) -> set[str]:
    """Return the digests of what waits, and of what was approved before and may be named still."""
    served = (status.champion, status.candidate, status.original, *status.versions)
    return {version.digest for version in served if version}


def _retriable(status: ModelOptimizationStatus) -> set[str]:
    """Return the digests of what is rejected, and of what retry has brought back."""
    followed = {status.observed_retry} if status.observed_retry else set()
    return {entry.digest for entry in status.rejected} | followed | _approvable(status)


def _unknown(status: ModelOptimizationStatus, field: str, digest: str, what: str) -> str:
    rejected = next((entry for entry in status.rejected if entry.digest == digest), None)
    name = f"version {rejected.version}, which was taken back" if rejected and rejected.version else digest
    return f"spec.rollout.{field} names {name}, and no such version {what}: nothing is done."


def _end_waiting(draft: Draft) -> None:
    """Say that a version is not on its way any more, and does not wait, where no rollout and nobody goes on with it."""
    shown = condition_of(draft.status, ConditionType.ROLLED_OUT)
    if shown is None or shown.status is not ConditionStatus.UNKNOWN or draft.status.rollout is not None:
        return
    waits = draft.status.candidate is not None
    if waits and is_for_git(draft) and shown.reason == PROPOSED:
        return
    may_begin = waits and draft.spec.mode is Mode.AUTOMATIC
    is_asked = draft.spec.rollout.approval == "Manual"
    if may_begin and (shown.reason == UNSETTLED or (shown.reason == AWAITING and is_asked)):
        return
    reason, message = NOT_APPROVED, "the version that waited for approval was dropped, or nobody is asked any more"
    if shown.reason != AWAITING:
        reason, message = WITHDRAWN, "the version that was on its way was given up: the spec or a person wants another"
    draft.condition(ConditionType.ROLLED_OUT, ConditionStatus.FALSE, reason, message)
