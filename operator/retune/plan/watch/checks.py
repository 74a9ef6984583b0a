"""Checks of captured data: one Job a window, whose verdict is adopted once.

A check's Job is named by its window, so that nothing has to be written before it is created: an operator that was
restarted finds it under its name. Checks never hold the loop up, and a check that fails is not repeated: the next
window is judged.
"""

from retune.api.base import seconds
from retune.api.monitoring import Monitoring, Quality, Segments
from retune.api.status import ConditionStatus, ConditionType, Version
from retune.api.watched import MovedColumn, Signal, Verdict
from retune.contract.requests import CheckRequest, Followed, Window
from retune.contract.results import CheckResult, ColumnDrift, SignalVerdict
from retune.plan import names
from retune.plan.actions import CreateJob
from retune.plan.baseline.attempts import measure_again
from retune.plan.baseline.stored import is_lost, look_for_bundles, note_seen
from retune.plan.draft import Draft, bundle_of, condition_of
from retune.plan.hashing import monitoring_hash
from retune.plan.jobs import progress_of, without_result
from retune.plan.observed import OBJECT_MISSING, Job, JobPhase, Verb
from retune.plan.store import retention_fault
from retune.plan.watch import alarms, segments, windows
from retune.plan.watch.state import moved_to, state_of

_FINISHED = {JobPhase.SUCCEEDED, JobPhase.FAILED}
_NOTHING_SEEN: dict[str, object] = {
    "samples": None,
    "drift_share": None,
    "drifted_columns": (),
    "moved": (),
    "violations": (),
    "report_uri": None,
}
"""What the status says of the last window when that could not be judged."""


def are_wanted(draft: Draft, spec: Monitoring) -> bool:
    """Whether there is anything that a check's Job looks at: captured rows, or the delivered file."""
    return spec.production is not None or draft.spec.model.update_policy == "Follow"


def pending_checks(draft: Draft) -> dict[int, Job]:
    """Return the Jobs of checks that are not adopted yet, by window.

    A number far ahead of the clock is from when windows were shorter: if it counted, no later window would be new.
    """
    state = draft.status.monitoring
    if state is None:
        return {}
    first = windows.first_unjudged(state)
    last = windows.newest_over(draft.now, state.window_seconds, 0.0) + 1  # another node's clock may be ahead
    jobs = ((names.checked_window(draft.resource.metadata.name, job.name), job) for job in draft.observed.jobs.values())
    return {window: job for window, job in jobs if window is not None and first <= window <= last}


def adopt(draft: Draft, spec: Monitoring) -> None:
    """Adopt the newest finished check, once; older ones that it has overtaken count as passed over."""
    finished = {
        window: job
        for window, job in pending_checks(draft).items()
        if job.phase in _FINISHED or draft.failure_of(job) is not None
    }
    if not finished:
        return
    window = max(finished)
    result = finished[window].result
    if isinstance(result, CheckResult) and result.window == window and result.spec_hash == _hash(draft, spec):
        _take(draft, spec, result)
    else:
        _pass_over(draft, window, finished[window])


def _hash(draft: Draft, spec: Monitoring) -> str:
    return monitoring_hash(spec, draft.spec.model, draft.spec.data, state_of(draft).champion_digest)


def _take(draft: Draft, spec: Monitoring, result: CheckResult) -> None:
    state = moved_to(draft, result.window)
    signals = _signals_after(draft, spec, state.signals, result)
    measured = result.quality if result.quality and not result.quality.estimated else None
    changes = {
        "samples": result.samples,
        "violations": result.violations,
        "report_uri": result.report,
        "drift_share": result.drift.value if result.drift else None,
        "drifted_columns": tuple(column.name for column in result.columns if column.drifted)[:16],
        "moved": _moved(result),
        "labelled_rows": state.labelled_rows if result.labelled_rows is None else result.labelled_rows,
        "quality": measured.value if measured and measured.value is not None else state.quality,
        **segments.after_check(state.segments, signals, result, spec.segmenting, now=draft.now),
    }
    draft.update(monitoring=state.model_copy(update=changes))
    draft.condition(ConditionType.MONITORING_RELIABLE, *_reliability(result))
    note_seen(draft)
    _follow_artifact(draft, result)


def _moved(result: CheckResult) -> tuple[MovedColumn, ...]:
    """Return the first eight drifted columns, each name once: a list by name has no second."""
    columns: dict[str, ColumnDrift] = {}
    for column in result.columns:
        if column.drifted:
            columns.setdefault(column.name, column)
    return tuple(
        MovedColumn(
            name=column.name,
            size=column.score,
            measure=column.method,
            carries=column.carries,
            looks_like=column.looks_like,
        )
        for column in list(columns.values())[:8]
    )


