"""One look at the watch in each pass: live numbers and checks are judged as windows end; it never holds the loop up."""

from retune.api.monitoring import Monitoring
from retune.plan.draft import Draft
from retune.plan.watch import checks, conditions, state, windows
from retune.plan.watch.alarms import CHECKED
from retune.plan.watch.live_verdicts import after_live_window
from retune.plan.watch.state import state_of

_LIVE_DELAY = 1.0
"""Seconds after a window's end at which live numbers are read."""


def judge_windows(draft: Draft) -> None:
    """Judge the windows that have ended, start the checks that are due, and say how the champion looks."""
    spec, champion = draft.spec.monitoring, draft.status.champion
    if spec is None or champion is None:
        draft.update(monitoring=None)
        return
    state.begin(draft, spec, champion)
    _judge_live_numbers(draft, spec)
    if checks.are_wanted(draft, spec):
        checks.adopt(draft, spec)
        checks.start(draft, spec, champion)
    conditions.set_conditions(draft, spec)


def keep_to_champion(draft: Draft) -> None:
    """Begin anew where this pass has made another version champion: no status shows one beside windows of another."""
    spec, champion, watch = draft.spec.monitoring, draft.status.champion, draft.status.monitoring
    if spec is None or champion is None or watch is None or watch.champion_digest == champion.digest:
        return
    state.begin(draft, spec, champion)
    conditions.set_conditions(draft, spec)


def _judge_live_numbers(draft: Draft, spec: Monitoring) -> None:
    """Judge the live numbers of a window that has not been judged yet."""
    performance, watch = spec.performance, state_of(draft)
    if performance is None:
        return
    draft.wake(after=max(1.0, windows.seconds_until_next(draft.now, watch.window_seconds, _LIVE_DELAY)))
    names = {signal.name for signal in performance.signals}
    signals = [signal for signal in watch.signals if signal.name in names]
    # A window from after now was numbered when windows had another length.
    newest = windows.newest_over(draft.now, watch.window_seconds, 0.0)
    past = (signal.window for signal in signals if signal.window is not None and signal.window <= newest)
    first_new = max(max(past, default=-1) + 1, windows.first_since(watch.since, watch.window_seconds))
    live = draft.observed.live if draft.status.rollout is None else None
    if live is None or not first_new <= live.window <= newest:
        return
    after = after_live_window(signals, performance, live, now=draft.now)
    checked = tuple(signal for signal in watch.signals if signal.name in CHECKED)
    draft.update(monitoring=watch.model_copy(update={"signals": (*checked, *after)}))
