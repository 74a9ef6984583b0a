"""A rollout's steps: each looks at what there is, and says to wait, to go on, or to turn back.

A strategy is a list of steps. No step remembers anything: what it needs later is in the status.
"""

from collections.abc import Callable
from dataclasses import dataclass

from retune.api.base import seconds
from retune.api.rolling import ActiveRollout
from retune.api.status import ConditionStatus, ConditionType, Stage, Version
from retune.plan.actions import AcquireLease, InjectModel
from retune.plan.draft import Draft, Hold
from retune.plan.guards.ownership import may_force
from retune.plan.observed import Verb
from retune.plan.rollout import late_pods
from retune.plan.rollout.blame import excuse
from retune.plan.rollout.progress import LOOK_SECONDS, blocked, pods_in_words, present_value, show, update
from retune.plan.rollout.undo import INJECTION_RETRY_SECONDS

HELD = "HeldByTarget"
"""Reason of a rollout that waits for a step of the target's owner."""


@dataclass(frozen=True)
class Done:
    """The step waits for nothing any more."""

    message: str = ""
    """What it has seen, as a sentence."""


@dataclass(frozen=True)
class TurnBack:
    """The champion is to return."""

    reason: str
    message: str
    excuse: str | None
    """Why it is not the version's own doing, which is then not rejected; None where it is."""


Step = Callable[[Draft, ActiveRollout, Version], Hold | Done | TurnBack]


def give(draft: Draft, rollout: ActiveRollout, candidate: Version) -> Hold | Done:
    """Change the owned field, once."""
    if present_value(draft) != candidate.injected_value:
        return _inject(draft, candidate)
    update(draft, rollout, injected=True, start_time=draft.now)
    if candidate.injected_value is None:
        return Done()
    message = f"{draft.spec.target.injection.field} names version {candidate.version} and is owned by Retune"
    draft.condition(ConditionType.TARGET_OWNED, ConditionStatus.TRUE, "FieldOwned", message)
    return Done()


def _inject(draft: Draft, candidate: Version) -> Hold:
    target, container = draft.observed.target, draft.container
    refusal = draft.refusal(Verb.INJECT_MODEL)
    if refusal:
        draft.wake(after=INJECTION_RETRY_SECONDS)
        return blocked(draft, refusal.reason, refusal.message)
    if target and container:
        variable = draft.spec.target.injection.field
        inject = InjectModel(container.name, variable, candidate.injected_value, force=may_force(draft))
        draft.do(AcquireLease(target.uid), inject)
    earlier_refusal = draft.refused_before(ConditionType.TARGET_OWNED)
    if earlier_refusal:
        return blocked(draft, *earlier_refusal)
    return show(draft, Stage.ROLLING_OUT, "Injecting", f"version {candidate.version} is given to the target")


def ready(draft: Draft, rollout: ActiveRollout, candidate: Version) -> Hold | Done | TurnBack:
    """Wait until every pod runs the new version and is available."""
    target = draft.observed.target
    return Done() if target is not None and target.settled else wait_for_pods(draft, rollout, candidate)


def wait_for_pods(draft: Draft, rollout: ActiveRollout, candidate: Version) -> Hold | TurnBack:
    """Wait for pods that are not ready yet, as long as the progress deadline allows."""
    target = draft.observed.target
    if target is not None and target.held is not None:
        return _held(draft, rollout, candidate, target.held)
    deadline = draft.spec.rollout.progress_deadline
    version, left = f"version {candidate.version}", draft.remaining(rollout.start_time, seconds(deadline))
    if left <= 0:
        message = f"{version} was not ready within {deadline}: {pods_in_words(draft)}"
        return TurnBack("ProgressDeadlineExceeded", message, excuse(draft, rollout))
    draft.wake(after=min(LOOK_SECONDS, left))
    if refused := late_pods.replace(draft):
        return show(draft, Stage.ROLLING_OUT, *refused)
    return show(draft, Stage.ROLLING_OUT, "Progressing", f"{version}: {pods_in_words(draft)}")


def _held(draft: Draft, rollout: ActiveRollout, candidate: Version, why: str) -> Hold:
    """Let time stand still while the target's owner has the word, who may take as long as he wants."""
    update(draft, rollout, step_start_time=None)
    draft.wake(after=LOOK_SECONDS)
    message = f"version {candidate.version}: {draft.target_name}: {why}. The progress deadline waits meanwhile"
    return show(draft, Stage.ROLLING_OUT, HELD, message)