def _signals_after(
    draft: Draft, spec: Monitoring, before: tuple[Signal, ...], result: CheckResult
) -> tuple[Signal, ...]:
    signals = {signal.name: signal for signal in before}
    if result.drift is not None and spec.drifting:
        drift = signals.get(alarms.DRIFT) or Signal(name=alarms.DRIFT)
        rule = alarms.Rule(spec.drifting.consecutive)
        signals[alarms.DRIFT] = alarms.after_window(drift, result.drift, window=result.window, rule=rule, now=draft.now)
    if result.quality is not None and spec.judging:
        name = alarms.ESTIMATE if result.quality.estimated else alarms.QUALITY
        quality = signals.get(name) or Signal(name=name)
        signals[name] = _quality_after(draft, spec.judging, quality, result, result.quality)
    if result.headroom is not None and spec.learning:
        headroom = signals.get(alarms.HEADROOM) or Signal(name=alarms.HEADROOM)
        signals[alarms.HEADROOM] = _headroom_after(draft, headroom, result, result.headroom)
    return tuple(signals.values())


def _quality_after(
    draft: Draft, spec: Quality, signal: Signal, result: CheckResult, judgement: SignalVerdict
) -> Signal:
    """Return the signal after a window's quality, which counts once, whichever check brings it.

    An estimate is a signal of its own, which is never raised.
    """
    labelled = None if judgement.estimated else result.labelled_window
    window = result.window if labelled is None else labelled
    if signal.window is not None and window <= signal.window:
        return signal
    rule = alarms.Rule(None if judgement.estimated else spec.consecutive)
    return alarms.after_window(signal, judgement, window=window, rule=rule, now=draft.now)


def _headroom_after(draft: Draft, signal: Signal, result: CheckResult, judgement: SignalVerdict) -> Signal:
    """Return the signal after a labelled window's headroom, which counts once, whichever check brings it.

    It is judged together with the windows before it, so that a single verdict raises it.
    """
    window = result.window if result.labelled_window is None else result.labelled_window
    if signal.window is not None and window <= signal.window:
        return signal
    rule = alarms.Rule(1)
    return alarms.after_window(signal, judgement, window=window, rule=rule, now=draft.now)


def _reliability(result: CheckResult) -> tuple[ConditionStatus, str, str]:
    """Return whether the windows can be judged: not where drift cannot, because data is missing or does not fit."""
    drift = result.drift
    if drift is not None and drift.verdict is Verdict.UNKNOWN:
        return ConditionStatus.FALSE, drift.reason, drift.message
    set_aside = f", {result.set_aside} rows or files set aside" if result.set_aside else ""
    return ConditionStatus.TRUE, "Judged", f"window {result.window}: {result.samples} rows{set_aside}"


def _follow_artifact(draft: Draft, result: CheckResult) -> None:
    """Measure the delivered file anew when it is not the one that was measured; the run follows by itself."""
    original = draft.status.original
    if original is None or original.model_digest is None or result.artifact_digest in {None, original.model_digest}:
        return
    if draft.status.run is None and draft.status.rollout is None:
        measure_again(draft)


def _pass_over(draft: Draft, window: int, job: Job) -> None:
    """Note a check without a verdict: signals keep their state, the reason is shown, and the next window is judged."""
    reason, message = _why_no_verdict(draft, window, job)
    state = moved_to(draft, window)
    signals = tuple(
        alarms.after_unjudged_window(signal, reason=reason, message=message)
        if signal.name in alarms.CHECKED
        else signal
        for signal in state.signals
    )
    draft.update(monitoring=state.model_copy(update={"signals": signals, **_NOTHING_SEEN}))
    draft.condition(ConditionType.MONITORING_RELIABLE, ConditionStatus.FALSE, reason, message)
    _look_for_bundles(draft, job)


def _look_for_bundles(draft: Draft, job: Job) -> None:
    """Have a bundle looked for that a check has missed, once; a run under way finds out by itself."""
    failure, idle = draft.failure_of(job), draft.status.run is None and draft.status.rollout is None
    if failure is not None and idle and not is_lost(draft):
        look_for_bundles(draft, failure)


def _why_no_verdict(draft: Draft, window: int, job: Job) -> tuple[str, str]:
    failure = draft.failure_of(job)
    if failure is not None:
        return failure.reason, failure.message
    if isinstance(job.result, CheckResult):
        return "SettingsChanged", f"window {window} was judged by other settings or for another champion"
    missing = without_result(job, "a verdict on its window")
    return missing.reason, missing.message


