"""From raised signals to a run: what waits, why it still waits, and what a run that ended changes about that.

Reasons that wait are read off the signals every time, so nothing is queued; whatever holds them back is told.
"""

from datetime import timedelta

from retune.api.base import seconds
from retune.api.monitoring import LiveKind, TriggerReason
from retune.api.objects import Trigger
from retune.api.status import ConditionStatus, ConditionType, Outcome
from retune.api.watched import Pending, Signal, Verdict
from retune.plan.draft import Draft
from retune.plan.run.schedule import ScheduleError, due_since, seconds_until
from retune.plan.watch import alarms

_DAY = timedelta(days=1)
_NO_GAINS = 3
_ROLLBACKS = 2
EXHAUSTED, ROLLBACK_LOOP = "Exhausted", "RollbackLoop"
_ORDER = (
    TriggerReason.QUALITY_DEGRADATION, TriggerReason.DRIFT, TriggerReason.PERFORMANCE_DEGRADATION,
    TriggerReason.ARTIFACT_CHANGE, TriggerReason.SCHEDULE,
)  # fmt: skip
_WITHOUT_GAIN = {Outcome.NO_GAIN, Outcome.GATE_FAILED, Outcome.FAILED}


def note_pending(draft: Draft) -> None:
    """Write down which reasons wait, and close the circuit when none does any more."""
    state, known = draft.status.triggers, {one.reason: one for one in draft.status.triggers.pending}
    found = _raised(draft)
    pending = tuple(
        Pending(
            reason=reason, since=known[reason].since if reason in known else draft.now, message=found[reason][:1024]
        )
        for reason in _ORDER
        if reason in found
    )
    changes: dict[str, object] = {"pending": pending}
    if not pending:
        changes["held"] = None
        if state.circuit == EXHAUSTED:
            changes |= {"circuit": None, "no_gain_streak": 0}
    draft.update(triggers=state.model_copy(update=changes))
    _tell_circuit(draft)


def _raised(draft: Draft) -> dict[TriggerReason, str]:
    """Return every reason that the spec lets start a run and that holds now, with its sentence."""
    allowed, found = set(draft.spec.triggers.signals), dict[TriggerReason, str]()
    quality, speed = _quality(draft), _speed(draft)
    drift = _named(draft, alarms.DRIFT)
    if quality is not None:
        found[TriggerReason.QUALITY_DEGRADATION] = quality.message
    if speed is not None:
        found[TriggerReason.PERFORMANCE_DEGRADATION] = speed.message
    if drift is not None and drift.raised and _uncorroborated(draft) is None:
        found[TriggerReason.DRIFT] = drift.message
    found |= _artifact(draft) | _schedule(draft)
    return {reason: message for reason, message in found.items() if reason in allowed}


def _signals(draft: Draft) -> tuple[Signal, ...]:
    return draft.status.monitoring.signals if draft.status.monitoring else ()


def _named(draft: Draft, name: str) -> Signal | None:
    return next((signal for signal in _signals(draft) if signal.name == name), None)


def _live(draft: Draft, *kinds: LiveKind) -> list[Signal]:
    spec = draft.spec.monitoring
    names = {one.name for one in spec.performance.signals if one.kind in kinds} if spec and spec.performance else set()
    return [signal for signal in _signals(draft) if signal.name in names]


def _quality(draft: Draft) -> Signal | None:
    watched = [_named(draft, alarms.QUALITY), *_live(draft, LiveKind.QUALITY)]
    return next((signal for signal in watched if signal is not None and signal.raised), None)


def _speed(draft: Draft) -> Signal | None:
    """Return a raised signal of speed; too little capacity and errors are told, but are no reason to optimize."""
    watched = _live(draft, LiveKind.LATENCY, LiveKind.THROUGHPUT)
    raised = (signal for signal in watched if signal.raised and signal.reason != alarms.CAPACITY_LIMITED)
    return next(raised, None)


def _uncorroborated(draft: Draft) -> str | None:
    """Return why drift alone starts nothing, or None when it may: it is corroborated, or nothing else could be seen."""
    if draft.spec.triggers.corroboration == "None":
        return None
    if _quality(draft) is not None or _speed(draft) is not None:
        return None
    estimate, measured = _named(draft, alarms.ESTIMATE), _named(draft, alarms.QUALITY)
    if any(one is not None and one.verdict is Verdict.BREACH for one in (estimate, measured)):
        return None
    if not any(one is not None and one.verdict is not Verdict.UNKNOWN for one in (estimate, measured)):
        return None
    return "drift alone starts nothing: quality is not seen to suffer (triggers.corroboration)"


def _artifact(draft: Draft) -> dict[TriggerReason, str]:
    """Return that another file was delivered since the last run, when there was one."""
    original, last = draft.status.original, draft.status.last_run
    if draft.spec.model.update_policy != "Follow" or original is None or last is None or original.version == 1:
        return {}
    if original.spec_hash is None or last.original_version == original.version:
        return {}
    message = f"another file was delivered at {draft.spec.model.uri}: version {original.version}"
    return {TriggerReason.ARTIFACT_CHANGE: message}


