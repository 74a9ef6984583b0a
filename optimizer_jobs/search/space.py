"""The search space: every technique on or off with its parameters, and the engine's options, in one study.

All parameters are asked of every trial, so that one sampler sees one space; what does not matter for a combination is
left out of its plan. Two trials with the same plan are the same trial.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import optuna
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import BaseTrial

from optimizer_jobs.compress.base import Params
from optimizer_jobs.compress.registry import TECHNIQUES
from optimizer_jobs.compress.steps import Step
from optimizer_jobs.models.engine import EngineOptions
from retune.api.spec import Search
from retune.api.spec import Technique as TechniqueSpec

GRAPH_LEVELS = ("all", "extended", "basic")
NSGA_FROM_TRIALS = 200
_FRESH_DRAWS = 400

THREADS, SPINNING, GRAPH_LEVEL = "engine.threads", "engine.spinning", "engine.graph_level"


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
    def words(self) -> str:
        """The combination in words, such as `int8 static minmax, all graph, 2 threads`."""
        engine = [f"{self.engine.graph_level} graph", _threads(self.engine)]
        return ", ".join([*(step.words for step in self.steps), *engine] if self.steps else ["as delivered", *engine])


@dataclass(frozen=True)
class Space:
    """All plans of a run."""

    techniques: tuple[TechniqueSpec, ...]
    threads: int
    """Most threads that the server may use."""
    calibration: bool
    """Whether there are rows to calibrate on."""
    seed: int = field(default=0, kw_only=True)

    def draw(self, trial: BaseTrial) -> Plan:
        """Ask the trial for every parameter and return its plan."""
        drawn = [
            (spec, TECHNIQUES[spec.type].suggest(trial, spec, calibration=self.calibration)) for spec in self.techniques
        ]
        steps = tuple(
            Step(name=spec.name, type=spec.type, params=params) for spec, params in drawn if params is not None
        )
        return Plan(steps=steps, engine=self._engine(trial))

    def fresh(self, known: set[str]) -> Params | None:
        """Return the trial parameters of a random plan that is not known by its key; None when none was found."""
        study = optuna.create_study(sampler=RandomSampler(seed=self.seed + len(known)))
        for _ in range(_FRESH_DRAWS):
            trial = study.ask()
            if self.draw(trial).key not in known:
                return dict(trial.params)
        return None

    def first(self) -> tuple[Params, ...]:
        """Return what every study tries first: nothing but the engine, each technique alone, then all together."""
        engine: Params = {THREADS: self._thread_choices()[-1], SPINNING: True, GRAPH_LEVEL: "all"}
        off: Params = {
            name: value for spec in self.techniques for name, value in TECHNIQUES[spec.type].off(spec).items()
        }
        variants = [TECHNIQUES[spec.type].defaults(spec, calibration=self.calibration) for spec in self.techniques]
        alone = [engine | off | variant for variants_of_one in variants for variant in variants_of_one]
        together = [engine | off | _merged(chosen) for chosen in _together(variants)] if len(variants) > 1 else []
        return (engine | off, *alone, *together)

    def _engine(self, trial: BaseTrial) -> EngineOptions:
        threads = int(trial.suggest_categorical(THREADS, self._thread_choices()))
        spinning = bool(trial.suggest_categorical(SPINNING, (True, False)))
        level: Any = trial.suggest_categorical(GRAPH_LEVEL, GRAPH_LEVELS)
        return EngineOptions(threads=threads, spinning=spinning or threads == 1, graph_level=level)

    def _thread_choices(self) -> tuple[int, ...]:
        """Return the powers of two up to the limit, and the limit."""
        powers = [2**power for power in range(self.threads.bit_length()) if 2**power < self.threads]
        return (*powers, self.threads)


def sampler(search: Search, *, worker: int, started: int) -> BaseSampler:
    """Return the sampler of one worker; `started` trials exist, so that a restarted worker does not repeat itself."""
    seed = (search.seed + 7919 * worker + 104729 * started) % 2**31
    kind = search.sampler
    if kind == "Auto":
        kind = "TPE" if search.max_trials < NSGA_FROM_TRIALS else "NSGAII"
    make: dict[str, Callable[[], BaseSampler]] = {
        "Random": lambda: RandomSampler(seed=seed),
        "TPE": lambda: TPESampler(multivariate=True, n_startup_trials=max(4, search.max_trials // 4), seed=seed),
        "NSGAII": lambda: NSGAIISampler(population_size=population(search.max_trials), seed=seed),
    }
    return make[kind]()


def population(budget: int) -> int:
    """Return a population that leaves about ten generations in the budget."""
    return min(50, max(4, budget // 10))


def _merged(chosen: Sequence[Params]) -> Params:
    return {name: value for params in chosen for name, value in params.items()}


def _together(variants: Sequence[Sequence[Params]]) -> list[list[Params]]:
    """Return the first variant of every technique but the last, with each variant of the last."""
    *before, last = [group for group in variants if group]
    return [[*(group[0] for group in before), variant] for variant in last]


def _threads(engine: EngineOptions) -> str:
    count = "1 thread" if engine.threads == 1 else f"{engine.threads} threads"
    return count if engine.spinning else f"{count} not spinning"
