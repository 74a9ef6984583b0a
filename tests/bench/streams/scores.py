"""What a way to retrain was worth: quality over time, gain beside hindsight, and promotions that harmed. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]

HARM_DAYS = 30
"""Days after a promotion over which the new model is compared with the one before."""
_LEAST = 1e-6


@dataclass(frozen=True)
class Promotion:
    """A new model took the place of another one."""

    at: np.datetime64
    before: float
    """Log-loss of the model before on the month that followed; NaN where the stream ended."""
    after: float
    """The same of the new model."""

    @property
    def harmful(self) -> bool:
        """Whether the new model was worse than the one before on the month that followed."""
        return self.after > self.before


@dataclass
class Played:
    """What became of a stream under one way to retrain."""

    name: str
    answers: Floats
    """(N,): the probability that was answered to each live row; NaN for rows of the history."""
    runs: list[np.datetime64] = field(default_factory=list)
    """When something was trained anew."""
    promotions: list[Promotion] = field(default_factory=list)
    cpu_seconds: float = 0.0
    """CPU time of watching, training and judging."""

    @property
    def harmful(self) -> int:
        """Promotions that harmed."""
        return sum(promotion.harmful for promotion in self.promotions)

    @property
    def false_alarms(self) -> int:
        """Runs that helped nobody: nothing was promoted, or what was promoted harmed."""
        return len(self.runs) - len(self.promotions) + self.harmful


def losses(answers: Floats, labels: Labels) -> Floats:
    """Return the log-loss (N,) of each row."""
    bounded = np.clip(answers, _LEAST, 1 - _LEAST)
    return np.asarray(-np.log(np.where(labels == 1, bounded, 1 - bounded)))


def log_loss(answers: Floats, labels: Labels) -> float:
    """Return the mean log-loss; NaN of no rows."""
    return float(losses(answers, labels).mean()) if len(labels) else float("nan")


def auc(answers: Floats, labels: Labels) -> float:
    """Return the area under the ROC curve; NaN where there is one class only."""
    return float(roc_auc_score(labels, answers)) if len(np.unique(labels)) > 1 else float("nan")


def share_of_gain(frozen: float, policy: float, hindsight: float) -> float:
    """Return which share of what hindsight takes off the frozen model's loss a policy takes off; NaN where none is."""
    possible = frozen - hindsight
    return (frozen - policy) / possible if possible > 0 else float("nan")


def best_switches(losses_of: Floats) -> list[int]:
    """Return at which months a model is best replaced by the one that is fitted then, knowing all of the future.

    Args:
        losses_of: (M, M): total loss in month k of the model that can first serve in month m; row 0 is the delivered
            one. Only months k >= m of a row are looked at.

    Returns:
        The months of the replacements; of equally good plans, one with the fewest.
    """
    months = len(losses_of)
    cost = np.zeros((months + 1, months))
    switches = np.zeros((months + 1, months), dtype=np.int64)
    for month in reversed(range(months)):
        for serving in range(month + 1):
            stay = (cost[month + 1, serving] + losses_of[serving, month], switches[month + 1, serving])
            move = (cost[month + 1, month] + losses_of[month, month], switches[month + 1, month] + 1)
            chosen = stay if serving == month else min(stay, move)
            cost[month, serving], switches[month, serving] = chosen
    return _replayed(losses_of, cost, switches)


def least_lost(losses_of: Floats, count: int) -> float:
    """Return the total loss of the best plan with at most `count` replacements.

    Args:
        losses_of: As `best_switches` takes it.
        count: Most replacements.
    """
    months = len(losses_of)
    served = np.asarray(
        [np.cumsum(np.where(np.arange(months) >= month, losses_of[month], 0.0)) for month in range(months)]
    )
    rest = served[:, -1]
    for _ in range(count):
        switched = [
            min((served[month, later - 1] + rest[later] for later in range(month + 1, months)), default=np.inf)
            for month in range(months)
        ]
        rest = np.minimum(served[:, -1], switched)
    return float(rest[0])


def _replayed(losses_of: Floats, cost: Floats, switches: NDArray[np.int64]) -> list[int]:
    """Return the replacements of the cheapest plan, from the costs of all that may follow."""
    found, serving = list[int](), 0
    for month in range(1, len(losses_of)):
        stay = (cost[month + 1, serving] + losses_of[serving, month], switches[month + 1, serving])
        move = (cost[month + 1, month] + losses_of[month, month], switches[month + 1, month] + 1)
        if move < stay:
            found.append(month)
            serving = month
    return found


def by_month(
    answers: Floats, labels: Labels, times: NDArray[np.datetime64], months: Sequence[np.datetime64]
) -> list[tuple[float, float]]:
    """Return log-loss and AUC of each month; `months` are their beginnings and the end of the last one."""
    edges = np.searchsorted(times, np.asarray(months))
    spans = [slice(first, last) for first, last in pairwise(edges)]
    return [(log_loss(answers[span], labels[span]), auc(answers[span], labels[span])) for span in spans]
