"""A candidate that others give to the target: a promotion by hand, or in mode Propose what Retune has asked for.

The gate has proven the version, and who may change the target may put it there. Nobody has asked its golden requests
and nothing was baked, so it is not said to be shown to serve. What Retune itself has given the target is none of this.
"""

from retune.api import FIELD_MANAGER
from retune.api.shown import Shown
from retune.api.status import ConditionStatus, ConditionType, Outcome, Version
from retune.plan.draft import Draft, Hold
from retune.plan.guards.ownership import remember, say_stored
from retune.plan.rollout.carrying import carry_on
from retune.plan.rollout.proposing import is_for_git, merged
from retune.plan.run.conclusion import conclude

BY_HAND = "PromotedByHand"


def follow_hand(draft: Draft) -> Hold | None:
    """Make the version that waits champion where others have given it to the target; what was proposed is proven."""
    candidate, container = draft.status.candidate, draft.container
    if candidate is None or container is None or draft.status.champion is None or draft.status.rollout is not None:
        return None
    if container.value != candidate.injected_value:
        return None
    if is_for_git(draft):
        draft.update(rollout=merged(draft, candidate))
        return carry_on(draft)
    if container.manager not in {None, FIELD_MANAGER}:
        _promote(draft, candidate, container.manager or "")
    return None


def _promote(draft: Draft, candidate: Version, who: str) -> None:
    message = (
        f"version {candidate.version} was given to {draft.target_name} by hand ({who}) while it "
        "waited: it is champion by that person's word, and Retune has asked it no golden requests"
    )
    conclude(draft, Outcome.PROMOTED, BY_HAND, message)
    remember(draft)
    champion = candidate.model_copy(update={"promoted_at": draft.now, "shown_by": Shown.NOTHING.value})
    draft.update(champion=champion, candidate=None)
    say_stored(draft, champion)
    draft.condition(ConditionType.ROLLED_OUT, ConditionStatus.TRUE, BY_HAND, message)
