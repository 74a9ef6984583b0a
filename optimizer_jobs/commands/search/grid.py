"""Every combination of a space, one after the other, for a search that wants to know them all.

Numbers without end are represented by their ends and the middle. Combinations come by cost: the delivered model under
all engine options, then sets of techniques under the usual options, then these sets under the others.
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
"""No budget is larger, so no more combinations are looked at."""
_RAW = 10_000
"""Parameters that mean the same are told apart by trying them; so many are tried a technique."""
_WHOLE = 8
"""Of whole numbers, a range up to this long is taken as it is."""


@dataclass(frozen=True)
class _Group:
    """What one technique, or the engine, can be told."""

    variants: tuple[Params, ...]
    dear: bool = False


@dataclass(frozen=True)
class Grid:
    """The combinations of a space in the order of trial."""

    space: Space

    @cached_property
    def first(self) -> tuple[Params, ...]:
        """Trial parameters of all combinations, or of the first `LONGEST`."""
        return tuple(islice(self._ordered(), LONGEST))

    def fresh(self, known: set[str], *, key: Callable[[Plan], str] | None = None) -> Params | None:
        """Return the first combination that is not known by its key, or None."""
        for params in self.first:
            plan = self._plan(params)
            if (key(plan) if key else plan.key) not in known:
                return params
        return None

    def _ordered(self) -> Iterator[Params]:
        control, engine = self.space.control(), self._group("engine", keep_control=True)
        yield from (control | options for options in engine.variants)
        for engines in (engine.variants[:1], engine.variants[1:]):
            for chosen in self._sets():
                for options, *variants in product(engines, *(group.variants for group in chosen)):
                    yield control | options | {name: value for told in variants for name, value in told.items()}

    def _sets(self) -> list[tuple[_Group, ...]]:
        """Return every set of techniques, those that train last, small ones first."""
        specs = sorted(self.space.techniques, key=lambda spec: CHEAPEST_FIRST.index(spec.type))
        groups = [self._group(spec.name) for spec in specs]
        sets = [one for size in range(1, len(groups) + 1) for one in combinations(groups, size)]
        return sorted(sets, key=lambda one: any(group.dear for group in one))

    def _group(self, prefix: str, *, keep_control: bool = False) -> _Group:
        """Return every way to set the parameters of a prefix that makes another plan; the control's own way first."""
        control = self.space.control()
        own = {name: value for name, value in control.items() if name.startswith(f"{prefix}.")}
        seen, found, dear = {self._plan(control).key}, [own] if keep_control else [], False
        choices = {name: _values(self._distributions[name]) for name in own}
        for values in islice(product(*choices.values()), _RAW):
            told = dict(zip(choices, values, strict=True))
            plan = self._plan(control | told)
            if plan.key not in seen and len(found) < LONGEST:
                found.append(told)
                dear = dear or stage_of(plan.steps) is Stage.TRAINING
            seen.add(plan.key)
        return _Group(tuple(found), dear=dear)

    @cached_property
    def _distributions(self) -> dict[str, BaseDistribution]:
        """What each parameter may be; every trial is asked for all of them."""
        trial = optuna.create_study(sampler=RandomSampler(seed=0)).ask()
        self.space.draw(trial)
        return trial.distributions

    def _plan(self, params: Params) -> Plan:
        return self.space.draw(FixedTrial(params))


def _values(kind: BaseDistribution) -> list[Any]:
    """Return all values of a choice or a short range, and ends and middle of a long one."""
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
