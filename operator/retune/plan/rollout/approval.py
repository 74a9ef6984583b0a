"""A person's word before a version goes live: it names one version by its digest, and is waited for before all else.

While it is waited for there is no rollout: the champion is watched, a lost bundle is noticed, and others who change the
field are respected as at any time. A version that nobody approves in time is kept, because it has lost nothing by the
absence of a person; only the run ends, so that signals may start others.
"""

from datetime import timedelta

from retune.api.base import seconds
from retune.api.rolling import ActiveRollout
from retune.api.spec import ModelOptimizationSpec
from retune.api.status import ConditionStatus, ConditionType, Outcome, Stage, Version
from retune.plan.draft import Draft, Hold, condition_of
from retune.plan.rollout.steps import Done
from retune.plan.run.conclusion import conclude

AWAITING, EXPIRED = "AwaitingApproval", "ApprovalExpired"


def is_approved(spec: ModelOptimizationSpec, version: Version) -> bool:
    """Whether a version may go live as far as people are asked: none is, or this very version was approved."""
    return spec.rollout.approval == "Automatic" or spec.rollout.approved_version == version.digest


def approval(draft: Draft, _rollout: ActiveRollout, candidate: Version) -> Hold | Done:
    """Wait until a person has approved this very version."""
    return Done() if is_approved(draft.spec, candidate) else _waiting(draft, candidate)


def _waiting(draft: Draft, candidate: Version) -> Hold:
    if candidate.accepted_at is None:  # by a release that did not note it
        candidate = candidate.model_copy(update={"accepted_at": draft.now})
        draft.update(candidate=candidate)
    _expire(draft, candidate)
    message = _in_words(draft, candidate)
    draft.condition(ConditionType.ROLLED_OUT, ConditionStatus.UNKNOWN, AWAITING, message)
    return Hold(Stage.AWAITING_APPROVAL, AWAITING, message)


def _expire(draft: Draft, candidate: Version) -> None:
    """End the run whose version nobody has approved in time; the version stays."""
    if draft.status.run is None:
        return
    limit = draft.spec.rollout.approval_timeout
    left = draft.remaining(candidate.accepted_at or draft.now, seconds(limit))
    if left > 0:
        draft.wake(after=left)
        return
    message = f"version {candidate.version} was not approved within {limit}; it is kept and may still be approved"
    conclude(draft, Outcome.RECOMMENDED, EXPIRED, message)


def _in_words(draft: Draft, candidate: Version) -> str:
    """Return which version waits, why it is proposed, and how it is approved."""
    accepted = condition_of(draft.status, ConditionType.CANDIDATE_ACCEPTED)
    parts = (
        f"version {candidate.version} waits for approval:",
        accepted.message[:400].rstrip(".") + "." if accepted else "it has passed the gate.",
        f"Approve it with `{command(draft, candidate)}`,",
        f"which sets spec.rollout.approvedVersion to {candidate.digest}.",
        _other_word(draft),
        _until(draft, candidate),
    )
    return " ".join(part for part in parts if part)


def command(draft: Draft, candidate: Version) -> str:
    """Return what a person types to approve a version."""
    meta = draft.resource.metadata
    return f"kubectl retune approve {meta.name} {candidate.version} -n {meta.namespace}"


def _other_word(draft: Draft) -> str:
    named = draft.spec.rollout.approved_version
    return f"The field names another version now, {named}, which does not wait." if named else ""


def _until(draft: Draft, candidate: Version) -> str:
    limit = draft.spec.rollout.approval_timeout
    if draft.status.run is None:
        return "Its run has ended; another run takes its place."
    end = (candidate.accepted_at or draft.now) + timedelta(seconds=seconds(limit))
    return f"Its run waits until {end:%Y-%m-%d %H:%M} UTC (rollout.approvalTimeout)."
