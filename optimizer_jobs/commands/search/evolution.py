"""CMA-ES over the numeric parameters of a space; its state is rebuilt from the study's trials for every proposal.

Optuna's own CMA-ES sampler stores its state as a pickle in the study, so whoever can write to the store could run code
here. Rebuilding takes milliseconds, loses nothing when a worker dies, and also learns from trials that other samplers
proposed. Parameters that are not numbers are sampled by TPE.
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
"""Added to the cost of a trial that misses a limit, so that it ranks behind every trial that keeps all limits."""


class EvolutionSampler(BaseSampler):
    """Proposes numbers by CMA-ES for one objective to minimize; trials that miss a limit rank last."""

    def __init__(self, *, seed: int) -> None:
        self._seed = seed
        self._space = IntersectionSearchSpace()
        self._others = TPESampler(seed=seed)

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the numeric parameters, or none when they are too few for CMA-ES; TPE then samples all of them."""
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
        """Return a proposal of an optimizer that has seen all complete trials, in whole generations."""
        if not search_space:
            return {}
        axes = {
            name: kind for name, kind in search_space.items() if isinstance(kind, FloatDistribution | IntDistribution)
        }
        optimizer = _optimizer(len(axes), seed=(self._seed + trial.number) % 2**31)
        solutions = [(_point(past, axes), _cost(past)) for past in _complete(study, axes)]
        size = optimizer.population_size
        for start in range(0, len(solutions) - size + 1, size):
            optimizer.tell(solutions[start : start + size])
        return _values(optimizer.ask(), axes)

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Return TPE's proposal for a parameter that is not a number."""
        return self._others.sample_independent(study, trial, param_name, param_distribution)


def _optimizer(dimensions: int, *, seed: int) -> Any:
    """Return a CMA-ES optimizer over [0, 1] in every dimension, in its initial state."""
    import cmaes

    return cmaes.CMA(
        mean=np.full(dimensions, 0.5),
        sigma=_SIGMA,
        bounds=np.tile([0.0, 1.0], (dimensions, 1)),
        n_max_resampling=_RESAMPLINGS,
        seed=seed,
    )


def _complete(study: optuna.Study, axes: Mapping[str, Numeric]) -> list[FrozenTrial]:
    """Return the complete trials in the order in which they ended, which is the same for every worker."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    usable = [trial for trial in trials if axes.keys() <= trial.params.keys()]
    return sorted(usable, key=lambda trial: (trial.datetime_complete, trial.number))


def _cost(trial: FrozenTrial) -> float:
    missed = sum(max(0.0, amount) for amount in (trial.constraints or {}).values())
    return float(trial.values[0]) + (_PENALTY * (1 + missed) if missed > 0 else 0.0)


def _point(trial: FrozenTrial, axes: Mapping[str, Numeric]) -> Point:
    """Return a trial's numeric parameters (D,), each scaled to 0..1."""
    return np.array([_share(float(trial.params[name]), kind) for name, kind in axes.items()])


def _share(value: float, kind: Numeric) -> float:
    if kind.log:
        return math.log(value / kind.low) / math.log(kind.high / kind.low)
    return (value - kind.low) / (kind.high - kind.low)


def _values(point: Point, axes: Mapping[str, Numeric]) -> dict[str, Any]:
    """Return the parameters at a point (D,) in 0..1, rounded to what the distributions allow."""
    return {name: _value(float(share), kind) for (name, kind), share in zip(axes.items(), point, strict=True)}


def _value(share: float, kind: Numeric) -> float | int:
    low, high = float(kind.low), float(kind.high)
    value = low * (high / low) ** share if kind.log else low + share * (high - low)
    if kind.step and not kind.log:
        value = low + round((value - low) / kind.step) * kind.step
    value = min(high, max(low, value))
    return round(value) if isinstance(kind, IntDistribution) else value
