"""Segments through the check's own code: false alarms without a change, and how soon a loss in one segment is raised.

A world's rows have true labels and a real model's answers. The planted loss makes right answers of one segment wrong,
and of nothing else, so little that the whole's quality stays within its limit.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from optimizer_jobs.commands.check import labelled_quality, segment_choice
from optimizer_jobs.commands.check.segment_cuts import Mask, cuts, largest, masks
from optimizer_jobs.commands.check.segment_losses import Labels, Standing, standings
from optimizer_jobs.commands.check.segment_verdict import Segmented, segment_of, summary
from optimizer_jobs.commands.check.watched_quality import Answered
from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.answers import Answers, Predictions
from optimizer_jobs.measure.yardstick import PLAIN
from retune.api.metrics import Metric
from retune.api.monitoring import Quality, Segments
from retune.api.watched import Signal, Verdict, WatchedSegment
from retune.contract.results import CheckResult, SignalVerdict
from retune.plan.watch.alarms import QUALITY, SEGMENT, Rule, after_window
from retune.plan.watch.segments import after_check
from tests.bench.monitoring.alarms import DELAY_LIMIT, PER_REFERENCE
from tests.bench.monitoring.worlds import LOADERS, world
from tests.bench.streams.sources import SOURCES

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_LEARNT, _KEPT = 20_000, 40_000
_CLOSE = 0.35
"""How far a segment's share of the rows may be from the one that is wanted, as a share of it."""


@dataclass(frozen=True)
class Place:
    """Rows with labels that windows are drawn from, and what a real model answers to them."""

    name: str
    rows: pd.DataFrame
    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]

    def draw(self, rows: int, generator: np.random.Generator, *, rho: float = 0.0) -> NDArray[np.int64]:
        """Return places (N,) in the order of time; with `rho`, that share of the rows is as right as the one before."""
        chosen = generator.integers(0, len(self.rows), rows)
        if rho:
            right = self.labels == self.predicted
            pools = (np.flatnonzero(~right), np.flatnonzero(right))
            for place in np.flatnonzero(generator.random(rows) < rho):
                chosen[place] = generator.choice(pools[int(right[chosen[place - 1]])])
        return chosen


def place(name: str, packages: Path | None) -> Place:
    """Return a world by name: scikit-learn's, or a stream of the packages, of which a model has learnt other rows."""
    if name in LOADERS:
        found = world(name)
        return Place(name, found.rows, found.labels, np.asarray(found.model.predict(found.rows)))
    if packages is None:
        raise ValueError(f"{name} needs --packages")
    stream = SOURCES[name](packages)
    order = np.random.default_rng(0).permutation(len(stream))
    learnt, kept = order[:_LEARNT], order[_LEARNT : _LEARNT + _KEPT]
    texts = [str(column) for column in stream.rows if stream.rows[column].dtype == object]
    encoder = make_column_transformer(
        (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), texts), remainder="passthrough"
    )
    model = make_pipeline(encoder, HistGradientBoostingClassifier(random_state=0))
    model.fit(stream.rows.iloc[learnt], stream.labels[learnt])
    rows = stream.rows.iloc[kept].reset_index(drop=True)
    return Place(name, rows, stream.labels[kept], np.asarray(model.predict(rows)))


@dataclass(frozen=True)
class Sighted:
    """A reference, and what divides rows there."""

    place: Place
    at: NDArray[np.int64]
    """Rows of the reference that windows are compared with."""
    before: Mapping[str, Mask]
    everywhere: Mapping[str, Mask]
    """Which of all rows of the place are in each segment."""

    @classmethod
    def of(cls, where: Place, generator: np.random.Generator, *, rows: int, columns: Sequence[str] | None) -> "Sighted":
        """Draw a reference; without columns, they are chosen as the check does."""
        at = where.draw(rows, generator)
        frame = where.rows.iloc[at]
        if columns is None:
            first, rest = segment_choice.halves(rows)
            right = (where.labels == where.predicted)[at].astype(np.float64)
            columns = segment_choice.choose(frame[first], right[first], {})
        else:
            rest = np.ones(rows, dtype=np.bool_)
        divided = cuts(frame, columns)
        named = masks(divided, frame)
        kept = largest(named)
        everywhere = masks(divided, where.rows)
        before = {name: named[name][rest] for name in kept}
        return cls(where, at[rest], before, {name: everywhere[name] for name in kept})

    def judge(
        self, at: NDArray[np.int64], labels: NDArray[np.int64], settings: Segments, window: int, metric: Metric
    ) -> CheckResult:
        """Return what the check says of a window at these rows with these labels, whole and segments."""
        where = self.place
        told = np.concatenate([where.labels[self.at], labels])
        predicted = np.concatenate([where.predicted[self.at], where.predicted[at]])
        answered = Answered(Answers(Predictions(labels=predicted)), Rows({"row": np.zeros(len(told))}, told, digest=""))
        joint = Labels(answered, len(self.at), metric, PLAIN)
        now = {name: mask[at] for name, mask in self.everywhere.items()}
        found = standings(
            joint,
            self.before,
            now,
            counts_from=float(settings.max_degradation),
            min_labels=settings.min_labels,
            seed=0,
        )
        return _result(window, found, now, settings)

    def whole(self, at: NDArray[np.int64], labels: NDArray[np.int64]) -> SignalVerdict:
        """Return what the check says of the whole's accuracy."""
        before = (self.place.labels == self.place.predicted)[self.at].astype(np.float64)
        after = (labels == self.place.predicted[at]).astype(np.float64)
        return labelled_quality.judge_labels(Quality(), Metric.ACCURACY, reference=before, current=after)


