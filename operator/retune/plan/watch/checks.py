"""The watch over the champion: one check a window, adopted once, and the signals that follow from it.

A check's Job is named by its window, so that nothing has to be written before it is created: whoever starts anew finds
it under its name. Checks never hold the loop up, and a check that fails is not repeated: the next window is judged.
"""

from retune.api.base import seconds
from retune.api.monitoring import LiveKind, Monitoring, Quality
from retune.api.status import ConditionStatus, ConditionType, Version
from retune.api.watched import MonitoringStatus, Signal, Verdict
from retune.contract.requests import BundleRef, CheckRequest, Followed, Window
from retune.contract.results import CheckResult, SignalVerdict
from retune.plan import names
from retune.plan.actions import CreateJob
from retune.plan.baseline.measurement import measure_again
from retune.plan.draft import Draft, Hold
from retune.plan.hashing import monitoring_hash
from retune.plan.jobs import failure_of
from retune.plan.observed import Job, JobPhase, Verb
from retune.plan.watch import alarms, windows

_FINISHED = {JobPhase.SUCCEEDED, JobPhase.FAILED}
_LIVE_DELAY = 1.0
"""Seconds after a window's end at which live numbers are read."""


def judge_windows(draft: Draft) -> Hold | None:
    """Judge what has ended, start what is due, and say how the champion looks; never holds the pass."""
    spec, champion = draft.spec.monitoring, draft.status.champion
    if spec is None or champion is None:
        draft.update(monitoring=None)
        return None
    _base(draft, spec, champion)
    _hear_live(draft, spec)
    if _checks(draft, spec):
        _adopt(draft, spec)
        _start(draft, spec, champion)
    _tell(draft, spec)
    return None


def state_of(draft: Draft) -> MonitoringStatus:
    """Return the watch as it stands; raises ValueError where there is none."""
    if draft.status.monitoring is None:
        raise ValueError("nothing is watched")
    return draft.status.monitoring


def pending_checks(draft: Draft) -> dict[int, Job]:
    """Return the Jobs of checks that are not adopted yet, by window.

    A number far ahead of the clock is of shorter windows: taken for one of ours, it would end the watch for ever.
    """
    state = draft.status.monitoring
    if state is None:
        return {}
    found = {names.checked_window(draft.resource.metadata.name, job.name): job for job in draft.observed.jobs.values()}
    least = windows.first_unjudged(state)
    most = windows.newest_over(draft.now, state.window_seconds, 0.0) + 1  # another node's clock may be ahead
    return {index: job for index, job in found.items() if index is not None and least <= index <= most}


def _base(draft: Draft, spec: Monitoring, champion: Version) -> None:
    """Begin a new watch when another champion serves, or windows have another length."""
    state, length = draft.status.monitoring, windows.length_of(spec.window)
    if state and (state.champion_digest, state.window_seconds) == (champion.digest, length):
        return
    fresh = MonitoringStatus(since=draft.now, champion_digest=champion.digest, window_seconds=length)
    draft.update(monitoring=fresh)


def _checks(draft: Draft, spec: Monitoring) -> bool:
    return spec.production is not None or draft.spec.model.update_policy == "Follow"


def _adopt(draft: Draft, spec: Monitoring) -> None:
    """Take the newest finished check's word, once; older ones that were overtaken count as passed over."""
    done = {
        index: job for index, job in pending_checks(draft).items() if job.phase in _FINISHED or _is_stuck(draft, job)
    }
    if not done:
        return
    index = max(done)
    result = done[index].result
    if isinstance(result, CheckResult) and result.window == index and result.spec_hash == _hash(draft, spec):
        _take(draft, spec, index, result)
    else:
        _pass_over(draft, index, done[index], result)


def _is_stuck(draft: Draft, job: Job) -> bool:
    return failure_of(job, now=draft.now, pull_seconds=draft.observed.defaults.image_pull_seconds) is not None


def _hash(draft: Draft, spec: Monitoring) -> str:
    state = state_of(draft)
    return monitoring_hash(spec, draft.spec.model, draft.spec.data, state.champion_digest)


def _take(draft: Draft, spec: Monitoring, index: int, result: CheckResult) -> None:
    state = _moved_to(draft, index)
    heard = {signal.name: signal for signal in state.signals}
    if result.drift is not None and spec.drifting:
        rule = alarms.Rule(spec.drifting.consecutive)
        _hear(heard, alarms.DRIFT, result.drift, window=index, rule=rule, draft=draft)
    if result.quality is not None and spec.judging:
        _hear_quality(heard, result, result.quality, spec.judging, draft)
    measured = result.quality if result.quality and not result.quality.estimated else None
    changes = {
        "samples": result.samples, "violations": result.violations, "report_uri": result.report,
        "drift_share": result.drift.value if result.drift else None,
        "drifted_columns": tuple(column.name for column in result.columns if column.drifted)[:16],
        "quality": measured.value if measured and measured.value is not None else state.quality,
        "signals": tuple(heard.values()),
    }  # fmt: skip
    draft.update(monitoring=state.model_copy(update=changes))
    draft.condition(ConditionType.MONITORING_RELIABLE, *_reliability(result))
    _follow_artifact(draft, result)


