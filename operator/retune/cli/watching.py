"""What the commands show of a watched model: its signals, the last window, and what may start a run or holds it back.

Pure, as `tables`. Names of columns come from production data, so no text here may be read as markup.
"""

from collections.abc import Iterator
from datetime import datetime

from rich.table import Table
from rich.text import Text

from retune.api.monitoring import LiveKind, LiveSignal
from retune.api.objects import ModelOptimization
from retune.api.watched import MonitoringStatus, Signal, Verdict, WatchedSegment
from retune.cli import figures
from retune.cli.figures import NONE
from retune.cli.grids import blank, grid
from retune.plan.watch.alarms import DRIFT, ESTIMATE, QUALITY, SEGMENT

_STYLES = {"raised": "bold red", "bad": "yellow", "ok": "green", "unknown": "yellow", "untrusted": "yellow"}
_SHARES = {LiveKind.ERROR_RATE, LiveKind.SATURATION}


def raised(resource: ModelOptimization) -> str:
    """Return the names of the signals that are raised."""
    watched = resource.status.monitoring
    return ", ".join(signal.name for signal in watched.signals if signal.raised) if watched else ""


def pictures(resource: ModelOptimization, *, now: datetime) -> list[Table]:
    """Return what a person asks first about a live model; nothing where it is not watched and no reason waits."""
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
    """Return the sentences on signals that are not as they should be, by the signal's name."""
    return [(signal.name, signal.message) for signal in watched.signals if state(signal) != "ok" and signal.message]


def sentences(resource: ModelOptimization) -> list[str]:
    """Return the sentences on signals that `pictures` shows, so that nothing else repeats them."""
    watched = resource.status.monitoring
    return [sentence for _, sentence in _notes(watched)] if watched else []


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
    words = estimate(watched)
    if words is not None:
        yield "Estimated", words
    if watched.drifted_columns:
        yield "Drifted", ", ".join(watched.drifted_columns)
    lost = [_lost(segment) for segment in watched.segments if segment.raised]
    if lost:
        yield "Lost in", "; ".join(lost)
    for violation in watched.violations:
        yield "Violation", violation
    if watched.report_uri:
        yield "Report", watched.report_uri


def _lost(segment: WatchedSegment) -> str:
    return f"{segment.name} ({segment.value or NONE}, was {segment.reference or NONE})"


def segments(resource: ModelOptimization) -> Table | None:
    """Return a table of the segments that are raised or were worst; None where none are judged."""
    watched = resource.status.monitoring
    if watched is None or not watched.segments:
        return None
    table = blank("SEGMENT", "STATE", "QUALITY", "REFERENCE", "LABELLED", "ROWS", "ANSWERS MOVED")
    needed = _needed(resource).get(SEGMENT)
    for one in watched.segments:
        word = _state_of(raised=one.raised, verdict=one.verdict)
        table.add_row(
            one.name,
            Text(f"bad {one.streak}/{needed}" if word == "bad" and needed else word, style=_STYLES[word]),
            one.value or NONE,
            one.reference or NONE,
            f"{one.samples:,}",
            f"{one.rows:,}",
            one.drift or NONE,
        )
    return table


def estimate(watched: MonitoringStatus) -> str | None:
    """Return the last estimate of quality with its interval and where its rows lie; None where there is none."""
    found = next((signal for signal in watched.signals if signal.name == ESTIMATE), None)
    if found is None or found.outside is None:
        return None
    outside = f"{100 * float(found.outside):.3g} % of the rows outside the reference"
    if found.value is None or found.low is None or found.high is None:
        return f"no value: {outside}"
    return f"{found.value}, 95 % between {found.low} and {found.high}, without labels; {outside}"


def _length(seconds: int) -> str:
    """Return the length of a window as a spec would say it."""
    unit, size = next((unit, size) for unit, size in (("h", 3600), ("m", 60), ("s", 1)) if seconds % size == 0)
    return f"{seconds // size}{unit}"


def _signals(resource: ModelOptimization, watched: MonitoringStatus, now: datetime) -> Table:
    table = blank("SIGNAL", "STATE", "VALUE", "REFERENCE", "SAMPLES", "WINDOW", "SINCE", "REASON")
    live, needed = _live(resource), _needed(resource)
    for signal in watched.signals:
        name, kind = signal.name, live[signal.name].kind if signal.name in live else None
        table.add_row(
            name,
            Text(_state_words(signal, needed.get(name)), style=_STYLES[state(signal)]),
            _figure(signal.value, name, kind),
            _figure(signal.reference, name, kind),
            NONE if signal.samples is None else f"{signal.samples:,}",
            _window_words(signal.window, watched.window),
            figures.age(signal.raised_at, now),
            signal.reason,
        )
    return table


def _window_words(judged: int | None, last: int | None) -> str:
    """Return a signal's window, and how many windows ago it was: its value says nothing of those since."""
    if judged is None:
        return NONE
    return f"{judged} ({last - judged} ago)" if last is not None and last > judged else str(judged)


def state(signal: Signal) -> str:
    """Return raised, bad (the last window was, but too few in a row to raise it), unknown, untrusted or ok."""
    return _state_of(raised=signal.raised, verdict=signal.verdict)


def _state_of(*, raised: bool, verdict: Verdict) -> str:
    words = {Verdict.BREACH: "bad", Verdict.UNKNOWN: "unknown", Verdict.UNTRUSTED: "untrusted"}
    return "raised" if raised else words.get(verdict, "ok")


def _state_words(signal: Signal, needed: int | None) -> str:
    """Return the state; of a bad one also how many bad windows in a row there were and how many raise the signal."""
    return f"bad {signal.streak}/{needed}" if state(signal) == "bad" and needed else state(signal)


def _live(resource: ModelOptimization) -> dict[str, LiveSignal]:
    watched = resource.spec.monitoring
    return {signal.name: signal for signal in watched.performance.signals} if watched and watched.performance else {}


def _needed(resource: ModelOptimization) -> dict[str, int]:
    """Return how many bad windows in a row raise each signal; without those that never are raised."""
    watched = resource.spec.monitoring
    live = (signal for signal in _live(resource).values() if signal.kind is not LiveKind.SATURATION)
    rules = {DRIFT: watched.drifting, QUALITY: watched.judging, SEGMENT: watched.segmenting} if watched else {}
    checked = {name: rule.consecutive for name, rule in rules.items() if rule}
    return {signal.name: signal.consecutive for signal in live} | checked


def _figure(text: str | None, name: str, kind: LiveKind | None) -> str:
    """Return a number with its unit: seconds as milliseconds, shares in percent, everything else as it is."""
    if text is None:
        return NONE
    if kind is LiveKind.LATENCY:
        return f"{1000 * float(text):.3g} ms"
    if name == DRIFT or kind in _SHARES:
        return f"{100 * float(text):.3g} %"
    return text


def _triggers(resource: ModelOptimization, now: datetime) -> Iterator[tuple[str, str]]:
    state, spec = resource.status.triggers, resource.spec.triggers
    for pending in state.pending:
        message = "" if pending.message in sentences(resource) else f": {pending.message}"
        yield "Pending", f"{pending.reason} for {figures.age(pending.since, now)}{message}"
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
    counts = ((no_gain, "without gain"), (rolled_back, "rolled back"))
    streaks = [f"{count} {ending} in a row" for count, ending in counts if count]
    return f" ({', '.join(streaks)})" if streaks else ""
