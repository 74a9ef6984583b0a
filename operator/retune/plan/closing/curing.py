"""Whether a run can restore what is lost, and where none can, what would: condition Curable.

It is there from the first raised drift or loss of quality on, and nothing is decided by it. What it counts is read off
the last window, so that it says another number only when another window was judged.
"""

from dataclasses import dataclass
from datetime import timedelta

from retune.api.base import seconds
from retune.api.monitoring import LiveKind, Monitoring
from retune.api.status import ConditionStatus, ConditionType
from retune.api.watched import MonitoringStatus, Signal
from retune.plan.draft import Draft, condition_of
from retune.plan.run.brakes import EXHAUSTED
from retune.plan.watch import alarms, windows

NOTHING_LOST, CAN_BE_LEARNED = "NothingLost", "CanBeLearned"
_DIGITS = 2

Fault = tuple[str, str]
"""Reason and sentence."""


def say_what_would_help(draft: Draft) -> None:
    """Set Curable."""
    raised = _raised(draft)
    if raised:
        fault = _fault(draft)
        if fault is not None:
            reason, message = fault
            what = " and ".join(signal.name for signal in raised)
            draft.condition(ConditionType.CURABLE, ConditionStatus.FALSE, reason, f"{what} is raised, but {message}")
        else:
            message = "a run can learn from rows of since the change"
            draft.condition(ConditionType.CURABLE, ConditionStatus.TRUE, CAN_BE_LEARNED, message)
    elif condition_of(draft.status, ConditionType.CURABLE) is not None:
        draft.condition(
            ConditionType.CURABLE, ConditionStatus.TRUE, NOTHING_LOST, "no drift or loss of quality is raised"
        )


def _raised(draft: Draft) -> list[Signal]:
    """Return the raised signals of what a run may mend: drift, quality, and headroom."""
    state, monitoring = draft.status.monitoring, draft.spec.monitoring
    if state is None or monitoring is None:
        return []
    live = monitoring.performance.signals if monitoring.performance else ()
    names = {
        alarms.DRIFT,
        alarms.QUALITY,
        alarms.HEADROOM,
        *(signal.name for signal in live if signal.kind is LiveKind.QUALITY),
    }
    return [signal for signal in state.signals if signal.raised and signal.name in names]


def _fault(draft: Draft) -> Fault | None:
    """Return why no run can be expected to help, and what would; None where one can."""
    return _of_techniques(draft) or _of_data(draft) or _of_labels(draft) or _of_runs(draft)


def _of_techniques(draft: Draft) -> Fault | None:
    if draft.spec.learns:
        return None
    names = ", ".join(technique.name for technique in (draft.spec.techniques or ())[:5])
    return "NoTechniqueLearns", (
        f"no technique of spec.techniques learns from labels ({names}): add one that trains, such as "
        "HyperparameterTuning, or Recalibration, or leave spec.techniques out"
    )


def _of_data(draft: Draft) -> Fault | None:
    """Return why a run would not see the change at all."""
    production = draft.spec.monitoring.production if draft.spec.monitoring else None
    if production is None or production.labels is None:
        return "LabelsNotNamed", (
            "runs learn and are judged by spec.data, which is from before: labels of production rows would let them "
            f"learn the change (monitoring.production.labels), about {draft.spec.refresh.min_rows} rows of them"
        )
    if draft.spec.refresh.policy == "Never":
        return "FreshDataNotUsed", (
            "runs learn and are judged by spec.data alone: refresh.policy Auto would let them learn from labelled "
            "production rows"
        )
    kept, delay = production.kept_seconds, seconds(production.labels.max_delay)
    if kept is not None and kept <= delay:
        return "LabelsTooLate", (
            f"captured rows are removed after {production.retention} (production.retention), and labels may take "
            f"{production.labels.max_delay} (production.labels.maxDelay): keep rows for longer, or have labels earlier"
        )
    return None


@dataclass(frozen=True)
class _Since:
    """What is there of after the change."""

    windows: int
    """Windows since the change whose labels are due."""
    captured: int
    """Captured rows of those, as far as the last window tells."""
    labelled: int
    """Labelled ones among them, as far as the last window whose labels were due tells."""


def _of_labels(draft: Draft) -> Fault | None:
    """Return that labels are what is missing, and for how many rows."""
    state, monitoring = draft.status.monitoring, draft.spec.monitoring
    since = _since(state, monitoring) if state and monitoring else None
    if since is None:
        return None
    least = draft.spec.refresh.min_rows
    missing = _rounded(least - since.labelled)
    help_ = f"labels for about {missing} more rows of the last {since.windows} windows would let a run learn the change"
    if since.labelled == 0:
        return "LabelsMissing", f"no row has a label of the last window whose labels were due: {help_}"
    if since.labelled < least <= since.captured:
        return "LabelsTooFew", (
            f"about {since.labelled} of {since.captured} rows of after the change have a label, and {least} are needed "
            f"(refresh.minRows): {help_}"
        )
    return None


def _since(state: MonitoringStatus, spec: Monitoring) -> _Since | None:
    """Return what is there of after the change; None while labels of no window since were counted."""
    first, labels = alarms.first_bad(state.signals), spec.production.labels if spec.production else None
    if first is None or state.window_end is None or state.labelled_rows is None or labels is None:
        return None
    checked = state.window_end + timedelta(seconds=seconds(spec.delay))
    delay = max(seconds(labels.max_delay), seconds(spec.delay))
    due = windows.newest_over(checked, state.window_seconds, delay) - first + 1
    if due < 1:
        return None
    return _Since(windows=due, captured=due * (state.samples or 0), labelled=due * state.labelled_rows)


def _of_runs(draft: Draft) -> Fault | None:
    """Return that runs have learned from what there is, and brought nothing: so many that signals start no more."""
    state, last = draft.status.triggers, draft.status.last_run
    if state.circuit != EXHAUSTED or last is None:
        return None
    return "NothingGained", (
        f"{state.no_gain_streak} runs in a row brought nothing, the last because {last.message.rstrip('.')}: what "
        "would help is what they did not have, such as more labelled rows, other techniques, or a model made "
        "anew with other inputs"
    )


def _rounded(count: int) -> int:
    """Return a number of rows with two digits, rounded up."""
    unit = int(10 ** max(0, len(str(count)) - _DIGITS))
    return -(-count // unit) * unit