def _hear(
    heard: dict[str, Signal], name: str, told: SignalVerdict, *, window: int, rule: alarms.Rule, draft: Draft
) -> None:
    signal = heard.get(name) or Signal(name=name)
    heard[name] = alarms.heard(signal, told, window=window, rule=rule, now=draft.now)


def _hear_quality(
    heard: dict[str, Signal], result: CheckResult, told: SignalVerdict, spec: Quality, draft: Draft
) -> None:  # fmt: skip
    """Hear of a window's quality once, whichever check told it; an estimate is another signal and raises nothing."""
    name = alarms.ESTIMATE if told.estimated else alarms.QUALITY
    labelled = None if told.estimated else result.labelled_window
    window = result.window if labelled is None else labelled
    seen = heard.get(name)
    if seen is None or seen.window is None or window > seen.window:
        rule = alarms.Rule(None if told.estimated else spec.consecutive)
        _hear(heard, name, told, window=window, rule=rule, draft=draft)


def _moved_to(draft: Draft, index: int) -> MonitoringStatus:
    """Return the watch with this window as its last one, and those between counted as passed over."""
    state = state_of(draft)
    return state.model_copy(
        update={
            "window": index, "window_end": windows.end_of(index, state.window_seconds),
            "skipped_windows": state.skipped_windows + max(0, index - windows.first_unjudged(state)),
        }
    )  # fmt: skip


def _pass_over(draft: Draft, index: int, job: Job, result: object) -> None:
    """A check that brought nothing: signals keep their state, why is told, and the next window is judged."""
    failure = failure_of(job, now=draft.now, pull_seconds=draft.observed.defaults.image_pull_seconds)
    if failure is not None:
        reason, message = failure.reason, failure.message
    elif isinstance(result, CheckResult):
        reason, message = "SettingsChanged", f"window {index} was judged by other settings or for another champion"
    else:
        reason, message = "ResultInvalid", f"Job {job.name} ended without a verdict on its window"
    state = _moved_to(draft, index)
    watched = tuple(
        alarms.unheard(one, reason=reason, message=message) if _is_checked(one) else one for one in state.signals
    )
    unseen = {"samples": None, "drift_share": None, "drifted_columns": (), "violations": (), "report_uri": None}
    draft.update(monitoring=state.model_copy(update={"signals": watched, **unseen}))
    draft.condition(ConditionType.MONITORING_RELIABLE, ConditionStatus.FALSE, reason, message)


def _is_checked(signal: Signal) -> bool:
    return signal.name in {alarms.DRIFT, alarms.QUALITY, alarms.ESTIMATE}


def _reliability(result: CheckResult) -> tuple[ConditionStatus, str, str]:
    """Return whether the windows can be judged: not where drift cannot, for want of data or of what fits."""
    told = result.drift
    if told is not None and told.verdict is Verdict.UNKNOWN:
        return ConditionStatus.FALSE, told.reason, told.message
    aside = f", {result.set_aside} rows or files set aside" if result.set_aside else ""
    words = f"window {result.window}: {result.samples} rows{aside}"
    return ConditionStatus.TRUE, "Judged", words


def _follow_artifact(draft: Draft, result: CheckResult) -> None:
    """Measure the delivered file anew when it is not the one that was measured; the run follows by itself."""
    original = draft.status.original
    if original is None or original.model_digest is None or result.artifact_digest in {None, original.model_digest}:
        return
    if draft.status.run is None and draft.status.rollout is None:
        measure_again(draft)


def _start(draft: Draft, spec: Monitoring, champion: Version) -> None:
    """Start the check of the newest window that is over, unless it was judged, another runs, or two versions serve."""
    state = state_of(draft)
    delay = windows.own_delay(draft.resource.key, seconds(spec.delay), state.window_seconds)
    draft.wake(after=max(1.0, windows.seconds_until_next(draft.now, state.window_seconds, delay)))
    index = windows.newest_over(draft.now, state.window_seconds, delay)
    if index < windows.first_unjudged(state):
        return
    if pending_checks(draft) or draft.status.rollout is not None:
        return
    refused = draft.refusal(Verb.CREATE_JOB)
    if refused is not None:
        draft.condition(ConditionType.MONITORING_RELIABLE, ConditionStatus.FALSE, refused.reason, refused.message)
    elif draft.store is not None:
        draft.do(
            CreateJob(
                names.check_job(draft.resource.metadata.name, index),
                _request(draft, spec, champion, index),
                cpu_limit=None,
            )
        )


