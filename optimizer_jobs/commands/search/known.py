"""What earlier trials say of plans that were not tried: which ones come to the same, or can only be broken too.

A plan whose steps left the model as it was is the plan without them. A plan that starts like a broken one, and goes on
with steps that only rewrite, is broken: they keep what a model answers, and repair nothing. Everything else is tried.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import optuna
from optuna.trial import BaseTrial, FixedTrial

from optimizer_jobs.commands.search.space import Plan, Space
from optimizer_jobs.commands.search.stages import trains
from optimizer_jobs.study.trials import KEY, Found, counted, read_found
from optimizer_jobs.techniques.registry import TECHNIQUES
from optimizer_jobs.techniques.steps import Step

_PACE = {"threads", "streams", "spinning", "graph_level"}
"""Engine options that decide how fast a model answers, and not what."""


@dataclass(frozen=True)
class Told:
    """A plan under the key of what it comes to."""

    key: str
    words: str


@dataclass(frozen=True)
class _Broken:
    """A plan that was found broken."""

    plan: Plan
    key: str
    answers: str

    def says(self, plan: Plan) -> bool:
        """Return whether the plan is broken as well."""
        mine, theirs = self.plan.steps, plan.steps
        if self.answers != _answers(plan) or theirs[: len(mine)] != mine:
            return False
        return len(mine) == len(theirs) or (bool(mine) and not any(trains(step) for step in theirs[len(mine) :]))


@dataclass
class Known:
    """Draws plans of a space as the trials of a study let one see them."""

    study: optuna.Study
    space: Space
    _idle: set[str] = field(default_factory=set)
    _broken: list[_Broken] = field(default_factory=list)
    _tried: dict[int, tuple[Plan, str]] = field(default_factory=dict)
    _same: dict[str, str] = field(default_factory=dict)

    def draw(self, trial: BaseTrial) -> Told:
        """Ask the trial for its plan and return it under the key of what it comes to."""
        self._learn()
        plan = self.space.draw(trial)
        return Told(key=self.key(plan), words=plan.words)

    def key(self, plan: Plan) -> str:
        """Return the same text for plans that come to the same; that of the trial, when one of them was tried."""
        reduced = self._reduced(plan)
        broken = next((one.key for one in self._broken if one.says(reduced)), None)
        return broken or self._same.get(reduced.key, reduced.key)

    def _learn(self) -> None:
        """Read the trials that have ended since the last time."""
        ended = [trial for trial in counted(self.study) if trial.state.is_finished() and KEY in trial.user_attrs]
        new = [trial for trial in ended if trial.number not in self._tried]
        for trial in new:
            plan, found = self.space.draw(FixedTrial(trial.params)), read_found(trial)
            self._tried[trial.number] = plan, trial.user_attrs[KEY]
            self._idle |= _idle(plan.steps, found)
            if found.broken:
                self._broken.append(_Broken(self._reduced(plan), key=trial.user_attrs[KEY], answers=_answers(plan)))
        if new:
            self._same = {self._reduced(plan).key: key for plan, key in reversed(self._tried.values())}

    def _reduced(self, plan: Plan) -> Plan:
        """Return the plan without the steps that are known to change nothing."""
        training, rewriting = _split(plan.steps)
        kept: list[Step] = []
        for step in rewriting:
            if _fact(training, kept, step) not in self._idle:
                kept.append(step)
        if _fact(training) in self._idle and not any(trains(step) for step in kept):
            training = []
        return replace(plan, steps=(*training, *kept))


def _idle(steps: Sequence[Step], found: Found) -> set[str]:
    """Return what a trial showed to change nothing: a step after others, or the training as a whole."""
    training, rewriting = _split(steps)
    facts = {_fact(training)} if training and all(step.name in found.idle for step in training) else set()
    kept: list[Step] = []
    for step in rewriting:
        if step.name in found.idle:
            facts.add(_fact(training, kept, step))
        else:
            kept.append(step)
    return facts


def _split(steps: Sequence[Step]) -> tuple[list[Step], list[Step]]:
    training = [step for step in steps if TECHNIQUES[step.type].TRAINS]
    return training, [step for step in steps if step not in training]


def _fact(training: Sequence[Step], kept: Sequence[Step] = (), step: Step | None = None) -> str:
    """Return a step with all that its result depends on within a run, as text."""
    parts = [[one.key for one in training], [one.key for one in kept], step.key if step else None]
    return json.dumps(parts, sort_keys=True)


def _answers(plan: Plan) -> str:
    """Return the engine options that what a model answers may depend on, as text."""
    options = plan.engine.model_dump(mode="json").items()
    return json.dumps({name: value for name, value in options if name not in _PACE}, sort_keys=True)
