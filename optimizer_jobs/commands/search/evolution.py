"""CMA-ES over the numbers of a space, with its state rebuilt from the study's trials every time.

Optuna's own sampler keeps its state as a pickle in the study, which any writer of the store could turn into code that
runs here. Rebuilding costs milliseconds, loses nothing when a worker dies, and learns from trials that others proposed.
What is no number is left to TPE.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.search_space import IntersectionSearchSpace
from optuna.trial import FrozenTrial, TrialState

Numeric = FloatDistribution | IntDistribution
Point = NDArray[np.float64]
_LEAST_DIMENSIONS = 2
_SIGMA = 1 / 6
_RESAMPLINGS = 100
_PENALTY = 1e3
"""Added to the cost of a trial that misses a limit, so that every one that keeps them ranks before it."""


class EvolutionSampler(BaseSampler):
    """Proposes numbers by CMA-ES, for one objective to minimize; limits are kept by rank."""

    def __init__(self, *, seed: int) -> None:
        self._seed = seed
        self._space = IntersectionSearchSpace()
        self._others = TPESampler(seed=seed)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the numbers; none when there are too few for CMA-ES, and all are then left to TPE."""
        shared = self._space.calculate(study)
        numbers = {
            name: kind
            for name, kind in shared.items()
            if isinstance(kind, FloatDistribution | IntDistribution) and not kind.single()
        }
        return dict(numbers) if len(numbers) >= _LEAST_DIMENSIONS else {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Ask an optimizer that was told all complete trials, a generation at a time."""
        if not search_space:
            return {}
        import cmaes

        axes = {
            name: kind for name, kind in search_space.items() if isinstance(kind, FloatDistribution | IntDistribution)
        }
        seed = (self._seed + trial.number) % 2**31
        optimizer = cmaes.CMA(
            mean=np.full(len(axes), 0.5),
            sigma=_SIGMA,
            bounds=np.tile([0.0, 1.0], (len(axes), 1)),
            n_max_resampling=_RESAMPLINGS,
            seed=seed,
        )
        told = [(_point(past, axes), _cost(past)) for past in _complete(study, axes)]
        size = optimizer.population_size
        for start in range(0, len(told) - size + 1, size):
            optimizer.tell(told[start : start + size])
        return _values(optimizer.ask(), axes)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Leave a choice to TPE."""
        return self._others.sample_independent(study, trial, param_name, param_distribution)


def _complete(study: optuna.Study, axes: Mapping[str, Numeric]) -> list[FrozenTrial]:
    """Return the measured trials in the order in which they ended, the same for every worker."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    usable = [trial for trial in trials if axes.keys() <= trial.params.keys()]
    return sorted(usable, key=lambda trial: (trial.datetime_complete, trial.number))


def _cost(trial: FrozenTrial) -> float:
    missed = sum(max(0.0, amount) for amount in (trial.constraints or {}).values())
    return float(trial.values[0]) + (_PENALTY * (1 + missed) if missed > 0 else 0.0)


def _point(trial: FrozenTrial, axes: Mapping[str, Numeric]) -> Point:
    """Return a trial's numbers, each from 0 to 1."""
    return np.array([_share(float(trial.params[name]), kind) for name, kind in axes.items()])


def _share(value: float, kind: Numeric) -> float:
    if kind.log:
        return math.log(value / kind.low) / math.log(kind.high / kind.low)
    return (value - kind.low) / (kind.high - kind.low)


def _values(point: Point, axes: Mapping[str, Numeric]) -> dict[str, Any]:
    """Return what a point from 0 to 1 means, as the distributions allow it."""
    return {name: _value(float(share), kind) for (name, kind), share in zip(axes.items(), point, strict=True)}


def _value(share: float, kind: Numeric) -> float | int:
    low, high = float(kind.low), float(kind.high)
    value = low * (high / low) ** share if kind.log else low + share * (high - low)
    if kind.step and not kind.log:
        value = low + round((value - low) / kind.step) * kind.step
    value = min(high, max(low, value))
    return round(value) if isinstance(kind, IntDistribution) else value
