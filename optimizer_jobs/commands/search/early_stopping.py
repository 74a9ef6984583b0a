"""Stops training that falls behind others or takes too long. Optuna's own rules work for a single objective only.

Every training writes its quality after each epoch into the study, where all workers see it. Only trainings of the same
techniques from the same kind of start are compared. A training that already keeps the quality limits is never stopped,
because a smaller model that learns more slowly may still be the better one.
"""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Literal

import optuna
from optuna.trial import Trial, TrialState

from optimizer_jobs.commands.search.budget import Budget
from optimizer_jobs.commands.search.termination import termination_held_back
from optimizer_jobs.technique import StoppedEarlyError

EarlyStopping = Literal["Auto", "None", "Median", "SuccessiveHalving"]
Curve = Mapping[int, float]
"""Quality on validation by epoch; higher is better."""

LEAST_CURVES = 4
"""Smallest number of other trainings to compare with; with fewer, nothing is stopped."""
WARM_UP = 3
"""No training is stopped before this epoch."""
KEPT_SHARE = 3
"""Successive halving keeps the best third at each rung, and the next rung is three times as many epochs later."""
TIME_SHARE = 0.25
"""Largest share of the search's remaining time that one training may take."""
_CURVE = "curve:"
_COMPARED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


class Watch:
    """Follows one trial while it is built, and stops it when it falls behind or when a budget is spent."""

    def __init__(
        self,
        trial: Trial,
        study: optuna.Study,
        *,
        rule: EarlyStopping,
        budget: Budget,
        enough: Callable[[float], bool],
        note: Callable[[Mapping[str, float]], None] | None = None,
        every_seconds: float = 0.0,
    ) -> None:
        """Watch a trial.

        Args:
            trial: The trial.
            study: Its study.
            rule: Rule of early stopping.
            budget: The search's budgets.
            enough: Returns whether a quality on validation keeps the limits.
            note: Sets user attributes of the trial together; None sets them one by one.
            every_seconds: How long qualities may be kept back, to be recorded together.
        """
        self._trial, self._study, self._rule, self._budget, self._enough = trial, study, rule, budget, enough
        self._group, self._phase, self._last = "", 0, 0
        self._until = math.inf
        self._seen: dict[str, dict[int, dict[int, float]]] = {}
        self._note, self._every, self._noted_at = note or self._one_by_one, every_seconds, -math.inf
        self._unnoted: dict[str, float] = {}
        self._mine: dict[str, dict[int, float]] = defaultdict(dict)

    def entering(self, group: str) -> None:
        """Note that the trial enters its next step, named `group`; raises BudgetSpentError."""
        self.alive()
        with termination_held_back():
            self._flush()
            left = self._budget.left()
        self._group, self._phase, self._last = group, 0, 0
        self._until = time.monotonic() + TIME_SHARE * left

    def alive(self) -> float:
        """Return the seconds that the trial's step may still take; raises BudgetSpentError when a budget is spent."""
        with termination_held_back():
            self._budget.check()
        return self._until - time.monotonic()

    def seconds_left(self) -> float:
        """Return the seconds of wall time that the search has left; infinite without a limit."""
        with termination_held_back():
            return self._budget.left()

    def report(self, epoch: int, quality: float) -> bool:
        """Record the quality after an epoch.

        Returns:
            Whether there is time for another epoch.

        Raises:
            StoppedEarlyError: The training is behind others, or a budget is spent.
        """
        self.alive()
        if epoch <= self._last:
            self._phase += 1
        self._last = epoch
        with termination_held_back():
            self._compare(epoch, quality)
        return time.monotonic() < self._until

    def _compare(self, epoch: int, quality: float) -> None:
        if self._rule == "None":
            return
        name = f"{self._group}#{self._phase}"
        self._mine[name][epoch] = quality
        self._unnoted[f"{_CURVE}{name}:{epoch}"] = quality
        if time.monotonic() - self._noted_at >= self._every:
            self._flush()
        reason = self._behind(name, epoch)
        if reason is not None:
            self._flush()
            raise StoppedEarlyError(f"stopped early at epoch {epoch}: {reason}")

    def _flush(self) -> None:
        """Record the qualities that were kept back."""
        if self._unnoted:
            self._note(self._unnoted)
            self._unnoted, self._noted_at = {}, time.monotonic()

    def _one_by_one(self, attributes: Mapping[str, float]) -> None:
        for name, quality in attributes.items():
            self._trial.set_user_attr(name, quality)

    def _behind(self, name: str, epoch: int) -> str | None:
        if epoch < WARM_UP:
            return None
        curves = self._curves(name)
        curves.pop(self._trial.number, None)
        mine = _best(self._mine[name], epoch)
        if mine is None or self._enough(mine):
            return None
        rule = below_best_share if self._rule == "SuccessiveHalving" else below_median
        return rule(mine, list(curves.values()), epoch)

    def _curves(self, name: str) -> dict[int, dict[int, float]]:
        """Return all curves of one kind of training by trial; after the first call, only running trials are read."""
        states = _COMPARED if name not in self._seen else (TrialState.RUNNING,)
        self._seen.setdefault(name, {}).update(curves_of(self._study, name, states))
        return dict(self._seen[name])


