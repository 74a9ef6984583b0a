"""The bake: the new version has every pod and all traffic, and is watched for a while before it becomes champion."""

from retune.api.base import seconds
from retune.api.rolling import ActiveRollout
from retune.api.shown import Shown
from retune.api.status import Stage, Version
from retune.plan.draft import Draft, Hold
from retune.plan.rollout.blame import EDITED, excuse
from retune.plan.rollout.listening import listen
from retune.plan.rollout.progress import LOOK_SECONDS, pods_in_words, show, update
from retune.plan.rollout.steps import Done, TurnBack


def bake(draft: Draft, rollout: ActiveRollout, candidate: Version) -> Hold | Done | TurnBack:
    """Watch the version's pods and what they answer, until its time is over and all of them are well."""
    left = draft.remaining(rollout.step_start_time or draft.now, seconds(draft.spec.rollout.bake_time))
    heard = listen(draft, candidate, last=left <= 0)
    setback = crashed(draft, rollout, candidate) or unwell(draft, rollout, candidate)
    if setback is None and heard.reason is not None:
        setback = TurnBack(heard.reason, heard.message, EDITED if rollout.edited else heard.excuse)
    if setback is not None:
        return setback
    target = draft.observed.target
    if left <= 0 and target is not None and target.settled:
        is_watched = seconds(draft.spec.rollout.bake_time) > 0
        return Done(heard.message if is_watched else "It was not watched first: spec.rollout.bakeTime is 0s")
    draft.wake(after=max(1.0, min(LOOK_SECONDS, left)))
    return show(draft, Stage.BAKING, "Baking", _in_words(draft, candidate))


def crashed(draft: Draft, rollout: ActiveRollout, candidate: Version) -> TurnBack | None:
    """Return that the model's container has ended with an error since the bake began."""
    crash = draft.observed.pods.crash
    if crash is None or crash.at < (rollout.step_start_time or draft.now):
        return None
    message = f"version {candidate.version}: {crash.message}"
    return TurnBack("UnhealthyDuringBake", message, EDITED if rollout.edited else None)


def unwell(draft: Draft, rollout: ActiveRollout, candidate: Version) -> TurnBack | None:
    """Note since when not all pods are ready, and return that this has lasted too long."""
    target, deadline = draft.observed.target, draft.spec.rollout.progress_deadline
    if target is not None and (target.settled or target.held is not None):
        update(draft, rollout, unwell_since=None)
        return None
    rollout = update(draft, rollout, unwell_since=rollout.unwell_since or draft.now)
    if draft.remaining(rollout.unwell_since or draft.now, seconds(deadline)) > 0:
        return None
    message = f"version {candidate.version} was not well for {deadline}: {pods_in_words(draft)}"
    return TurnBack("UnhealthyDuringBake", message, excuse(draft, rollout))


def _in_words(draft: Draft, candidate: Version) -> str:
    rollout, target = draft.status.rollout, draft.observed.target
    shown = rollout is None or rollout.shown_by != Shown.NOTHING
    does = "serves" if shown else "is not shown to serve"
    now = "" if target is not None and target.settled else f"; now: {pods_in_words(draft)}"
    return f"version {candidate.version} {does} and is watched for {draft.spec.rollout.bake_time}{now}"