def _request(draft: Draft, spec: Monitoring, champion: Version, index: int) -> CheckRequest:
    state = state_of(draft)
    return CheckRequest(
        resource=draft.resource.key, spec_hash=_hash(draft, spec), window=windows.window(index, state.window_seconds),
        labelled=_labelled(draft, spec), champion=BundleRef(uri=champion.uri, digest=champion.digest),
        production=spec.production, drift=spec.drifting, quality=spec.judging, reference=draft.spec.data.validation,
        min_samples=spec.min_samples, max_samples=spec.max_samples,
        followed=_followed(draft), store=draft.store or "", seed=draft.spec.search.seed,
    )  # fmt: skip


def _followed(draft: Draft) -> Followed | None:
    original, model = draft.status.original, draft.spec.model
    if model.update_policy != "Follow" or original is None or original.model_digest is None:
        return None
    return Followed(uri=model.uri, digest=original.model_digest)


def _labelled(draft: Draft, spec: Monitoring) -> Window | None:
    """Return the newest window whose labels are due, if it began under this champion."""
    state = state_of(draft)
    if spec.production is None or spec.production.labels is None:
        return None
    wait = max(seconds(spec.production.labels.max_delay), seconds(spec.delay))
    index = windows.newest_over(draft.now, state.window_seconds, wait)
    if index < windows.first_since(state.since, state.window_seconds):
        return None
    return windows.window(index, state.window_seconds)


def _hear_live(draft: Draft, spec: Monitoring) -> None:
    """Judge the live numbers of a window that nobody has judged yet."""
    live, performance, state = draft.observed.live, spec.performance, state_of(draft)
    if performance is None:
        return
    draft.wake(after=max(1.0, windows.seconds_until_next(draft.now, state.window_seconds, _LIVE_DELAY)))
    names_of = {one.name for one in performance.signals}
    mine = [one for one in state.signals if one.name in names_of]
    newest = windows.newest_over(draft.now, state.window_seconds, 0.0)  # a later number is of windows of another length
    judged = max((one.window for one in mine if one.window is not None and one.window <= newest), default=-1)
    if (
        live is None
        or not judged < live.window <= newest
        or live.window < windows.first_since(state.since, state.window_seconds)
    ):
        return
    after = alarms.after_live(mine, performance, live, now=draft.now)
    others = tuple(one for one in state.signals if _is_checked(one))
    draft.update(monitoring=state.model_copy(update={"signals": (*others, *after)}))


def _tell(draft: Draft, spec: Monitoring) -> None:
    """Set the conditions of what is watched."""
    state = state_of(draft)
    by_name = {signal.name: signal for signal in state.signals}
    if spec.drifting:
        _condition(draft, ConditionType.DRIFT_DETECTED, [by_name.get(alarms.DRIFT)], "NoDrift")
    quality = [by_name.get(alarms.QUALITY) or by_name.get(alarms.ESTIMATE)] if spec.judging else []
    live = spec.performance.signals if spec.performance else ()
    quality += [by_name.get(one.name) for one in live if one.kind is LiveKind.QUALITY]
    if quality:
        _condition(draft, ConditionType.QUALITY_DEGRADED, quality, "QualityKept")
    speed = [by_name.get(one.name) for one in live if one.kind is not LiveKind.QUALITY]
    if speed:
        _condition(draft, ConditionType.PERFORMANCE_DEGRADED, speed, "PerformanceKept")


def _condition(draft: Draft, kind: ConditionType, watched: list[Signal | None], fine: str) -> None:
    """True with the first raised signal; Unknown while nothing has been judged; else False, with what was seen last."""
    known = [signal for signal in watched if signal is not None]
    raised = next((signal for signal in known if signal.raised), None)
    judged = [signal for signal in known if signal.verdict is not Verdict.UNKNOWN]
    if raised is not None:
        draft.condition(kind, ConditionStatus.TRUE, raised.reason, raised.message)
    elif judged:
        words = "; ".join(signal.message for signal in judged)
        draft.condition(kind, ConditionStatus.FALSE, fine, words)
    elif known:
        draft.condition(kind, ConditionStatus.UNKNOWN, known[0].reason, known[0].message)
    else:
        draft.condition(kind, ConditionStatus.UNKNOWN, "NotSeenYet", "no window has ended yet")