def curves_of(study: optuna.Study, name: str, states: Sequence[TrialState] = _COMPARED) -> dict[int, dict[int, float]]:
    """Return the curves of one kind of training.

    Args:
        study: The study.
        name: Kind of training: the step's group and the number of its phase, as `GROUP#PHASE`.
        states: States of the trials to read.

    Returns:
        Curve by the number of its trial.
    """
    curves: dict[int, dict[int, float]] = defaultdict(dict)
    prefix = f"{_CURVE}{name}:"
    for trial in study.get_trials(deepcopy=False, states=tuple(states)):
        for attribute, quality in trial.user_attrs.items():
            if attribute.startswith(prefix):
                curves[trial.number][int(attribute.removeprefix(prefix))] = float(quality)
    return dict(curves)


def below_median(mine: float, others: Sequence[Curve], epoch: int) -> str | None:
    """Return why a training is behind, in words, if it is below the median of the others.

    Args:
        mine: Best quality of this training so far.
        others: Curves of the other trainings; the best quality up to this epoch counts.
        epoch: Epoch that this training has finished.
    """
    reached = _reached(others, epoch)
    if len(reached) < LEAST_CURVES or mine >= median(reached):
        return None
    return f"behind the median of {len(reached)} trials"


def below_best_share(mine: float, others: Sequence[Curve], epoch: int) -> str | None:
    """Return why a training is behind, in words, if this epoch is a rung and it is not among the best third.

    Args:
        mine: Best quality of this training so far.
        others: Curves of the other trainings; those that reached this epoch count, with their best quality up to it.
        epoch: Epoch that this training has finished.
    """
    reached = _reached(others, epoch)
    if not is_rung(epoch) or len(reached) < LEAST_CURVES:
        return None
    kept = max(1, (len(reached) + 1) // KEPT_SHARE)
    if sum(other > mine for other in reached) < kept:
        return None
    return f"not among the best {kept} of {len(reached) + 1} trials"


def is_rung(epoch: int) -> bool:
    """Return whether successive halving decides after this epoch: 3, 9, 27 and so on."""
    while epoch > WARM_UP and epoch % KEPT_SHARE == 0:
        epoch //= KEPT_SHARE
    return epoch == WARM_UP


def _reached(curves: Sequence[Curve], epoch: int) -> list[float]:
    """Return the best quality up to this epoch of each curve that reached it."""
    bests = (_best(curve, epoch) for curve in curves if max(curve) >= epoch)
    return [best for best in bests if best is not None]


def _best(curve: Curve, epoch: int) -> float | None:
    return max((quality for reached, quality in curve.items() if reached <= epoch), default=None)