def _schedule(draft: Draft) -> dict[TriggerReason, str]:
    spec, state = draft.spec.triggers, draft.status.triggers
    if spec.schedule is None or "Schedule" not in spec.signals or draft.status.last_run is None:
        return {}
    since = max(state.scheduled or draft.status.last_run.completion_time, draft.status.last_run.completion_time)
    try:
        moment = due_since(spec.schedule, spec.time_zone, since=since, now=draft.now)
    except ScheduleError:  # told by `due`
        return {}
    left = seconds_until(spec.schedule, spec.time_zone, now=draft.now)
    if left is not None:
        draft.wake(after=max(1.0, left))
    return {TriggerReason.SCHEDULE: f"scheduled for {moment:%Y-%m-%d %H:%M} UTC"} if moment else {}


def _schedule_error(draft: Draft) -> str | None:
    spec = draft.spec.triggers
    try:
        due_since(spec.schedule or "* * * * *", spec.time_zone, since=draft.now, now=draft.now)
    except ScheduleError as error:
        return str(error)
    return None


def due(draft: Draft) -> Trigger | None:
    """Return the run that waiting reasons start now, or None; why they wait is told."""
    state = draft.status.triggers
    if not state.pending:
        _say_held(draft, _drift_words(draft) or _schedule_error(draft))
        return None
    held = _held(draft)
    _say_held(draft, held)
    if held is not None:
        return None
    first, *others = state.pending
    also = f" (also {', '.join(one.reason for one in others)})" if others else ""
    return Trigger(reason=first.reason, message=f"{first.message}{also}"[:1024])


def _drift_words(draft: Draft) -> str | None:
    drift = _named(draft, alarms.DRIFT)
    raised = drift is not None and drift.raised and "Drift" in draft.spec.triggers.signals
    return _uncorroborated(draft) if raised else None


def _held(draft: Draft) -> str | None:
    state, spec, now = draft.status.triggers, draft.spec.triggers, draft.now
    if state.circuit is not None:
        return f"circuit open ({state.circuit}): change the spec, or set manualNonce, to let runs start again"
    if state.cooldown_until is not None and now < state.cooldown_until:
        left = (state.cooldown_until - now).total_seconds()
        draft.wake(after=max(1.0, left))
        return f"cooling down until {state.cooldown_until:%Y-%m-%d %H:%M:%S} UTC"
    recent = [start for start in state.starts if now - start < _DAY]
    if len(recent) >= spec.max_runs_per_day:
        draft.wake(after=max(1.0, (min(recent) + _DAY - now).total_seconds()))
        return f"{len(recent)} runs were started by signals in 24 hours (triggers.maxRunsPerDay)"
    return None


def _say_held(draft: Draft, held: str | None) -> None:
    if held != draft.status.triggers.held:
        draft.update(triggers=draft.status.triggers.model_copy(update={"held": held}))


def started(draft: Draft, reason: str) -> None:
    """Note that a run started: a signal's counts against the day, a person's closes the circuit."""
    state = draft.status.triggers
    if reason in _ORDER:
        starts = (*(start for start in state.starts if draft.now - start < _DAY), draft.now)[-24:]
        changes: dict[str, object] = {"starts": starts, "pending": (), "held": None}
        changes |= {"scheduled": draft.now} if any(one.reason == "Schedule" for one in state.pending) else {}
    else:
        changes = {"circuit": None, "no_gain_streak": 0, "rollback_streak": 0, "held": None}
    draft.update(triggers=state.model_copy(update=changes))
    _tell_circuit(draft)


def ended(draft: Draft, outcome: Outcome) -> None:
    """Note how a run ended: what brings nothing makes the next wait twice as long, and in the end stops them."""
    if outcome is Outcome.CANCELLED:
        return
    spec, state = draft.spec.triggers, draft.status.triggers
    gains = 0 if outcome.successful and outcome is not Outcome.NO_GAIN else state.no_gain_streak
    streak = gains + 1 if outcome in _WITHOUT_GAIN else gains
    rollbacks = _rollbacks_in_a_row(state.rollback_streak, outcome)
    wait = min(seconds(spec.max_cooldown), seconds(spec.cooldown) * 2 ** min(streak, 20))
    circuit = ROLLBACK_LOOP if rollbacks >= _ROLLBACKS else EXHAUSTED if streak >= _NO_GAINS else state.circuit
    draft.update(
        triggers=state.model_copy(
            update={
                "no_gain_streak": streak, "rollback_streak": rollbacks, "circuit": circuit,
                "cooldown_until": draft.now + timedelta(seconds=wait),
            }
        )
    )  # fmt: skip
    _tell_circuit(draft)


def _rollbacks_in_a_row(before: int, outcome: Outcome) -> int:
    """Only a promotion ends the row: a run that brought no candidate says nothing about how the next would go."""
    if outcome is Outcome.ROLLED_BACK:
        return before + 1
    return 0 if outcome is Outcome.PROMOTED else before


def _tell_circuit(draft: Draft) -> None:
    state = draft.status.triggers
    if state.circuit is None:
        if draft.status.monitoring is not None:
            draft.condition(ConditionType.CIRCUIT_OPEN, ConditionStatus.FALSE, "Closed", "signals may start runs")
        return
    words = {
        EXHAUSTED: f"{state.no_gain_streak} runs in a row brought nothing: signals start no more until they clear, the "
        "spec changes or manualNonce is set",
        ROLLBACK_LOOP: f"{state.rollback_streak} runs in a row were rolled back: signals start no more until the spec "
        "changes or manualNonce is set",
    }  # fmt: skip
    draft.condition(ConditionType.CIRCUIT_OPEN, ConditionStatus.TRUE, state.circuit, words[state.circuit])
