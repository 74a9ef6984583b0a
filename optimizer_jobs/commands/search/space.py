"""The search space: every technique on or off with its parameters, and the engine's options, in one study.

All parameters are asked of every trial, so that one sampler sees one space; what does not matter for a combination is
left out of its plan. Two trials with the same plan are the same trial.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import optuna
from optuna.samplers import RandomSampler
from optuna.trial import BaseTrial, FixedTrial

from optimizer_jobs.commands.search.engines import ORT, EngineSpace
from optimizer_jobs.commands.search.priority import priority
from optimizer_jobs.commands.search.stages import Stage, cost_of
from optimizer_jobs.measure.confinement import Profile
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.fixed import row_axis
from optimizer_jobs.models.words import engine_words
from optimizer_jobs.technique import Params, Subject
from optimizer_jobs.techniques.registry import TECHNIQUES
from optimizer_jobs.techniques.steps import Step
from retune.api.techniques import Technique as TechniqueSpec

_FRESH_DRAWS = 400
_LEAST_ASKED = 8
"""So many of the first questions are asked whatever the budget is."""


@dataclass(frozen=True)
class Plan:
    """One combination: what is done to the model, and how it is run."""

    steps: tuple[Step, ...]
    engine: EngineOptions

    @cached_property
    def key(self) -> str:
        """The same text for the same combination."""
        steps = [(step.name, step.params) for step in self.steps]
        return json.dumps([steps, self.engine.model_dump(mode="json")], sort_keys=True)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its techniques."""
        return tuple(step.name for step in self.steps)

    @property
    def words(self) -> str:
        """The combination in words, such as `int8 static minmax, all graph, 2 threads`."""
        steps = [step.words for step in self.steps] or ["as delivered"]
        return ", ".join([*steps, *engine_words(self.engine)])


@dataclass(frozen=True)
class Space:
    """All plans of a run."""

    techniques: tuple[TechniqueSpec, ...]
    subject: Subject
    threads: int
    """Most threads that the server may use."""
    engine_names: tuple[str, ...] = field(default=(ORT,), kw_only=True)
    """Engines that can run the model here; the first is the usual one."""
    profile: Profile = field(default=Profile.SERVER_CPU, kw_only=True)
    """Kind of machine that the model serves on; it decides what is tried first."""
    rows: int | None = field(default=None, kw_only=True)
    """Rows of a typical request, which ONNX Runtime may be told."""
    planned: Mapping[str, tuple[int, ...]] = field(default_factory=dict, kw_only=True)
    """Shape of every input of a typical request, by name, which OpenVINO may be told; empty where it cannot be."""
    seed: int = field(default=0, kw_only=True)

    def draw(self, trial: BaseTrial) -> Plan:
        """Ask the trial for every parameter and return its plan."""
        drawn = [(spec, TECHNIQUES[spec.type].suggest(trial, spec, self.subject)) for spec in self.techniques]
        steps = tuple(
            Step(name=spec.name, type=spec.type, params=params) for spec, params in drawn if params is not None
        )
        return Plan(steps=steps, engine=self._engines.draw(trial))

    def fresh(self, known: set[str], *, key: Callable[[Plan], str] | None = None) -> Params | None:
        """Return the trial parameters of a random plan that is not known by its key; None when none was found.

        `key` tells plans apart; without it, two plans are the same when all they say is.
        """
        study = optuna.create_study(sampler=RandomSampler(seed=self.seed + len(known)))
        for _ in range(_FRESH_DRAWS):
            trial = study.ask()
            plan = self.draw(trial)
            if (key(plan) if key else plan.key) not in known:
                return dict(trial.params)
        return None

    def control(self) -> Params:
        """Return the trial parameters of the model as delivered, run as it is run best by default."""
        off = _merged([TECHNIQUES[spec.type].off(spec, self.subject) for spec in self.techniques])
        return self._engines.defaults()[0] | off

    def first(self, budget: int | None = None) -> tuple[Params, ...]:
        """Return what every study tries first: control, other engines, each technique alone, several; cheap ones first.

        At least a third of the budget is left to the sampler; then further variants of a technique are not asked.
        """
        asked = {self._key(self.control()): (0, self.control())}
        for rank, params in sorted([*self._alone(), *self._together()], key=lambda one: (self._cost(one[1]), one[0])):
            asked.setdefault(self._key(params), (rank, params))
        room = len(asked) if budget is None else max(min(budget, _LEAST_ASKED), 2 * budget // 3)
        chosen = sorted(asked.values(), key=lambda one: one[0])[:room]
        return tuple(params for _, params in sorted(chosen, key=lambda one: self._cost(one[1])))

    def _alone(self) -> list[tuple[int, Params]]:
        """Return each other engine, and each variant of each technique, with its position among the variants.

        What only rewrites the file is asked in every engine: one 8-bit file may be slow in one and fast in another.
        """
        usual, *others = self._settings()
        found = [(0, options) for options in others]
        for options in (usual, *others):
            for spec in self.techniques:
                for rank, variant in enumerate(TECHNIQUES[spec.type].defaults(spec, self.subject)):
                    if options is usual or self._cost(options | variant)[0] is not Stage.TRAINING:
                        found.append((rank, options | variant))
        return found

    def _together(self) -> list[tuple[int, Params]]:
        """Return all cheap techniques together, with each variant of the last; then a dear one upon the cheap ones.

        In engines other than the usual one, only the first variants of all are asked.
        """
        usual, *others = self._settings()
        cheap: dict[str, list[Params]] = {}
        dear: dict[str, list[Params]] = {}
        for spec in self.techniques:
            for variant in TECHNIQUES[spec.type].defaults(spec, self.subject):
                group = dear if self._cost(usual | variant)[0] is Stage.TRAINING else cheap
                group.setdefault(spec.name, []).append(variant)
        base = _merged([variants[0] for variants in cheap.values()])
        varied = [_merged(chosen) for chosen in _last_varied([*cheap.values()])]
        found = [(rank, usual | chosen) for rank, chosen in enumerate(varied)]
        found += [(0, options | chosen) for options in others for chosen in varied[:1]]
        upon = [base | variants[0] for variants in dear.values() if cheap]
        return found + [(1, options | chosen) for options in (usual, *others) for chosen in upon]

    def _settings(self) -> list[Params]:
        """Return the model as delivered in each engine, the usual one first."""
        control = self.control()
        return [control, *(control | options for options in self._engines.defaults()[1:])]

    def _cost(self, params: Params) -> tuple[Stage, int, int, int]:
        """Return what sorts plans: what they cost, and among equals what the machine is likely to gain most from."""
        steps = self.draw(FixedTrial(params)).steps
        stage, count, dearest = cost_of(steps)
        eager = min((priority(self.profile, step.type, step.params) for step in steps), default=0)
        return stage, count, eager, dearest

    def _key(self, params: Params) -> str:
        return self.draw(FixedTrial(params)).key

    @cached_property
    def _engines(self) -> EngineSpace:
        return EngineSpace(
            names=self.engine_names,
            threads=self.threads,
            cpu_flags=self.subject.cpu_flags,
            rows=self.rows if row_axis(self.subject.graph) else None,
            planned=self.planned,
        )


def _merged(chosen: Sequence[Params]) -> Params:
    return {name: value for params in chosen for name, value in params.items()}


def _last_varied(groups: Sequence[Sequence[Params]]) -> list[list[Params]]:
    """Return the first variant of every group but the last, with each variant of the last; none for a single group."""
    if len(groups) < 2:
        return []
    *before, last = groups
    return [[*(group[0] for group in before), variant] for variant in last]
