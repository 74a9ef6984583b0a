"""Other ways to retrain, on the same stream: never, every month, as Evidently's defaults say, and with hindsight.

All of them fit the stream's model anew on the last two months, and promote it whatever it is worth.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tests.bench.monitoring.alarms import evidently_share
from tests.bench.streams.models import Fitted, Places, fit
from tests.bench.streams.scores import (
    HARM_DAYS,
    Floats,
    Played,
    Promotion,
    best_switches,
    least_lost,
    log_loss,
    losses,
    share_of_gain,
)
from tests.bench.streams.sources import Stream

TRAINED_DAYS = 61
"""Days before a retraining whose rows it learns from."""
DRIFTED = 0.5
"""Share of drifted columns from which Evidently's preset calls a data set drifted."""
_REFERENCE_ROWS = 20_000
_DAY = np.timedelta64(86400, "s")


def frozen(stream: Stream, delivered: Fitted) -> Played:
    """Let the delivered model serve to the end."""
    played = Played("frozen", np.full(len(stream), np.nan))
    live = stream.between(stream.begins, stream.times[-1] + np.timedelta64(1, "s"))
    played.answers[live] = delivered.probabilities(stream.rows.iloc[live])
    return played


@dataclass(frozen=True)
class Monthly:
    """The models that months begin with: the delivered one, and later one that is fitted at that moment."""

    stream: Stream
    answers: Floats
    """(M, N): what the model of each month answers to each row from then on; NaN before."""
    seconds: tuple[float, ...]
    """CPU seconds that each took to fit; 0 for the delivered one."""

    @classmethod
    def of(cls, stream: Stream, delivered: Fitted) -> "Monthly":
        """Fit a model at the beginning of each month but the first."""
        months = stream.months()
        answers = np.full((len(months) - 1, len(stream)), np.nan)
        seconds = [0.0] * len(answers)
        for number, month in enumerate(months[:-1]):
            began = time.process_time()
            model = fit(stream, _learned(stream, month)) if number else delivered
            seconds[number] = time.process_time() - began if number else 0.0
            rest = stream.between(month, months[-1])
            answers[number, rest] = model.probabilities(stream.rows.iloc[rest])
        return cls(stream, answers, tuple(seconds))

    @property
    def losses(self) -> Floats:
        """(M, M): total loss in month k of the model of month m; NaN before that."""
        edges = np.searchsorted(self.stream.times, np.asarray(self.stream.months()))
        by_row = [losses(answers, self.stream.labels) for answers in self.answers]
        return np.asarray([[row[first:last].sum() for first, last in pairwise(edges)] for row in by_row])

    def played(self, name: str, switches: Collection[int]) -> Played:
        """Return what becomes of the stream where the model is replaced at the beginning of these months."""
        months, serving = self.stream.months(), 0
        result = Played(name, np.full(len(self.stream), np.nan))
        for number, (first, last) in enumerate(pairwise(months)):
            if number in switches:
                following = self.stream.between(first, first + HARM_DAYS * _DAY)
                labels = self.stream.labels[following]
                both = (log_loss(self.answers[model, following], labels) for model in (serving, number))
                result.promotions.append(Promotion(first, *both))
                result.runs.append(first)
                result.cpu_seconds += self.seconds[number]
                serving = number
            rows = self.stream.between(first, last)
            result.answers[rows] = self.answers[serving, rows]
        return result


def of_few(models: Monthly, counts: Collection[int]) -> dict[int, float]:
    """Return which share of hindsight's gain hindsight has with at most so many replacements."""
    table = models.losses
    frozen, best = float(table[0].sum()), least_lost(table, len(table))
    return {count: share_of_gain(frozen, least_lost(table, count), best) for count in counts}


def every_month(models: Monthly) -> Played:
    """Retrain at the beginning of each month but the first."""
    return models.played("every month", range(1, len(models.answers)))


def hindsight(models: Monthly) -> Played:
    """Retrain at the beginning of the months that somebody would choose who knows the future."""
    return models.played("hindsight", best_switches(models.losses))


def evidently(stream: Stream, delivered: Fitted) -> Played:
    """Retrain at once whenever Evidently's defaults call a window drifted from what the model was trained on."""
    retrained = _Retrained(stream, delivered, "Evidently's defaults")
    history = np.arange(np.searchsorted(stream.times, stream.begins))
    reference, generator, began = history, np.random.default_rng(0), stream.begins
    length, end = stream.window_days * _DAY, stream.times[-1]
    while began <= end:
        retrained.serve(began, began + length)
        window, before = stream.between(began, began + length), time.process_time()
        drawn = np.sort(generator.permutation(reference)[:_REFERENCE_ROWS])
        drifted = len(window) and _share(stream, drawn, window) >= DRIFTED
        retrained.played.cpu_seconds += time.process_time() - before
        began = began + length
        if drifted and began <= end:
            reference = retrained.run(began)
    return retrained.played


def promotion(
    stream: Stream, at: np.datetime64, before: Callable[..., Floats], after: Callable[..., Floats]
) -> Promotion:
    """Return a promotion with the loss of both models on the month that followed."""
    rows = stream.between(at, at + HARM_DAYS * _DAY)
    inputs, labels = stream.rows.iloc[rows], stream.labels[rows]
    return Promotion(at, *(log_loss(model(inputs), labels) for model in (before, after)))


class _Retrained:
    """A model that is replaced again and again."""

    def __init__(self, stream: Stream, delivered: Fitted, name: str) -> None:
        self._stream, self.model = stream, delivered
        self.played = Played(name, np.full(len(stream), np.nan))

    def serve(self, first: np.datetime64, last: np.datetime64) -> None:
        """Answer the rows of a span of time."""
        rows = self._stream.between(first, last)
        if len(rows):
            self.played.answers[rows] = self.model.probabilities(self._stream.rows.iloc[rows])

    def run(self, at: np.datetime64) -> Places:
        """Retrain and promote; returns the rows that were learned from."""
        rows, began = _learned(self._stream, at), time.process_time()
        model = fit(self._stream, rows)
        self.played.cpu_seconds += time.process_time() - began
        self.played.runs.append(at)
        step = promotion(self._stream, at, self.model.probabilities, model.probabilities)
        self.played.promotions.append(step)
        self.model = model
        return rows


def _learned(stream: Stream, at: np.datetime64) -> Places:
    return stream.between(at - TRAINED_DAYS * _DAY, at)


def _share(stream: Stream, reference: Places, window: Places) -> float:
    return evidently_share(stream.rows.iloc[reference], stream.rows.iloc[window])
