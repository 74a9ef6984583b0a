"""How long a search will take, estimated from the model before the first trial; from it, the limit where none is set.

The estimate is rough: it is there so that a person knows whether to wait, and so that a search of a small model ends
while they do. Where the machine is busy, or measuring takes long, the first trial shows it, and the limit grows with
it. The estimate never decides what is tried.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from optimizer_jobs.progress import duration_words
from optimizer_jobs.techniques.registry import TECHNIQUES
from retune.api.techniques import Technique

LEAST_SECONDS = 120.0
"""Limit of time for the smallest model."""
_SLACK = 1.5
"""The limit in multiples of the estimate."""
_PASSES = 4
"""How often a usual trial runs over the validation rows: calibration, quality limit, proxy rows, quality."""
_FIXED_SECONDS = 1.5
"""What a trial takes for opening, storing and measuring a model that answers at once."""
_MOST_PACE = 10.0
"""Most times that a slow first trial lengthens the estimate by: beyond, something was in its way once."""
_TRAINED_SHARE = 0.5
"""Share of the trials that train, where a technique does."""
_TRAINED_PASSES, _TRAINED_SECONDS = 60, 3.0
"""What a training takes: 20 epochs, each as long as three passes over the training rows, and what it takes at least."""


@dataclass(frozen=True)
class Estimate:
    """How long a search will take."""

    trials: int
    """Number of trials."""
    trial_seconds: float
    """Wall time of a usual trial."""
    untrained_seconds: float
    """Wall time of a trial that trains nothing."""
    workers: int = 1
    """Trials that run at the same time."""

    @property
    def seconds(self) -> float:
        """Wall time of the search without a limit."""
        return self.trials * self.trial_seconds / self.workers

    @property
    def limit(self) -> float:
        """Limit of wall time where the spec sets none, in seconds."""
        return max(LEAST_SECONDS, _SLACK * self.seconds)

    def after(self, seconds: float, *, workers: int | None = None) -> "Estimate":
        """Return the estimate after a first trial, which trained nothing; it never becomes shorter.

        Args:
            seconds: Wall time that the trial took.
            workers: Workers that have begun by then, of which there may be fewer than were asked for; None means all.
        """
        pace = min(max(1.0, seconds / self.untrained_seconds), _MOST_PACE)
        return replace(
            self,
            trial_seconds=pace * self.trial_seconds,
            untrained_seconds=pace * self.untrained_seconds,
            workers=min(self.workers, workers or self.workers),
        )

    def words(self, limit: float) -> str:
        """Return the estimate in words, such as `14 min: 30 trials of ~25 s`; `limit` is the search's, in seconds."""
        trials = f"{self.trials} trials of ~{duration_words(max(1.0, self.trial_seconds))}"
        if limit < self.seconds:
            return f"{duration_words(limit)}, its budget: {trials} would take {duration_words(self.seconds)}"
        return f"{duration_words(max(1.0, self.seconds))}: {trials}"


def estimate(
    *,
    trials: int,
    workers: int,
    techniques: Sequence[Technique],
    row_seconds: float,
    bulk_seconds: float,
    latency_seconds: float,
    validation: int,
    training: int,
) -> Estimate:
    """Return the estimate of a search.

    Args:
        trials: Number of trials.
        workers: Trials that run at the same time.
        techniques: Techniques of the search.
        row_seconds: Time in which the champion answers a row, once in requests of each size that serves.
        bulk_seconds: The same when many rows are asked together, as in training.
        latency_seconds: Time that latency of a candidate and the champion is measured for.
        validation: Number of validation rows.
        training: Number of training rows; 0 without any.
    """
    usual = _FIXED_SECONDS + _PASSES * validation * row_seconds + latency_seconds
    trains = bool(training) and any(TECHNIQUES[spec.type].TRAINS for spec in techniques)
    trained = _TRAINED_SECONDS + _TRAINED_PASSES * training * bulk_seconds
    trial_seconds = usual + (_TRAINED_SHARE * trained if trains else 0.0)
    return Estimate(trials, trial_seconds, untrained_seconds=usual, workers=min(workers, trials))
