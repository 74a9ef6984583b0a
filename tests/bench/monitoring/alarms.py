"""Simulated windows through the real check: false alarms without a change, and how soon a change is seen."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import pandas as pd

from optimizer_jobs.commands.check.drift import compare
from optimizer_jobs.commands.check.drift_verdict import judge
from retune.api.monitoring import Drift
from retune.api.watched import Signal, Verdict
from retune.contract.results import SignalVerdict
from retune.plan.watch.alarms import DRIFT, Rule, after_window
from tests.bench.monitoring.worlds import World

PER_REFERENCE = 50
"""Windows that share one reference, as they do in a cluster."""
DELAY_LIMIT = 10
_NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Alarms:
    """Counts over all windows."""

    windows: int
    breaches: int
    raised: int
    """Times that enough breaches in a row raised the signal."""
    unknown: int
    evidently_windows: int
    """Windows that were shown to Evidently's defaults too."""
    evidently: int
    """Windows of these that its default rule calls drifted."""
    evidently_any: int
    """Windows of these in which it calls some column drifted."""
    evidently_columns: float
    """Mean share of columns that it calls drifted."""


def quiet(
    world: World, *, windows: int, rows: int, reference: int, rho: float = 0.0, seed: int = 0, beside: int = 0
) -> Alarms:
    """Return what is said of windows without any change."""
    drift = Drift()
    verdicts: list[list[SignalVerdict]] = []
    theirs: list[float] = []
    for run in range(-(-windows // PER_REFERENCE)):
        generator = np.random.default_rng([seed, run])
        before = world.draw(reference, generator)
        verdicts.append([])
        for _ in range(PER_REFERENCE):
            now = world.draw(rows, generator, rho=rho)
            verdicts[-1].append(_verdict(before, now, drift, world))
            theirs += [evidently_share(before, now)] if len(theirs) < beside else []
    flat = [each.verdict for run in verdicts for each in run]
    return Alarms(
        windows=len(flat),
        breaches=flat.count(Verdict.BREACH),
        unknown=flat.count(Verdict.UNKNOWN),
        raised=sum(len(list(raises(run, drift.consecutive))) for run in verdicts),
        evidently_windows=len(theirs),
        evidently=sum(share >= 0.5 for share in theirs),
        evidently_any=sum(share > 0 for share in theirs),
        evidently_columns=float(np.mean(theirs)) if theirs else float("nan"),
    )


def delays(
    world: World, *, deviations: float, share: float, runs: int, rows: int, reference: int, seed: int = 0
) -> list[int]:
    """Return after how many windows the signal was raised, by run; DELAY_LIMIT + 1 where it was not."""
    found = []
    for run in range(runs):
        generator = np.random.default_rng([seed, run, 7])
        before = world.draw(reference, generator)
        change = world.shifted(deviations, share, generator)
        found.append(_delay(before, (world.draw(rows, generator, change=change) for _ in range(DELAY_LIMIT)), world))
    return found


def raises(verdicts: Iterable[SignalVerdict], consecutive: int) -> Iterator[int]:
    """Yield at which windows the planner raises the signal, counted from 1."""
    signal = Signal(name=DRIFT)
    for number, told in enumerate(verdicts, start=1):
        after = after_window(signal, told, window=number, rule=Rule(consecutive), now=_NOW)
        if after.raised and not signal.raised:
            yield number
        signal = after


def evidently_share(reference: pd.DataFrame, current: pd.DataFrame) -> float:
    """Return the share of columns that Evidently's defaults call drifted: its own choice of tests and thresholds."""
    from evidently.legacy.calculations.stattests import get_stattest
    from evidently.legacy.core import ColumnType

    drifted = []
    for name in reference.columns:
        kind = ColumnType.Numerical if pd.api.types.is_numeric_dtype(reference[name]) else ColumnType.Categorical
        test = get_stattest(reference[name], current[name], kind, None)
        drifted.append(bool(test(reference[name], current[name], kind, None).drifted))
    return float(np.mean(drifted))


def _delay(before: pd.DataFrame, windows: Iterator[pd.DataFrame], world: World) -> int:
    drift = Drift()
    told = (_verdict(before, now, drift, world) for now in windows)
    return next(raises(told, drift.consecutive), DELAY_LIMIT + 1)


def _verdict(before: pd.DataFrame, now: pd.DataFrame, drift: Drift, world: World) -> SignalVerdict:
    return judge(compare(before, now, drift, names=world.columns), drift, samples=len(now))
