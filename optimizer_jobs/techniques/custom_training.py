"""Technique CustomTraining: the user's own container trains the model, one trial at a time.

Says whether and with which parameters; `training.container` has it done. Early stopping, budgets and reuse are those of
every training.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from optimizer_jobs.machinery.training import parameters
from optimizer_jobs.machinery.training.container import Run, train
from optimizer_jobs.machinery.training.exchange import exchange
from optimizer_jobs.machinery.training.parameters import Space, told
from optimizer_jobs.technique import Applied, Context, Params, Skipped, Subject
from retune.api.base import seconds
from retune.api.techniques import Technique as TechniqueSpec
from retune.api.techniques import TechniqueType, TrainingContainer

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

TYPE = TechniqueType.CUSTOM_TRAINING
CHEAP = False
TRAINS = False  # it trains alone: the container knows nothing of what other techniques would say about training

OFF, ON = "Off", "On"
_COMMAND, _TIMEOUT = "command", "timeout"
"""What the result depends on besides the parameters: a digest of image and command, and the seconds it may take."""


def unavailable(subject: Subject, spec: TechniqueSpec) -> str | None:
    """Return why no container can train this model here."""
    if spec.container is None:
        return "it needs techniques[].container: the image and the command that train the model"
    if not subject.training:
        return "there are no rows to train on: give data.training"
    if exchange() is None:
        return (
            "no training container stands beside this process; on a machine of your own, allow its command explicitly"
        )
    return parameters.wrong(spec.container.parameters or ())


def suggest(trial: "BaseTrial", spec: TechniqueSpec, subject: Subject) -> Params | None:  # noqa: ARG001
    """Choose whether to train, and the parameters."""
    mode = trial.suggest_categorical(f"{spec.name}.mode", (OFF, ON))
    chosen = _space(spec).choose(trial, spec.name)
    if mode == OFF or spec.container is None:
        return None
    return {**chosen, f"#{_COMMAND}": _digest(spec.container), f"#{_TIMEOUT}": seconds(spec.container.timeout)}


def defaults(spec: TechniqueSpec, subject: Subject) -> tuple[Params, ...]:
    """Return a training in the middle of the space."""
    return (off(spec, subject) | told(spec.name, {"mode": ON}),)


def off(spec: TechniqueSpec, subject: Subject) -> Params:  # noqa: ARG001
    """Return no training."""
    return told(spec.name, {"mode": OFF}, _space(spec).first())


def describe(params: Params) -> str:
    """Return the parameters in words, such as `trained by its own container, learning rate 0.01`."""
    words = [f"{name.replace('_', ' ')} {value}" for name, value in _given(params).items()]
    return ", ".join(["trained by its own container", *words])


def apply(model: Path, params: Params, context: Context) -> Applied | Skipped:
    """Have the container train, and return what it made as a model that takes and answers the same.

    Raises:
        CustomTrainingError: It failed, took too long, or made something else.
        StoppedEarlyError: The training fell behind or the budget is spent.
    """
    run = Run(parameters=_given(params), timeout=float(params[f"#{_TIMEOUT}"]), summary=describe(params))
    return train(model, run, context)


def _space(spec: TechniqueSpec) -> Space:
    return Space((spec.container.parameters if spec.container else None) or ())


def _digest(container: TrainingContainer) -> str:
    words = json.dumps([container.image, *container.command])
    return hashlib.sha256(words.encode()).hexdigest()[:16]


def _given(params: Params) -> Params:
    return {name: value for name, value in params.items() if not name.startswith("#")}
