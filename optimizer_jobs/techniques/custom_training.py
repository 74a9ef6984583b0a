"""Technique CustomTraining: the user's own container trains the model, one trial at a time.

Only the parameters are chosen here; `machinery.training.container` has the training done. Early stopping, budgets and
reuse work as in every other training.
"""

import hashlib
import json
from pathlib import Path

from optuna.trial import BaseTrial

from optimizer_jobs.machinery.training import parameters
from optimizer_jobs.machinery.training.container import Run, train
from optimizer_jobs.machinery.training.exchange import standing_by
from optimizer_jobs.machinery.training.parameters import Space, trial_params
from optimizer_jobs.technique import Applied, Context, Params, Skipped, Subject
from retune.api.base import seconds
from retune.api.techniques import Technique as TechniqueSpec
from retune.api.techniques import TechniqueType, TrainingContainer

TYPE = TechniqueType.CUSTOM_TRAINING
CHEAP = False
TRAINS = False  # the container trains alone: it knows nothing of the other techniques of a plan

OFF, ON = "Off", "On"
_COMMAND, _TIMEOUT = "command", "timeout"
"""What the result depends on besides the user's parameters: a digest of image and command, and the time limit in
seconds. They are kept among the parameters, with a `#` before their names."""


def unavailable(subject: Subject, spec: TechniqueSpec) -> str | None:
    """Return why no container can train this model here, or None."""
    if spec.container is None:
        return "it needs techniques[].container: the image and the command that train the model"
    if not subject.training:
        return "there are no rows to train on: give data.training"
    if standing_by() is None:
        return (
            "no training container stands beside this process; on a machine of your own, allow its command explicitly"
        )
    return parameters.wrong(spec.container.parameters or ())


def suggest(trial: BaseTrial, spec: TechniqueSpec, subject: Subject) -> Params | None:  # noqa: ARG001
    """Choose whether to train, and with which parameters."""
    mode = trial.suggest_categorical(f"{spec.name}.mode", (OFF, ON))
    chosen = _space(spec).choose(trial, spec.name)
    if mode == OFF or spec.container is None:
        return None
    return {**chosen, f"#{_COMMAND}": _digest(spec.container), f"#{_TIMEOUT}": seconds(spec.container.timeout)}


def defaults(spec: TechniqueSpec, subject: Subject) -> tuple[Params, ...]:
    """Return a training with the values to try first."""
    return (off(spec, subject) | trial_params(spec.name, {"mode": ON}),)


def off(spec: TechniqueSpec, subject: Subject) -> Params:  # noqa: ARG001
    """Return no training."""
    return trial_params(spec.name, {"mode": OFF}, _space(spec).first())


def describe(params: Params) -> str:
    """Return the parameters in words, such as `trained by its own container, learning rate 0.01`."""
    words = [f"{name.replace('_', ' ')} {value}" for name, value in _user_params(params).items()]
    return ", ".join(["trained by its own container", *words])


def apply(model: Path, params: Params, context: Context) -> Applied | Skipped:
    """Have the container train, and return the model that it wrote, with the inputs and outputs of the delivered one.

    Raises:
        CustomTrainingError: The training failed, took too long, or wrote no such model.
        StoppedEarlyError: The training fell behind, or the budget is spent.
    """
    run = Run(parameters=_user_params(params), timeout=float(params[f"#{_TIMEOUT}"]), summary=describe(params))
    return train(model, run, context)


def _space(spec: TechniqueSpec) -> Space:
    return Space((spec.container.parameters if spec.container else None) or ())


def _digest(container: TrainingContainer) -> str:
    text = json.dumps([container.image, *container.command])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _user_params(params: Params) -> Params:
    """Return the parameters that the user's container knows."""
    return {name: value for name, value in params.items() if not name.startswith("#")}
