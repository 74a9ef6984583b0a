"""Why something did or did not happen: what serves, what may go live, what holds runs back, and what to do.

Pure: read off the resource alone, with the operator's own sentences where it has said why.
"""

from collections.abc import Iterator
from datetime import datetime

from retune.api.objects import ModelOptimization
from retune.api.spec import Mode
from retune.api.status import ConditionStatus, ConditionType, Stage
from retune.cli import figures
from retune.cli.watching import estimate
from retune.plan.watch.alarms import ESTIMATE

_BAD_WHEN_TRUE = (
    ConditionType.STALLED,
    ConditionType.DRIFT_DETECTED,
    ConditionType.QUALITY_DEGRADED,
    ConditionType.PERFORMANCE_DEGRADED,
)
_BAD_WHEN_FALSE = (
    ConditionType.READY,
    ConditionType.TARGET_RESOLVED,
    ConditionType.TARGET_OWNED,
    ConditionType.BASELINED,
    ConditionType.REGISTERED,
    ConditionType.BUNDLE_AVAILABLE,
    ConditionType.MONITORING_RELIABLE,
    ConditionType.CURABLE,
    ConditionType.COMMANDS_FOLLOWED,
)


def answers(resource: ModelOptimization, *, now: datetime) -> list[tuple[str, str]]:
    """Return questions in a word or two, each with its answer; `now` is the present time, for ages."""
    status = resource.status
    rows = [("Now", f"{status.stage or Stage.PENDING}: {status.message or 'no operator has looked at it yet'}")]
    rows += _serves(resource, now)
    rows += [("Goes live", sentence) for sentence in _goes_live(resource)]
    rows += [("Starts", sentence) for sentence in _starts(resource, now)]
    rows += [("Moved", sentence) for sentence in _moved(resource)]
    rows += [("Segment", sentence) for sentence in _segments(resource)]
    rows += [("Estimated", sentence) for sentence in _estimated(resource)]
    rows += _past(resource, now)
    rows += [("Trouble", sentence) for sentence in _troubles(resource) if sentence != status.message]
    rows += [("To do", sentence) for sentence in _to_do(resource)]
    return rows


def _serves(resource: ModelOptimization, now: datetime) -> Iterator[tuple[str, str]]:
    champion, status = resource.status.champion, resource.status
    if champion is None:
        yield "Serves", "what the manifest says: the delivered model is not measured yet"
        return
    since = f", champion for {figures.age(champion.promoted_at, now)}" if champion.promoted_at else ""
    trial = f"; version {status.rollout.version} is on its way" if status.rollout else ""
    yield "Serves", f"{figures.version(champion)}{since}{trial}"
    delivered = _condition(resource, ConditionType.DELIVERED_LIVE)
    if delivered is not None and (status.original is None or champion.version != status.original.version):
        yield "Delivered", delivered[1]
    if status.rollout and status.rollout.analysis:
        yield "On trial", status.rollout.analysis
    shown = _condition(resource, ConditionType.ROLLED_OUT)
    if shown is not None and shown[1] != status.message:
        yield "Because", shown[1]


def _goes_live(resource: ModelOptimization) -> Iterator[str]:
    """Yield what keeps a version from going live by itself, the strongest first."""
    spec, candidate = resource.spec, resource.status.candidate
    reasons = []
    if spec.suspend:
        reasons.append("nothing: spec.suspend freezes everything")
    if spec.rollout.rollback_to is not None:
        reasons.append(f"nothing new: spec.rollout.rollbackTo keeps version {spec.rollout.rollback_to}")
    if spec.mode is Mode.PROPOSE:
        reasons.append("what the target is given by others: spec.mode is Propose, see `retune proposal`")
    elif spec.mode is not Mode.AUTOMATIC:
        reasons.append(f"nothing by itself: spec.mode is {spec.mode}")
    if spec.rollout.approval == "Manual":
        waiting = f"version {candidate.version} ({candidate.digest}) waits" if candidate else "none waits now"
        reasons.append(f"what a person approves: {waiting}")
    yield from reasons or ["a version that passes the gate, by itself"]
    accepted = _condition(resource, ConditionType.CANDIDATE_ACCEPTED)
    if accepted is not None:
        word = "the last verdict accepted" if accepted[0] is ConditionStatus.TRUE else "the last verdict declined"
        yield f"{word}: {accepted[1]}"
    for entry in resource.status.rejected[-3:]:
        name = f"version {entry.version}" if entry.version else entry.digest
        yield f"not {name} again, without rollout.retry: {entry.message or entry.reason}"


