"""Technique AdversarialTraining: train on inputs that are changed to deceive the network as it is at each step.

Says how; `nets.learning.attack` does it. What it buys shows as robust_accuracy, usually at some cost in accuracy.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from optimizer_jobs.machinery.training.fit import NETWORKS, family, untrainable
from optimizer_jobs.machinery.training.parameters import told
from optimizer_jobs.nets.learning.words import hardened
from optimizer_jobs.technique import Params, Subject
from retune.api.model import Task
from retune.api.techniques import Adversarial, TechniqueType
from retune.api.techniques import Technique as TechniqueSpec

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

TYPE = TechniqueType.ADVERSARIAL_TRAINING
CHEAP = False
TRAINS = True

OFF = "Off"
_SHARES = (0.5, 1.0)
"""Bounds while training, as shares of the bound that is measured with."""


def unavailable(subject: Subject, spec: TechniqueSpec) -> str | None:  # noqa: ARG001
    """Return why this model cannot be trained against an attack."""
    reason = untrainable(subject)
    if reason is not None:
        return reason
    if subject.task is not Task.CLASSIFICATION:
        return "an attack turns one class into another, and the model is no classifier"
    if family(subject.native) != NETWORKS:
        return "scikit-learn fits an estimator to the rows as they are"
    if not any(tensor.is_float for tensor in subject.signature.inputs):
        return "the model has no floating point input that could be changed a little"
    return None


def suggest(trial: "BaseTrial", spec: TechniqueSpec, subject: Subject) -> Params | None:  # noqa: ARG001
    """Choose the attack and how far it may go in training."""
    settings = _settings(spec)
    method = str(trial.suggest_categorical(f"{spec.name}.method", (OFF, *settings.methods)))
    share = float(trial.suggest_categorical(f"{spec.name}.share", _SHARES))
    if method == OFF:
        return None
    return {"method": method, "epsilon": share * float(settings.epsilon), "steps": settings.steps}


def defaults(spec: TechniqueSpec, subject: Subject) -> tuple[Params, ...]:
    """Return the strongest attack with the bound that is measured with."""
    return (off(spec, subject) | told(spec.name, {"method": _settings(spec).methods[-1]}),)


def off(spec: TechniqueSpec, subject: Subject) -> Params:  # noqa: ARG001
    """Return no attack."""
    return told(spec.name, {"method": OFF, "share": 1.0})


def describe(params: Params) -> str:
    """Return the attack, such as `hardened against PGD of 0.1`."""
    return hardened(params)


def attack_of(techniques: Sequence[TechniqueSpec] | None) -> Adversarial:
    """Return the attack that robust_accuracy is measured with: as the technique's settings say, or the usual one."""
    given = (spec.adversarial for spec in techniques or () if spec.type is TYPE)
    return next((settings for settings in given if settings is not None), Adversarial())


def _settings(spec: TechniqueSpec) -> Adversarial:
    return spec.adversarial or Adversarial()
