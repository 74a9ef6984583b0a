"""Reasons to run that watching gives: which of them wait, and which one starts a run once nothing holds it back.

They are read off the signals in every pass, so nothing is queued; whatever holds them back is shown in the status.
"""

from retune.api.monitoring import LiveKind
from retune.api.objects import Trigger
from retune.api.triggers import TriggerReason
from retune.api.watched import Pending, Signal, Verdict
from retune.plan.draft import Draft
from retune.plan.guards import delivery
from retune.plan.run import brakes, fresh_data
from retune.plan.run.schedule import ScheduleError, due_since, seconds_until
from retune.plan.watch.alarms import DRIFT, ESTIMATE, HEADROOM, QUALITY, SEGMENT
from retune.plan.watch.live_verdicts import CAPACITY_LIMITED


def note_pending(draft: Draft) -> None:
    """Write down which reasons wait, and close the circuit when none does any more, or when a person has acted."""
    brakes.close_for_person(draft)
    state, messages = draft.status.triggers, _reasons(draft)
    since = {pending.reason: pending.since for pending in state.pending}
    pending = tuple(
        Pending(reason=reason, since=since.get(reason, draft.now), message=messages[reason][:1024])
        for reason in brakes.SIGNAL_REASONS
        if reason in messages
    )
    changes: dict[str, object] = {"pending": pending}
    if not pending:
        changes["held"] = None
        if state.circuit == brakes.EXHAUSTED:
            changes |= {"circuit": None, "circuit_generation": None, "no_gain_streak": 0}
    draft.update(triggers=state.model_copy(update=changes))
    brakes.show_circuit(draft)


def _reasons(draft: Draft) -> dict[TriggerReason, str]:
    """Return every reason that the spec lets start a run and that holds now, with its sentence."""
    messages = _artifact(draft) | _schedule(draft)
    quality, segment = _raised_quality(draft), _raised_segment(draft)
    speed, drift = _raised_speed(draft), _raised_drift(draft)
    if quality is not None:
        messages[TriggerReason.QUALITY_DEGRADATION] = quality.message
    if segment is not None:
        messages[TriggerReason.SEGMENT_DEGRADATION] = segment.message
    if speed is not None:
        messages[TriggerReason.PERFORMANCE_DEGRADATION] = speed.message
    if drift is not None and _uncorroborated(draft) is None:
        messages[TriggerReason.DRIFT] = drift.message
    headroom = _signal(draft, HEADROOM)
    if headroom is not None and headroom.raised and draft.spec.learns:
        messages[TriggerReason.HEADROOM] = headroom.message
    allowed = set(draft.spec.triggers.signals)
    return {reason: message for reason, message in messages.items() if reason in allowed}


def _signals(draft: Draft) -> tuple[Signal, ...]:
    return draft.status.monitoring.signals if draft.status.monitoring else ()


def _signal(draft: Draft, name: str) -> Signal | None:
    return next((signal for signal in _signals(draft) if signal.name == name), None)


def _live_signals(draft: Draft, *kinds: LiveKind) -> list[Signal]:
    spec = draft.spec.monitoring
    live = spec.performance.signals if spec and spec.performance else ()
    names = {signal.name for signal in live if signal.kind in kinds}
    return [signal for signal in _signals(draft) if signal.name in names]


def _raised_drift(draft: Draft) -> Signal | None:
    drift = _signal(draft, DRIFT)
    return drift if drift is not None and drift.raised else None


def _raised_quality(draft: Draft) -> Signal | None:
    watched = [_signal(draft, QUALITY), *_live_signals(draft, LiveKind.QUALITY)]
    return next((signal for signal in watched if signal is not None and signal.raised), None)


def _raised_segment(draft: Draft) -> Signal | None:
    spec, segment = draft.spec.monitoring, _signal(draft, SEGMENT)
    watched = spec is not None and spec.segmenting is not None
    return segment if watched and segment is not None and segment.raised else None


