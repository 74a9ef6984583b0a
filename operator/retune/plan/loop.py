"""The loop in one place: steps in order, of which the first that holds the pass says where the resource stands.

Reading STEPS from top to bottom is reading what Retune does.
"""

from collections.abc import Callable
from datetime import datetime

from retune.api.status import Stage
from retune.plan import baseline, rollout, run, watch, worth
from retune.plan.actions import Plan
from retune.plan.closing import commands, curing, delivered, history, leftovers, registered, summary
from retune.plan.draft import Draft, Hold
from retune.plan.guards import artifacts, deletion, overtime, ownership, suspension
from retune.plan.kept import is_shown
from retune.plan.observed import Observed

Step = Callable[[Draft], Hold | None]

STEPS: tuple[Step, ...] = (
    rollout.remove_unwanted,
    deletion.undo,
    suspension.freeze,
    overtime.end_overtime,
    ownership.resolve_target,
    ownership.hold_lease,
    watch.judge_windows,
    run.note_pending,
    rollout.roll_back,
    rollout.carry_on,
    rollout.follow_hand,
    run.cancel,
    artifacts.require_store,
    artifacts.require_profile,
    baseline.measure_champion,
    rollout.fall_back,
    ownership.respect_field,
    run.carry_on,
    rollout.stay_pinned,
    rollout.begin,
    rollout.wait_for_person,
)

_STARTS = "a change of the spec or of manualNonce starts a run"
_WATCHED = "signals, a change of the spec or of manualNonce start a run"


def plan(observed: Observed, now: datetime) -> Plan:
    """Return what to write and do, given what was observed. Pure: the same arguments give the same plan."""
    draft = Draft(observed, now)
    lease = ownership.lease_to_acquire(draft)
    if lease is not None:
        return Plan(status=draft.status, actions=(lease,))
    hold = next((hold for step in STEPS if (hold := step(draft)) is not None), None) or _idle(draft)
    watch.keep_to_champion(draft)
    worth.forget(draft)
    commands.say_what_is_followed(draft)
    delivered.say_what_became(draft)
    curing.say_what_would_help(draft)
    registered.keep(draft)
    history.sweep(draft)
    history.record(draft)
    leftovers.note(draft)
    summary.summarize(draft, hold)
    return draft.finish()


def _idle(draft: Draft) -> Hold:
    """Return where the loop stands when nothing is to be done, and why reasons to run wait, if any do."""
    champion, held = draft.status.champion, draft.status.triggers.held
    is_unshown = champion is not None and not is_shown(champion)
    serves = "the champion is given to the target and not shown to serve" if is_unshown else "the champion serves"
    if draft.status.monitoring is None:
        return Hold(Stage.MONITORING, "ChampionServing", f"{serves}; {_STARTS}")
    message = f"{serves} and is watched; {_WATCHED}"
    return Hold(Stage.MONITORING, "ChampionServing", f"{message}. Now: {held}" if held else message)