def _result(
    window: int,
    found: Mapping[str, Standing],
    now: Mapping[str, Mask],
    settings: Segments,
) -> CheckResult:
    segments = tuple(segment_of(name, int(now[name].sum()), found.get(name), None, settings) for name in now)
    worst = sorted(segments, key=lambda one: -(one.standing.loss if one.standing else -9))
    judged = summary(Metric.ACCURACY, settings, Quality(), found, None)
    first = [one for one in worst if one.verdict is Verdict.BREACH]
    order = (*first, *(one for one in worst if one.verdict is not Verdict.BREACH))
    return CheckResult(
        spec_hash="0",
        window=window,
        champion_digest="0",
        labelled_window=window,
        segment=judged,
        segments=Segmented(judged, order).listed(()),
    )


@dataclass(frozen=True)
class Quiet:
    """Counts over windows without a change."""

    windows: int
    segments: float
    """Mean number of segments that were judged in a window."""
    breaches: int
    raised: int


def quiet(
    where: Place, *, windows: int, rows: int, reference: int, columns: Sequence[str] | None, rho: float = 0.0
) -> Quiet:
    """Return what is said of windows without any change, 50 windows to a reference."""
    settings, judged, raised, told = Segments(), [], 0, 0.0
    for run in range(-(-windows // PER_REFERENCE)):
        generator = np.random.default_rng([23, run])
        sighted = Sighted.of(where, generator, rows=reference, columns=columns)
        results = []
        for window in range(PER_REFERENCE):
            at = where.draw(rows, generator, rho=rho)
            results.append(sighted.judge(at, where.labels[at], settings, window, Metric.ACCURACY))
            told += len(sighted.before)
        raised += sum(1 for _ in raises(results, settings))
        judged += [result.segment.verdict for result in results if result.segment]
    return Quiet(len(judged), told / len(judged), judged.count(Verdict.BREACH), raised)


def raises(results: Sequence[CheckResult], settings: Segments) -> Iterator[int]:
    """Yield at which windows the planner raises the signal, counted from 1."""
    state: tuple[WatchedSegment, ...] = ()
    signals: tuple[Signal, ...] = ()
    for number, result in enumerate(results, start=1):
        was = any(signal.raised for signal in signals)
        after = after_check(state, signals, result, settings, now=_NOW)
        state, signals = after["segments"], after["signals"]  # type: ignore[assignment]
        if any(signal.raised for signal in signals if signal.name == SEGMENT) and not was:
            yield number


@dataclass(frozen=True)
class Planted:
    """How soon a loss in one segment is raised."""

    segment: str
    share: float
    """Its share of the rows."""
    delays: list[int]
    """Windows until it is raised, by run; DELAY_LIMIT + 1 where it is not."""
    whole: int
    """Runs in which the whole's quality was raised as soon."""


def planted(where: Place, *, share: float, loss: float, runs: int, rows: int, reference: int) -> Planted | None:
    """Return how soon a loss of accuracy in a segment of about this share of the rows is raised; None without one."""
    found = _segment_of(where, share)
    if found is None:
        return None
    column, name, inside = found
    others = [str(other) for other in where.rows if str(other) != column][:2]
    settings, delays, whole = Segments(), [], 0
    for run in range(runs):
        generator = np.random.default_rng([29, run])
        sighted = Sighted.of(where, generator, rows=reference, columns=[column, *others])
        results = []
        for window in range(DELAY_LIMIT):
            at = where.draw(rows, generator)
            right = where.labels[at] == where.predicted[at]
            usual = (where.labels == where.predicted)[inside].mean()
            wrong = right & inside[at] & (generator.random(rows) < loss / usual)
            labels = np.where(wrong, (where.predicted[at] + 1) % (where.labels.max() + 1), where.labels[at])
            said = sighted.judge(at, labels, settings, window, Metric.ACCURACY)
            results.append(said.model_copy(update={"quality": sighted.whole(at, labels)}))
            if any(raises(results, settings)):
                break
        delays.append(next(raises(results, settings), DELAY_LIMIT + 1))
        whole += any(number <= delays[-1] for number in _quality_raises(results))
    return Planted(name, float(inside.mean()), sorted(delays), whole)


def _quality_raises(results: Sequence[CheckResult]) -> Iterator[int]:
    signal = Signal(name=QUALITY)
    for number, result in enumerate(results, start=1):
        if result.quality is not None:
            rule = Rule(Quality().consecutive)
            signal = after_window(signal, result.quality, window=number, rule=rule, now=_NOW)
        if signal.raised:
            yield number


def _segment_of(where: Place, share: float) -> tuple[str, str, Mask] | None:
    """Return the column, the name and the rows of the segment whose share of the rows is the nearest."""
    told = [
        (abs(float(mask.mean()) - share), cut.column, name, mask)
        for cut in cuts(where.rows, [str(name) for name in where.rows])
        for name, mask in cut.masks(where.rows).items()
        if not name.endswith(("=other", " missing"))
    ]
    gap, column, name, mask = min(told, key=lambda one: one[0])
    return (column, name, mask) if gap <= _CLOSE * share else None