def _raised_speed(draft: Draft) -> Signal | None:
    """Return a raised signal of speed; too little capacity and errors are shown, but are no reason to optimize."""
    watched = _live_signals(draft, LiveKind.LATENCY, LiveKind.THROUGHPUT)
    raised = (signal for signal in watched if signal.raised and signal.reason != CAPACITY_LIMITED)
    return next(raised, None)


def _uncorroborated(draft: Draft) -> str | None:
    """Return why drift alone starts nothing, or None when it may: it is corroborated, or nothing else could be seen."""
    if draft.spec.triggers.corroboration == "None":
        return None
    if _raised_quality(draft) is not None or _raised_speed(draft) is not None:
        return None
    quality = (_signal(draft, ESTIMATE), _signal(draft, QUALITY))
    verdicts = {signal.verdict for signal in quality if signal is not None} - {Verdict.UNKNOWN}
    if not verdicts or Verdict.BREACH in verdicts:
        return None
    if verdicts == {Verdict.UNTRUSTED}:
        return (
            "drift alone starts nothing: quality cannot be estimated on such rows, label some (triggers.corroboration)"
        )
    return "drift alone starts nothing: quality is not seen to suffer (triggers.corroboration)"


def _artifact(draft: Draft) -> dict[TriggerReason, str]:
    """Return that another file was delivered since the last run, when there was one."""
    original, last = draft.status.original, draft.status.last_run
    if draft.spec.model.update_policy != "Follow" or original is None or last is None or original.version == 1:
        return {}
    is_optimized = last.original_version == original.version and not delivery.is_followed(draft)
    if original.spec_hash is None or is_optimized:
        return {}
    message = f"another file was delivered at {draft.spec.model.uri}: version {original.version}"
    return {TriggerReason.ARTIFACT_CHANGE: message}


def _schedule(draft: Draft) -> dict[TriggerReason, str]:
    """Return that the schedule has come due since the last run."""
    spec, last = draft.spec.triggers, draft.status.last_run
    if spec.schedule is None or "Schedule" not in spec.signals or last is None:
        return {}
    since = max(draft.status.triggers.scheduled or last.completion_time, last.completion_time)
    try:
        moment = due_since(spec.schedule, spec.time_zone, since=since, now=draft.now)
    except ScheduleError:  # shown by `due`
        return {}
    wait = seconds_until(spec.schedule, spec.time_zone, now=draft.now)
    if wait is not None:
        draft.wake(after=max(1.0, wait))
    return {TriggerReason.SCHEDULE: f"scheduled for {moment:%Y-%m-%d %H:%M} UTC"} if moment else {}


def due(draft: Draft) -> Trigger | None:
    """Return the run that waiting reasons start now, or None; why they wait is shown in the status."""
    pending = draft.status.triggers.pending
    if not pending:
        show_held(draft, _why_drift_waits(draft) or _schedule_error(draft))
        return None
    waits = {reason.reason: fresh_data.why_wait(draft, reason.reason) for reason in pending}
    ready = [reason for reason in pending if waits[reason.reason] is None]
    held = brakes.held(draft) or (None if ready else waits[pending[0].reason])
    show_held(draft, held)
    if held is not None:
        return None
    first, others = ready[0], [reason for reason in pending if reason != ready[0]]
    also = f" (also {', '.join(other.reason for other in others)})" if others else ""
    return Trigger(reason=first.reason, message=f"{first.message}{also}"[:1024])


def _why_drift_waits(draft: Draft) -> str | None:
    watched = "Drift" in draft.spec.triggers.signals and _raised_drift(draft) is not None
    return _uncorroborated(draft) if watched else None


def _schedule_error(draft: Draft) -> str | None:
    spec = draft.spec.triggers
    try:
        due_since(spec.schedule or "* * * * *", spec.time_zone, since=draft.now, now=draft.now)
    except ScheduleError as error:
        return str(error)
    return None


def show_held(draft: Draft, held: str | None) -> None:
    """Show what keeps signals from starting a run."""
    if held != draft.status.triggers.held:
        draft.update(triggers=draft.status.triggers.model_copy(update={"held": held}))