def _starts(resource: ModelOptimization, now: datetime) -> Iterator[str]:
    """Yield what is under way, and what keeps runs from starting."""
    spec, status = resource.spec, resource.status
    triggers = status.triggers
    if status.run is not None:
        why = f": {status.run.why}" if status.run.why else ""
        yield f"run {status.run.name} is under way ({status.run.trigger}{why}); one at a time"
        if status.run.data:
            yield f"its data: {status.run.data}"
    if spec.suspend:
        yield "no run: spec.suspend freezes everything"
    if spec.mode is Mode.OBSERVE_ONLY:
        yield "no run: spec.mode is ObserveOnly"
    yield from (f"{pending.reason} waits: {pending.message}" for pending in triggers.pending)
    if triggers.held:
        yield f"held back: {triggers.held}"
    elif triggers.circuit:
        circuit = _condition(resource, ConditionType.CIRCUIT_OPEN)
        yield f"held back: circuit open ({triggers.circuit}){f': {circuit[1]}' if circuit else ''}"
    elif triggers.cooldown_until and triggers.cooldown_until > now:
        yield f"no run by a signal before {triggers.cooldown_until:%Y-%m-%d %H:%M:%S} UTC (triggers.cooldown)"
    if spec.monitoring is None and spec.triggers.schedule is None:
        yield "runs by a change of the spec or of manualNonce alone: there is no spec.monitoring and no schedule"


def _moved(resource: ModelOptimization) -> Iterator[str]:
    """Yield what moved in the last window, and what each column carries of the answers."""
    watched = resource.status.monitoring
    for column in watched.moved if watched else ():
        carries = "" if column.carries is None else f" and carries {_carried(float(column.carries))}"
        guess = f": {column.looks_like}" if column.looks_like else ""
        yield f"{column.name} moved by {float(column.size):.2g} ({column.measure}){carries}{guess}"


def _segments(resource: ModelOptimization) -> Iterator[str]:
    """Yield the segments that have lost quality: those that are raised, and those that were bad in the last window."""
    watched = resource.status.monitoring
    for one in watched.segments if watched else ():
        if one.raised or one.streak:
            state = "is raised" if one.raised else "was bad in the last window"
            yield f"{one.name} {state}: {one.value}, was {one.reference}, {one.samples} labelled rows"


def _estimated(resource: ModelOptimization) -> Iterator[str]:
    """Yield what was last estimated of quality without labels, and why that is, or is not, to be believed."""
    watched = resource.status.monitoring
    words = estimate(watched) if watched else None
    found = next((signal for signal in watched.signals if signal.name == ESTIMATE), None) if watched else None
    if words is not None and found is not None:
        yield f"{found.verdict}: {words}"
        yield found.message


def _carried(share: float) -> str:
    if share <= 0:
        return "nothing"
    return "under 1 % of the answers" if share < 0.01 else f"{100 * share:.0f} % of the answers"


def _past(resource: ModelOptimization, now: datetime) -> Iterator[tuple[str, str]]:
    last, back = resource.status.last_run, resource.status.last_rollback
    if last is not None:
        yield "Last run", f"{last.name} {last.outcome}, {figures.age(last.completion_time, now)} ago: {last.message}"
    if back is not None:
        yield "Last rollback", f"{figures.age(back.completion_time, now)} ago: {back.message}"


def _troubles(resource: ModelOptimization) -> Iterator[str]:
    for kinds, bad in ((_BAD_WHEN_TRUE, ConditionStatus.TRUE), (_BAD_WHEN_FALSE, ConditionStatus.FALSE)):
        for kind in kinds:
            shown = _condition(resource, kind)
            if shown is not None and shown[0] is bad:
                yield f"{kind} is {bad}: {shown[1]}"


def _to_do(resource: ModelOptimization) -> Iterator[str]:
    """Yield commands that change what is said above."""
    meta, spec, status = resource.metadata, resource.spec, resource.status
    tail = f"{meta.name} -n {meta.namespace}"
    if spec.suspend:
        yield f"retune resume {tail}"
    if status.stage is Stage.AWAITING_APPROVAL and status.candidate:
        yield f"retune approve {meta.name} {status.candidate.version} -n {meta.namespace}"
    if spec.rollout.rollback_to is not None:
        yield f"retune unpin {tail}"
    if status.triggers.circuit:
        yield f"retune run {tail}   (closes the circuit and starts a run)"


def _condition(resource: ModelOptimization, kind: ConditionType) -> tuple[ConditionStatus, str] | None:
    conditions = resource.status.conditions
    return next(((shown.status, shown.message) for shown in conditions if shown.type == kind), None)