def start(draft: Draft, spec: Monitoring, champion: Version) -> None:
    """Start the check of the newest window that is over, unless it was judged, another runs, or two versions serve."""
    state = state_of(draft)
    delay = windows.own_delay(draft.resource.key, spec, state.window_seconds)
    draft.wake(after=max(1.0, windows.seconds_until_next(draft.now, state.window_seconds, delay)))
    window, pending = windows.newest_over(draft.now, state.window_seconds, delay), pending_checks(draft)
    if pending:
        _show_what_is_missing(draft, pending[max(pending)])
    if window < windows.first_unjudged(state) or pending or draft.status.rollout is not None:
        return
    refusal = _refusal(draft, spec)
    if refusal is not None:
        draft.condition(ConditionType.MONITORING_RELIABLE, ConditionStatus.FALSE, *refusal)
    elif draft.store is not None:
        name = names.check_job(draft.resource.metadata.name, window)
        request = _request(draft, spec, champion, draft.store, window)
        draft.do(CreateJob(name, request, cpu_limit=None))


def _refusal(draft: Draft, spec: Monitoring) -> tuple[str, str] | None:
    """Return reason and sentence where a check may not be started, or could not do what the spec asks of it."""
    refusal, default = draft.refusal(Verb.CREATE_JOB), draft.observed.defaults.artifact_store
    if refusal is not None:
        return refusal.reason, refusal.message
    if spec.production is None or draft.store is None:
        return None
    fault = retention_fault(spec.production, store=draft.store, default=default)
    return ("RetentionNotAllowed", fault) if fault else None


def _show_what_is_missing(draft: Draft, job: Job) -> None:
    """Say that a check waits for an object that somebody has to create, and that it does no more."""
    shown = condition_of(draft.status, ConditionType.MONITORING_RELIABLE)
    if job.trouble and job.trouble.reason == OBJECT_MISSING:
        draft.condition(ConditionType.MONITORING_RELIABLE, ConditionStatus.FALSE, *progress_of(job))
    elif shown and shown.reason == OBJECT_MISSING:
        draft.condition(ConditionType.MONITORING_RELIABLE, ConditionStatus.UNKNOWN, *progress_of(job))


def _request(draft: Draft, spec: Monitoring, champion: Version, store: str, window: int) -> CheckRequest:
    labelled = _labelled(draft, spec)
    return CheckRequest(
        resource=draft.resource.key,
        spec_hash=_hash(draft, spec),
        window=windows.window(window, state_of(draft).window_seconds),
        labelled=labelled,
        champion=bundle_of(champion),
        reference_digest=champion.reference_digest,
        production=spec.production,
        drift=spec.drifting,
        quality=spec.judging,
        headroom=spec.learning,
        learned=_learned(draft, spec, labelled),
        segments=spec.segments or Segments(),
        raised_segments=segments.asked_of(state_of(draft)),
        objectives=draft.spec.objectives or (),
        costs=draft.spec.model.costs or (),
        custom_metric=draft.spec.model.custom_metric,
        reference=draft.spec.data.validation,
        min_samples=spec.min_samples,
        max_samples=spec.max_samples,
        followed=_followed(draft),
        store=store,
        seed=draft.spec.search.seed,
    )


def _followed(draft: Draft) -> Followed | None:
    original, model = draft.status.original, draft.spec.model
    if model.update_policy != "Follow" or original is None or original.model_digest is None:
        return None
    return Followed(
        uri=model.uri,
        digest=original.model_digest,
        folder=True if model.format.is_folder else None,
        format=model.format if model.uri.startswith("mlflow://") else None,
    )


def _labelled(draft: Draft, spec: Monitoring) -> Window | None:
    """Return the newest window whose labels are due, if it began under this champion."""
    state = state_of(draft)
    if spec.production is None or spec.production.labels is None:
        return None
    delay = max(seconds(spec.production.labels.max_delay), seconds(spec.delay))
    window = windows.newest_over(draft.now, state.window_seconds, delay)
    if window < windows.first_since(state.since, state.window_seconds):
        return None
    return windows.window(window, state.window_seconds)


def _learned(draft: Draft, spec: Monitoring, labelled: Window | None) -> Window | None:
    """Return the windows before the labelled one under this champion, as one span; None where there are none."""
    state = state_of(draft)
    if spec.learning is None or labelled is None:
        return None
    first = windows.first_learned(state, labelled.index, spec.learning.windows)
    if first >= labelled.index:
        return None
    return Window(index=first, start=windows.window(first, state.window_seconds).start, end=labelled.start)
