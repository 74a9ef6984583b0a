"""All combinations of a space in a fixed order, for a search with the sampler Grid.

A continuous number is represented by its ends and its middle. Cheap combinations come first: the delivered model with
all engine options, then all sets of techniques with the usual options, then these sets with all other options.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, islice, product
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import RandomSampler
from optuna.trial import FixedTrial

from optimizer_jobs.commands.search.space import Plan, Space
from optimizer_jobs.commands.search.stages import CHEAPEST_FIRST, Stage, stage_of
from optimizer_jobs.technique import Params

LONGEST = 1000
"""Most combinations; no budget of trials is larger."""
_RAW = 10_000
"""Most parameter settings of one technique that are drawn to find those that make different plans."""
_WHOLE = 8
"""Longest range of whole numbers that is taken completely."""


@dataclass(frozen=True)
class _Group:
    """All settings of one technique, or of the engine."""

    variants: tuple[Params, ...]
    trains: bool = False
    """Whether a setting trains, which is expensive."""


@dataclass(frozen=True)
class Grid:
    """The combinations of a space in the order in which they are tried."""

    space: Space

    @cached_property
    def first(self) -> tuple[Params, ...]:
        """Trial parameters of all combinations, at most `LONGEST`."""
        return tuple(islice(self._ordered(), LONGEST))

    def fresh(self, tried: set[str], *, key: Callable[[Plan], str] | None = None) -> Params | None:
        """Return the trial parameters of the first combination that was not tried, or None.

        Args:
            tried: Keys of the plans that were tried.
            key: Returns a plan's key; None takes the plan's own key.
        """
        for params in self.first:
            plan = self._plan(params)
            if (key(plan) if key else plan.key) not in tried:
                return params
        return None

    def _ordered(self) -> Iterator[Params]:
        control, engine = self.space.control(), self._group("engine", keep_control=True)
        yield from (control | options for options in engine.variants)
        for engines in (engine.variants[:1], engine.variants[1:]):
            for groups in self._sets():
                for options, *variants in product(engines, *(group.variants for group in groups)):
                    yield control | options | {name: value for params in variants for name, value in params.items()}

    def _sets(self) -> list[tuple[_Group, ...]]:
        """Return every set of techniques: small sets first, and those that train behind all others."""
        specs = sorted(self.space.techniques, key=lambda spec: CHEAPEST_FIRST.index(spec.type))
        groups = [self._group(spec.name) for spec in specs]
        sets = [chosen for size in range(1, len(groups) + 1) for chosen in combinations(groups, size)]
        return sorted(sets, key=lambda chosen: any(group.trains for group in chosen))

    def _group(self, prefix: str, *, keep_control: bool = False) -> _Group:
        """Return all settings of the parameters with a prefix that make different plans.

        Args:
            prefix: Name of the technique, or `engine`.
            keep_control: Whether the control's own setting is among them, as the first.
        """
        control = self.space.control()
        own = {name: value for name, value in control.items() if name.startswith(f"{prefix}.")}
        seen, variants, trains = {self._plan(control).key}, [own] if keep_control else [], False
        choices = {name: _values(self._distributions[name]) for name in own}
        for values in islice(product(*choices.values()), _RAW):
            params = dict(zip(choices, values, strict=True))
            plan = self._plan(control | params)
            if plan.key not in seen and len(variants) < LONGEST:
                variants.append(params)
                trains = trains or stage_of(plan.steps) is Stage.TRAINING
            seen.add(plan.key)
        return _Group(tuple(variants), trains=trains)

    @cached_property
    def _distributions(self) -> dict[str, BaseDistribution]:
        """The distribution of each parameter; every trial is asked for all parameters."""
        trial = optuna.create_study(sampler=RandomSampler(seed=0)).ask()
        self.space.draw(trial)
        return trial.distributions

    def _plan(self, params: Params) -> Plan:
        return self.space.draw(FixedTrial(params))


def _values(kind: BaseDistribution) -> list[Any]:
    """Return all values of a choice or a short range, or the ends and the middle of a long range."""
    if isinstance(kind, CategoricalDistribution):
        return list(kind.choices)
    if isinstance(kind, IntDistribution):
        whole = range(kind.low, kind.high + 1, kind.step)
        if len(whole) <= _WHOLE:
            return list(whole)
        middle = round((kind.low * kind.high) ** 0.5) if kind.log else whole[len(whole) // 2]
        return [kind.low, middle, kind.high]
    if not isinstance(kind, FloatDistribution):
        raise TypeError(f"a parameter has {type(kind).__name__}, which has no values to list")
    if kind.step is not None and (count := round((kind.high - kind.low) / kind.step) + 1) <= _WHOLE:
        return [kind.low + index * kind.step for index in range(count)]
    middle = (kind.low * kind.high) ** 0.5 if kind.log else (kind.low + kind.high) / 2
    return [*{kind.low: None, middle: None, kind.high: None}]
