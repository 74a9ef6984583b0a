"""Pictures of how the live model looks: its signals, the last window, and what may start a run or holds it back.

Pure, as `tables`. What columns are called comes from production data, so nothing here is read as markup.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime

from rich.table import Table
from rich.text import Text

from retune.api.monitoring import LiveKind, LiveSignal
from retune.api.objects import ModelOptimization
from retune.api.watched import MonitoringStatus, Signal, Verdict
from retune.cli import figures
from retune.cli.figures import NONE
from retune.cli.grids import blank, grid
from retune.plan.watch.alarms import DRIFT, QUALITY

_STYLES = {"raised": "bold red", "bad": "yellow", "ok": "green", "unknown": "yellow"}
_SHARES = {LiveKind.ERROR_RATE, LiveKind.SATURATION}


def raised(resource: ModelOptimization) -> str:
    """Return the names of the signals that are raised."""
    watched = resource.status.monitoring
    return ", ".join(one.name for one in watched.signals if one.raised) if watched and watched.signals else ""


def pictures(resource: ModelOptimization, *, now: datetime) -> list[Table]:
    """Return what a person asks of a live model first; nothing where it is not watched and nothing waits."""
    watched, triggers = resource.status.monitoring, resource.status.triggers
    parts: list[Table] = []
    if watched is not None:
        parts.append(grid(_windows(resource, watched, now)))
    if watched is not None and watched.signals:
        parts += [_signals(resource, watched, now), grid(_notes(watched))]
    if watched is not None or triggers.pending or triggers.held or triggers.circuit:
        parts.append(grid(_triggers(resource, now)))
    return [part for part in parts if part.row_count]


def _notes(watched: MonitoringStatus) -> list[tuple[str, str]]:
    """Return what is said of signals that are not as they should be."""
    return [(one.name, one.message) for one in watched.signals if state(one) != "ok" and one.message]


def told(resource: ModelOptimization) -> list[str]:
    """Return the sentences on signals that the pictures have, so that nothing else repeats them."""
    watched = resource.status.monitoring
    return [words for _, words in _notes(watched)] if watched else []


def _windows(resource: ModelOptimization, watched: MonitoringStatus, now: datetime) -> Iterator[tuple[str, str]]:
    champion = resource.status.champion
    length = f"windows of {_length(watched.window_seconds)}"
    yield "Watched", f"v{champion.version if champion else '?'} for {figures.age(watched.since, now)}, in {length}"
    passed = f"; {watched.skipped_windows} passed over" if watched.skipped_windows else ""
    if watched.window is None:
        yield "Window", "none was judged yet"
    else:
        rows = NONE if watched.samples is None else f"{watched.samples:,}"
        yield "Window", f"{watched.window}, ended {figures.age(watched.window_end, now)} ago: {rows} rows{passed}"
    if watched.drifted_columns:
        yield "Drifted", ", ".join(watched.drifted_columns)
    for violation in watched.violations:
        yield "Violation", violation
    if watched.report_uri:
        yield "Report", watched.report_uri


def _length(seconds: int) -> str:
    """Return the length of a window as a spec would say it."""
    unit, size = next((unit, size) for unit, size in (("h", 3600), ("m", 60), ("s", 1)) if seconds % size == 0)
    return f"{seconds // size}{unit}"


def _signals(resource: ModelOptimization, watched: MonitoringStatus, now: datetime) -> Table:
    table = blank("SIGNAL", "STATE", "VALUE", "REFERENCE", "SAMPLES", "WINDOW", "SINCE", "REASON")
    live, needed = _live(resource), _needed(resource)
    for one in watched.signals:
        table.add_row(
            one.name, Text(_state_words(one, needed.get(one.name)), style=_STYLES[state(one)]),
            _figure(one.value, one.name, live), _figure(one.reference, one.name, live),
            NONE if one.samples is None else f"{one.samples:,}", NONE if one.window is None else str(one.window),
            figures.age(one.raised_at, now), one.reason,
        )  # fmt: skip
    return table


def state(signal: Signal) -> str:
    """Return raised, ok or unknown; bad where the last window was, but too few in a row for an alarm."""
    if signal.raised:
        return "raised"
    return {Verdict.BREACH: "bad", Verdict.UNKNOWN: "unknown"}.get(signal.verdict, "ok")


def _state_words(signal: Signal, needed: int | None) -> str:
    """Return the state, and of bad windows how many in a row there were of those that raise the signal."""
    return f"bad {signal.streak}/{needed}" if state(signal) == "bad" and needed else state(signal)


def _live(resource: ModelOptimization) -> dict[str, LiveSignal]:
    watched = resource.spec.monitoring
    return {one.name: one for one in watched.performance.signals} if watched and watched.performance else {}


def _needed(resource: ModelOptimization) -> dict[str, int]:
    """Return how many bad windows in a row raise each signal; without those that only corroborate others."""
    watched = resource.spec.monitoring
    live = {name: one.consecutive for name, one in _live(resource).items() if one.kind is not LiveKind.SATURATION}
    rules = {DRIFT: watched.drifting, QUALITY: watched.judging} if watched else {}
    return live | {name: rule.consecutive for name, rule in rules.items() if rule}


def _figure(text: str | None, name: str, live: dict[str, LiveSignal]) -> str:
    """Return a number with its unit: seconds as milliseconds, shares in percent, everything else as it is."""
    if text is None:
        return NONE
    kind = live[name].kind if name in live else None
    if kind is LiveKind.LATENCY:
        return f"{1000 * float(text):.3g} ms"
    if name == DRIFT or kind in _SHARES:
        return f"{100 * float(text):.3g} %"
    return text


def _triggers(resource: ModelOptimization, now: datetime) -> Iterator[tuple[str, str]]:
    state, spec = resource.status.triggers, resource.spec.triggers
    for one in state.pending:
        words = "" if one.message in told(resource) else f": {one.message}"
        yield "Pending", f"{one.reason} for {figures.age(one.since, now)}{words}"
    if not state.pending:
        yield "Pending", "nothing"
    if state.held:
        yield "Held", state.held
    until = state.cooldown_until
    waits = f"until {until:%Y-%m-%d %H:%M:%S} UTC" if until and until > now else "over"
    yield "Cooldown", f"{waits}{_streaks(state.no_gain_streak, state.rollback_streak)}"
    yield "Circuit", f"open: {state.circuit}" if state.circuit else "closed"
    recent = sum((now - start).total_seconds() < 86_400 for start in state.starts)
    yield "Started", f"{recent} of at most {spec.max_runs_per_day} runs by signals in 24 h"


def _streaks(no_gain: int, rolled_back: int) -> str:
    told: Sequence[str] = [
        f"{count} {words} in a row"
        for count, words in ((no_gain, "without gain"), (rolled_back, "rolled back"))
        if count
    ]
    return f" ({', '.join(told)})" if told else ""
