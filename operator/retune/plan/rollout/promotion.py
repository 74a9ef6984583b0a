"""The end that every rollout hopes for: the version is champion, and what is said of it is what was seen."""

from retune.api.rolling import ActiveRollout
from retune.api.status import ConditionStatus, ConditionType, Outcome, Version
from retune.plan import worth
from retune.plan.draft import Draft, condition_of
from retune.plan.guards.ownership import remember
from retune.plan.kept import is_shown
from retune.plan.run.conclusion import conclude

_HOW_TO_SHOW = "set spec.target.inference, and have the server name its bundle in parameters.bundle_digest"


def promote(draft: Draft, rollout: ActiveRollout, candidate: Version, heard: str) -> None:
    """Make the candidate champion; `heard` says what live traffic has shown, as a sentence."""
    champion = candidate.model_copy(update={"promoted_at": draft.now, "shown_by": rollout.shown_by})
    accepted = condition_of(draft.status, ConditionType.CANDIDATE_ACCEPTED)
    judged = accepted.message if accepted else ""
    beside = f"{rollout.analysis}." if rollout.analysis else ""
    message = " ".join(part for part in (_claim(champion), judged, beside, f"{heard}.") if part)
    conclude(draft, Outcome.PROMOTED, accepted.reason if accepted else "Promoted", message)
    remember(draft)
    draft.update(champion=champion, candidate=None, rollout=None)
    worth.note_promoted(draft, champion)
    draft.condition(ConditionType.ROLLED_OUT, ConditionStatus.TRUE, "Promoted", message)


def _claim(champion: Version) -> str:
    if not is_shown(champion):
        return f"version {champion.version} is champion but not shown to serve: {_HOW_TO_SHOW}."
    return f"version {champion.version} is champion."
