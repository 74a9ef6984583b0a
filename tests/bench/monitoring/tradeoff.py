"""How soon a change is seen against how often monitoring cries wolf: the same windows under many settings.

Each window is measured once and decided under every setting. Both sides are heard by the planner's own rule, so that
an alarm is the same thing for both: a signal that is raised and was not.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from optimizer_jobs.commands.check.drift import Measured, decide, measure
from optimizer_jobs.commands.check.drift_verdict import judge
from retune.api.monitoring import Drift
from retune.api.watched import Verdict
from retune.contract.results import SignalVerdict
from tests.bench.monitoring.alarms import DELAY_LIMIT, PER_REFERENCE, evidently_share, raises
from tests.bench.monitoring.worlds import World

RATES = ("0.0001", "0.001", "0.01", "0.05", "0.2", "0.5")
SHARES = (0.01, 0.1, 0.2, 0.3, 0.4, 0.5)
"""Shares of drifted columns from which Evidently calls a window drifted; 0.01 is a single column here."""
COLUMNS = 0.25
"""Share of the columns that a change moves."""


@dataclass(frozen=True)
class Seen:
    """One window, as both measure it."""

    measured: Measured
    theirs: float
    """Share of the columns that Evidently's defaults call drifted."""
    rows: int


@dataclass(frozen=True)
class Point:
    """One setting."""

    setting: str
    alarms: float
    """False alarms in 1000 windows."""
    delay: float
    """Mean number of windows until a change is seen; DELAY_LIMIT + 1 counts where it is not."""
    default: bool


@dataclass(frozen=True)
class Sample:
    """Windows of all worlds, in the order of time: those without a change by reference, those after one by change."""

    quiet: Sequence[Sequence[Seen]]
    changed: Sequence[Sequence[Seen]]


def sample(
    worlds: Sequence[World], references: Mapping[str, int], *, windows: int, runs: int, rows: int, deviations: float
) -> Sample:
    """Draw and measure windows: of every world so many without a change, and so many runs with one."""
    quiet, changed = [], []
    for world in worlds:
        for run in range(-(-windows // PER_REFERENCE)):
            generator = np.random.default_rng([11, run])
            before = world.draw(references[world.name], generator)
            quiet.append([_seen(before, world.draw(rows, generator), world) for _ in range(PER_REFERENCE)])
        for run in range(runs):
            generator = np.random.default_rng([13, run])
            before = world.draw(references[world.name], generator)
            change = world.shifted(deviations, COLUMNS, generator)
            changed.append(
                [_seen(before, world.draw(rows, generator, change=change), world) for _ in range(DELAY_LIMIT)]
            )
    return Sample(quiet, changed)


def curves(found: Sample) -> dict[str, list[Point]]:
    """Return a line of points for each way to raise an alarm."""
    defaults = Drift()
    lines = {
        f"Retune, {consecutive} in a row": [
            _point(
                found,
                _ours(Drift(false_discovery_rate=rate)),
                consecutive,
                f"rate {rate}",
                default=(rate, consecutive) == (defaults.false_discovery_rate, defaults.consecutive),
            )
            for rate in RATES
        ]
        for consecutive in (defaults.consecutive, 1)
    }
    theirs = [_point(found, _theirs(share), 1, f"share {share}", default=share == 0.5) for share in SHARES]
    return lines | {"Evidently": theirs}


def _seen(before: pd.DataFrame, now: pd.DataFrame, world: World) -> Seen:
    return Seen(measure(before, now, Drift(), names=world.columns), evidently_share(before, now), len(now))


def _ours(drift: Drift) -> Callable[[Seen], SignalVerdict]:
    return lambda each: judge(decide(each.measured, drift), drift, samples=each.rows)


def _theirs(share: float) -> Callable[[Seen], SignalVerdict]:
    def told(each: Seen) -> SignalVerdict:
        verdict = Verdict.BREACH if each.theirs >= share else Verdict.CLEAR
        return SignalVerdict(verdict=verdict, reason="Evidently", message="Evidently's default rule.")

    return told


def _point(
    found: Sample, told: Callable[[Seen], SignalVerdict], consecutive: int, setting: str, *, default: bool
) -> Point:
    def heard(run: Sequence[Seen]) -> Iterator[int]:
        return raises(map(told, run), consecutive)

    alarms = sum(len(list(heard(run))) for run in found.quiet)
    delays = [next(heard(run), DELAY_LIMIT + 1) for run in found.changed]
    return Point(setting, 1000 * alarms / sum(map(len, found.quiet)), float(np.mean(delays)), default)
