"""What holds runs back that signals ask for: the wait after a run, the limit of a day, and the circuit breaker.

A run that brings no gain doubles the wait; three of them in a row, or two rollbacks, open the circuit. A person is
never held back: whatever they change in the spec closes it.
"""

from datetime import datetime, timedelta

from retune.api.base import seconds
from retune.api.status import ConditionStatus, ConditionType, Outcome
from retune.api.triggers import TriggerReason
from retune.api.watched import TriggersStatus
from retune.plan.draft import Draft, condition_of

_DAY = timedelta(days=1)
_STARTS_LIMIT = 24
"""Starts of a day that a status has room for."""
_NO_GAINS = 3
_ROLLBACKS = 2
EXHAUSTED, ROLLBACK_LOOP = "Exhausted", "RollbackLoop"
SIGNAL_REASONS = (
    TriggerReason.QUALITY_DEGRADATION,
    TriggerReason.SEGMENT_DEGRADATION,
    TriggerReason.DRIFT,
    TriggerReason.HEADROOM,
    TriggerReason.PERFORMANCE_DEGRADATION,
    TriggerReason.ARTIFACT_CHANGE,
    TriggerReason.SCHEDULE,
)
"""Reasons that come from watching and not from a person, the most urgent first."""
_WITHOUT_GAIN = {Outcome.NO_GAIN, Outcome.GATE_FAILED, Outcome.FAILED}
_CLOSED: dict[str, object] = {
    "circuit": None,
    "circuit_generation": None,
    "no_gain_streak": 0,
    "rollback_streak": 0,
}


def close_for_person(draft: Draft) -> None:
    """Close a circuit that has opened before the spec was last changed: a person has seen to it."""
    state, generation = draft.status.triggers, draft.resource.metadata.generation
    if state.circuit is None:
        return
    opened = state.circuit_generation
    if opened is None:  # a release opened it that did not note when: the last pass that it made is late enough
        opened = draft.status.observed_generation or generation
    changes = _CLOSED if generation > opened else {"circuit_generation": opened}
    draft.update(triggers=state.model_copy(update=changes))


def held(draft: Draft) -> str | None:
    """Return why no signal may start a run now; None when one may."""
    state, spec, now = draft.status.triggers, draft.spec.triggers, draft.now
    if state.circuit is not None:
        return f"circuit open ({state.circuit}): change the spec, as by a new manualNonce, to let runs start again"
    if state.cooldown_until is not None and now < state.cooldown_until:
        draft.wake(after=max(1.0, (state.cooldown_until - now).total_seconds()))
        return f"cooling down until {state.cooldown_until:%Y-%m-%d %H:%M:%S} UTC"
    recent = _recent_starts(draft)
    if len(recent) >= spec.max_runs_per_day:
        draft.wake(after=max(1.0, (min(recent) + _DAY - now).total_seconds()))
        return f"{len(recent)} runs were started by signals in 24 hours (triggers.maxRunsPerDay)"
    return None


def _recent_starts(draft: Draft) -> list[datetime]:
    return [start for start in draft.status.triggers.starts if draft.now - start < _DAY]


def note_start(draft: Draft, reason: str) -> None:
    """Note that a run started: a signal's counts against the day, a person's closes the circuit."""
    state = draft.status.triggers
    if reason in SIGNAL_REASONS:
        starts = (*_recent_starts(draft), draft.now)[-_STARTS_LIMIT:]
        changes: dict[str, object] = {"starts": starts, "pending": (), "held": None}
        if any(pending.reason == TriggerReason.SCHEDULE for pending in state.pending):
            changes["scheduled"] = draft.now
    else:
        changes = _CLOSED | {"held": None}
    draft.update(triggers=state.model_copy(update=changes))
    show_circuit(draft)


def note_end(draft: Draft, outcome: Outcome) -> None:
    """Note how a run ended: one without gain doubles the next wait, and several in a row open the circuit."""
    if outcome is Outcome.CANCELLED:
        return
    spec, state = draft.spec.triggers, draft.status.triggers
    no_gains = _no_gains_in_a_row(state, outcome)
    rollbacks = _rollbacks_in_a_row(draft, outcome)
    exhausted = EXHAUSTED if no_gains >= _NO_GAINS else state.circuit
    circuit = ROLLBACK_LOOP if rollbacks >= _ROLLBACKS else exhausted
    wait = seconds(spec.cooldown) * 2 ** min(no_gains, 20)
    if no_gains:
        wait = max(wait, _until_more_is_seen(draft))
    changes = {
        "no_gain_streak": no_gains,
        "rollback_streak": rollbacks,
        "circuit": circuit,
        "circuit_generation": draft.resource.metadata.generation if circuit else None,
        "cooldown_until": draft.now + timedelta(seconds=min(wait, seconds(spec.max_cooldown))),
    }
    draft.update(triggers=state.model_copy(update=changes))
    show_circuit(draft)


def _until_more_is_seen(draft: Draft) -> float:
    """Return the seconds of a window: after a run without gain, another on the same rows brings none either."""
    monitoring = draft.spec.monitoring
    return seconds(monitoring.window) if monitoring else 0.0


def _no_gains_in_a_row(before: TriggersStatus, outcome: Outcome) -> int:
    """Return the runs without gain in a row; a rollback leaves the row as it is, as it was no lack of a candidate."""
    if outcome in _WITHOUT_GAIN:
        return before.no_gain_streak + 1
    return 0 if outcome.successful else before.no_gain_streak


def _rollbacks_in_a_row(draft: Draft, outcome: Outcome) -> int:
    """Return the rollbacks in a row, which only a promotion ends: a run without a candidate has tried no rollout.

    Whosever doing a rollback was: where surroundings fail every rollout, trying on would move pods for ever.
    """
    before = draft.status.triggers.rollback_streak
    if outcome is not Outcome.ROLLED_BACK:
        return 0 if outcome is Outcome.PROMOTED else before
    return before + 1


def show_circuit(draft: Draft) -> None:
    """Set the condition CircuitOpen; a resource that is not watched has it only once the circuit was open."""
    state = draft.status.triggers
    if state.circuit is not None:
        draft.condition(ConditionType.CIRCUIT_OPEN, ConditionStatus.TRUE, state.circuit, _why_open(state))
    elif draft.status.monitoring is not None or condition_of(draft.status, ConditionType.CIRCUIT_OPEN) is not None:
        draft.condition(ConditionType.CIRCUIT_OPEN, ConditionStatus.FALSE, "Closed", "signals may start runs")


def _why_open(state: TriggersStatus) -> str:
    until = "the spec changes, as by a new manualNonce"
    if state.circuit == ROLLBACK_LOOP:
        taken_back = f"{state.rollback_streak} rollouts in a row were taken back"
        return f"{taken_back}: nothing goes live by itself, and signals start no more runs, until {until}"
    return f"{state.no_gain_streak} runs in a row brought nothing: signals start no more until they clear, {until}"
