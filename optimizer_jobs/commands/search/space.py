"""The search space: every technique on or off with its parameters, and the engine's options, in one study.

Every trial is asked for all parameters, so that the sampler sees one space; parameters that do not matter for a
combination are left out of its plan. Two trials with the same plan are the same combination.
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
from optimizer_jobs.commands.search.stages import Stage, cost_of, stage_of
from optimizer_jobs.measure.confinement import Profile
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.fixed import row_axis
from optimizer_jobs.models.words import engine_words
from optimizer_jobs.serving.limits import Limits
from optimizer_jobs.technique import ONE_LINE, Params, Subject
from optimizer_jobs.techniques.containment import BrokenTechniqueError, contained
from optimizer_jobs.techniques.registry import TECHNIQUES
from optimizer_jobs.techniques.steps import Step
from retune.api.techniques import Technique as TechniqueSpec
from retune.api.techniques import TechniqueType

_FRESH_DRAWS = 400
_LEAST_ASKED = 8
"""Number of first combinations that are tried even if they take more than two thirds of the budget."""

_ALWAYS, _ALONE, _ELSEWHERE, _VARIED = range(4)
"""Ranks of what every study tries first, the last to be left out of a small budget first.

The control, what a user would try in one line, and recalibration where quality is to rise; the first variant of every
technique in the usual engine; other engines and all cheap techniques together; further variants, each rank after this
one for one variant more.
"""

_Proposal = tuple[int, Params]
"""Trial parameters with their rank."""


@dataclass(frozen=True)
class Plan:
    """One combination: what is done to the model, and how it is run."""

    steps: tuple[Step, ...]
    engine: EngineOptions

    @cached_property
    def key(self) -> str:
        """A text that is the same for all equal combinations."""
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
    """Rows of a typical request, to which ONNX Runtime's plan may be fixed."""
    planned: Mapping[str, tuple[int, ...]] = field(default_factory=dict, kw_only=True)
    """Shape of every input of a typical request, by name, that OpenVINO may plan for; empty when it cannot."""
    restores: bool = field(default=False, kw_only=True)
    """Whether quality is to rise, as in a run on fresh data. Recalibration may do that at once, so it comes first; what
    trains is next."""
    limits: Limits = field(default_factory=Limits, kw_only=True)
    """What the server can be told: nothing beyond it is drawn."""
    seed: int = field(default=0, kw_only=True)
    left: dict[str, str] = field(default_factory=dict, kw_only=True)
    """Why techniques have left the search under way, by name."""

    def draw(self, trial: BaseTrial) -> Plan:
        """Ask the trial for every parameter and return its plan, without techniques that have left.

        A technique that breaks while a sampler proposes leaves. Parameters that somebody wrote down are held to the
        space: what they raise is raised.
        """
        proposed = isinstance(trial, optuna.trial.Trial)
        drawn = [
            (spec, self._asked(trial, spec) if proposed else self._suggested(trial, spec)) for spec in self._staying
        ]
        return self._plan(trial, drawn)

    def recall(self, params: Params) -> Plan:
        """Return the plan of a trial that was drawn, with techniques that have left since."""
        trial = FixedTrial(params)
        return self._plan(trial, [(spec, self._asked(trial, spec, leaves=False)) for spec in self.techniques])

    @property
    def _staying(self) -> list[TechniqueSpec]:
        return [spec for spec in self.techniques if spec.name not in self.left]

    def _asked(self, trial: BaseTrial, spec: TechniqueSpec, *, leaves: bool = True) -> Params | None:
        """Return what a technique suggests; None when it breaks, after which it leaves."""
        try:
            with contained(spec.name):
                return self._suggested(trial, spec)
        except BrokenTechniqueError as broken:
            if leaves:
                self.left[spec.name] = str(broken)
            return None

    def _suggested(self, trial: BaseTrial, spec: TechniqueSpec) -> Params | None:
        return TECHNIQUES[spec.type].suggest(trial, spec, self.subject)

    def _plan(self, trial: BaseTrial, drawn: Sequence[tuple[TechniqueSpec, Params | None]]) -> Plan:
        steps = tuple(
            Step(name=spec.name, type=spec.type, params=params) for spec, params in drawn if params is not None
        )
        return Plan(steps=steps, engine=self._engines.draw(trial))

    def fresh(self, tried: set[str], *, key: Callable[[Plan], str] | None = None) -> Params | None:
        """Return the trial parameters of a random plan that was not tried, or None when none is drawn in many attempts.

        Args:
            tried: Keys of the plans that were tried.
            key: Returns a plan's key; None takes the plan's own key.
        """
        study = optuna.create_study(sampler=RandomSampler(seed=self.seed + len(tried)))
        for _ in range(_FRESH_DRAWS):
            trial = study.ask()
            plan = self.draw(trial)
            if (key(plan) if key else plan.key) not in tried:
                return dict(trial.params)
        return None

    def control(self) -> Params:
        """Return the trial parameters of the model as delivered, with the usual engine's default options."""
        off = _merged([TECHNIQUES[spec.type].off(spec, self.subject) for spec in self.techniques])
        return self._engines.defaults()[0] | off

    def first(self, budget: int | None = None) -> tuple[Params, ...]:
        """Return the trial parameters that every study tries first, the cheapest first.

        These are the control, the other engines, each technique alone, and techniques together. At least a third of
        the budget is left to the sampler; if there are too many combinations, further variants of a technique are left
        out first, then other engines. Where quality is to rise, recalibration follows the control, then what trains.

        Args:
            budget: Number of trials; None returns all combinations.
        """
        control = self.control()
        important = sorted([*self._alone(), *self._together()], key=lambda other: (other[0], self._order(other[1])))
        distinct = {self._key(control): control}
        for _, params in important:
            distinct.setdefault(self._key(params), params)
        room = len(distinct) if budget is None else max(min(budget, _LEAST_ASKED), 2 * budget // 3)
        return (control, *sorted(list(distinct.values())[1:room], key=self._order))

    def cured(self, params: Params) -> Params | None:
        """Return trial parameters with recalibration on as well; None where quality is not to rise, or it is on."""
        cures = self._cures()
        if not self.restores or not cures or _recalibrates(self.draw(FixedTrial(params)).steps):
            return None
        return params | cures[0]

    def is_cure(self, params: Params) -> bool:
        """Return whether a plan brings quality back without training, where that is asked for."""
        steps = self.draw(FixedTrial(params)).steps
        return self.restores and _recalibrates(steps) and stage_of(steps) is not Stage.TRAINING

    def _cures(self) -> list[Params]:
        """Return the variants of recalibration, the most important first."""
        specs = [spec for spec in self.techniques if spec.type is TechniqueType.RECALIBRATION]
        return [variant for spec in specs for variant in self._defaults(spec)[1]]

    def _alone(self) -> list[_Proposal]:
        """Return every other engine with the delivered model, and every variant of every technique alone.

        Techniques that only rewrite the file are proposed for every engine, because an 8-bit file may be slow in one
        engine and fast in another; techniques that train only for the usual engine.
        """
        usual, *others = self._settings()
        proposals = [(_ELSEWHERE, options) for options in others]
        proposals += [(_ALWAYS, usual | cure) for cure in self._cures()[:1] if self.restores]
        for spec in self.techniques:
            as_one_line, variants = self._defaults(spec)
            proposals += [(_ALWAYS, usual | variant) for variant in as_one_line]
            for number, variant in enumerate(variants):
                proposals.append((_VARIED + number if number else _ALONE, usual | variant))
                if self._stage(usual | variant) is not Stage.TRAINING:
                    proposals += [(_VARIED + number if number else _ELSEWHERE, other | variant) for other in others]
        return proposals

    def _together(self) -> list[_Proposal]:
        """Return all cheap techniques together, and every technique that trains together with the cheap ones.

        The last cheap technique is proposed in all its variants, but only in its first variant for other engines.
        Recalibration is proposed on top of all cheap ones.
        """
        usual, *others = self._settings()
        cheap, training = self._variants(usual)
        varied = [_merged(variants) for variants in _last_varied([*cheap.values()])]
        proposals = [
            (_VARIED + number if number else _ELSEWHERE, usual | variant) for number, variant in enumerate(varied)
        ]
        proposals += [(_ELSEWHERE, options | variant) for options in others for variant in varied[:1]]
        base = _merged([variants[0] for variants in cheap.values()])
        trained = [base | variants[0] for variants in training.values() if cheap]
        proposals += [(_ALONE if self.restores else _VARIED, usual | base | cure) for cure in self._cures()[:1]]
        proposals += [(_ALONE if self.restores else _VARIED, usual | variant) for variant in trained]
        return proposals + [(_VARIED, options | variant) for options in others for variant in trained]

    def _variants(self, usual: Params) -> tuple[dict[str, list[Params]], dict[str, list[Params]]]:
        """Return the variants of techniques by name: those that rewrite, but recalibration, and those that train."""
        cheap: dict[str, list[Params]] = {}
        training: dict[str, list[Params]] = {}
        for spec in (spec for spec in self.techniques if spec.type is not TechniqueType.RECALIBRATION):
            for variant in self._defaults(spec)[1]:
                group = training if self._stage(usual | variant) is Stage.TRAINING else cheap
                group.setdefault(spec.name, []).append(variant)
        return cheap, training

    def _defaults(self, spec: TechniqueSpec) -> tuple[list[Params], list[Params]]:
        """Return the variants of a technique that a user would try in one line, and all others."""
        as_one_line: list[Params] = []
        others: list[Params] = []
        for variant in TECHNIQUES[spec.type].defaults(spec, self.subject):
            steps = self.draw(FixedTrial(self.control() | variant)).steps
            (as_one_line if any(ONE_LINE in step.params for step in steps) else others).append(variant)
        return as_one_line, others

    def _settings(self) -> list[Params]:
        """Return the trial parameters of the model as delivered in each engine, the usual engine first."""
        control = self.control()
        return [control, *(control | options for options in self._engines.defaults()[1:])]

    def _stage(self, params: Params) -> Stage:
        return stage_of(self.draw(FixedTrial(params)).steps)

    def _order(self, params: Params) -> tuple[bool, bool, Stage, int, int, int]:
        """Return a sort key: cheap plans first, and among equally cheap ones those that gain most on the machine.

        Where quality is to rise, plans that recalibrate without training come first, then those that train.
        """
        steps = self.draw(FixedTrial(params)).steps
        stage, count, dearest = cost_of(steps)
        rank = min((priority(self.profile, step.type, step.params) for step in steps), default=0)
        is_late, is_later = self.restores and not self.is_cure(params), self.restores and stage is not Stage.TRAINING
        return is_late, is_later, stage, count, rank, dearest

    def _key(self, params: Params) -> str:
        return self.draw(FixedTrial(params)).key

    @cached_property
    def _engines(self) -> EngineSpace:
        return EngineSpace(
            names=self.engine_names,
            threads=self.threads,
            cpu_flags=self.subject.cpu_flags,
            rows=self.rows if self.limits.rows and row_axis(self.subject.graph) else None,
            planned=self.planned if self.limits.planned else {},
            limits=self.limits,
        )


def _recalibrates(steps: Sequence[Step]) -> bool:
    return any(step.type is TechniqueType.RECALIBRATION for step in steps)


def _merged(parts: Sequence[Params]) -> Params:
    return {name: value for params in parts for name, value in params.items()}


def _last_varied(groups: Sequence[Sequence[Params]]) -> list[list[Params]]:
    """Return each variant of the last group, together with the first variant of all others; none for a single group."""
    if len(groups) < 2:
        return []
    *before, last = groups
    return [[*(group[0] for group in before), variant] for variant in last]
