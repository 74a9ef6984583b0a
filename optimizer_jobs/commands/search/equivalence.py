"""Which plans are equivalent to a plan that was tried, so that no trial is spent on what is known.

A plan is equivalent to the same plan without the steps that left the model as it was. A plan that begins with the steps
of a broken plan and then only rewrites the file is broken too, because rewriting does not change what a model answers.
All other plans are tried.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import optuna
from optuna.trial import BaseTrial

from optimizer_jobs.commands.search.space import Plan, Space
from optimizer_jobs.commands.search.stages import trains
from optimizer_jobs.study.trials import KEY, TrialResult, known, read_result
from optimizer_jobs.techniques.registry import TECHNIQUES
from optimizer_jobs.techniques.steps import Step

_PACE = {"threads", "streams", "spinning", "graph_level"}
"""Engine options that change how fast a model answers, but not what it answers."""


@dataclass(frozen=True)
class DrawnPlan:
    """A plan with the key that all equivalent plans share."""

    key: str
    words: str
    exact: str
    """The plan's own key."""


@dataclass(frozen=True)
class _BrokenPlan:
    """A plan whose trial showed that its model is broken."""

    plan: Plan
    key: str
    answers: str

    def breaks(self, plan: Plan) -> bool:
        """Return whether another plan must be broken too."""
        mine, theirs = self.plan.steps, plan.steps
        if self.answers != _answers(plan) or theirs[: len(mine)] != mine:
            return False
        return len(mine) == len(theirs) or (bool(mine) and not any(trains(step) for step in theirs[len(mine) :]))


@dataclass
class Equivalence:
    """Draws plans of a space, and finds the key that equivalent plans share from the study's finished trials."""

    study: optuna.Study
    space: Space
    _idle: set[str] = field(default_factory=set)
    _broken: list[_BrokenPlan] = field(default_factory=list)
    _tried: dict[int, tuple[Plan, str]] = field(default_factory=dict)
    _same: dict[str, str] = field(default_factory=dict)

    def draw(self, trial: BaseTrial) -> DrawnPlan:
        """Ask the trial for its plan, and return it with the key that equivalent plans share."""
        self._learn()
        plan = self.space.draw(trial)
        return DrawnPlan(key=self.key(plan), words=plan.words, exact=plan.key)

    def key(self, plan: Plan) -> str:
        """Return the key that equivalent plans share; if one of them was tried, it is the key of that trial."""
        reduced = self._reduced(plan)
        broken = next((broken.key for broken in self._broken if broken.breaks(reduced)), None)
        return broken or self._same.get(reduced.key, reduced.key)

    def _learn(self) -> None:
        """Read the trials that ended since the last call."""
        ended = [trial for trial in known(self.study) if trial.state.is_finished() and KEY in trial.user_attrs]
        new = [trial for trial in ended if trial.number not in self._tried]
        for trial in new:
            plan, result, key = self.space.recall(trial.params), read_result(trial), trial.user_attrs[KEY]
            self._tried[trial.number] = plan, key
            self._idle |= _idle(plan.steps, result)
            if result.broken:
                self._broken.append(_BrokenPlan(self._reduced(plan), key=key, answers=_answers(plan)))
        if new:
            self._same = {self._reduced(plan).key: key for plan, key in reversed(self._tried.values())}

    def _reduced(self, plan: Plan) -> Plan:
        """Return the plan without the steps that are known to leave the model as it was."""
        training, rewriting = _split(plan.steps)
        kept: list[Step] = []
        for step in rewriting:
            if _fact(training, kept, step) not in self._idle:
                kept.append(step)
        if _fact(training) in self._idle and not any(trains(step) for step in kept):
            training = []
        return replace(plan, steps=(*training, *kept))


def _idle(steps: Sequence[Step], result: TrialResult) -> set[str]:
    """Return the facts that a trial showed: which step after which others, or which training, changes nothing."""
    training, rewriting = _split(steps)
    facts = {_fact(training)} if training and all(step.name in result.idle for step in training) else set()
    kept: list[Step] = []
    for step in rewriting:
        if step.name in result.idle:
            facts.add(_fact(training, kept, step))
        else:
            kept.append(step)
    return facts


def _split(steps: Sequence[Step]) -> tuple[list[Step], list[Step]]:
    training = [step for step in steps if TECHNIQUES[step.type].TRAINS]
    return training, [step for step in steps if step not in training]


def _fact(training: Sequence[Step], kept: Sequence[Step] = (), step: Step | None = None) -> str:
    """Return, as text, a step with everything that its effect depends on within a run: the steps before it."""
    parts = [[before.key for before in training], [before.key for before in kept], step.key if step else None]
    return json.dumps(parts, sort_keys=True)


def _answers(plan: Plan) -> str:
    """Return, as text, the engine options that may change what a model answers."""
    options = plan.engine.model_dump(mode="json").items()
    return json.dumps({name: value for name, value in options if name not in _PACE}, sort_keys=True)
