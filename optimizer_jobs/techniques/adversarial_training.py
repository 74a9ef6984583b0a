"""Technique AdversarialTraining: train on inputs that are changed, at each step, to deceive the network.

Only the attack is chosen here; `nets.learning.attack` carries it out. The gain shows in metric robust_accuracy, usually
at some cost in accuracy.
"""

from collections.abc import Sequence

from optuna.trial import BaseTrial

from optimizer_jobs.machinery.training.fit import NETWORKS, family, untrainable
from optimizer_jobs.machinery.training.parameters import trial_params
from optimizer_jobs.nets.learning.words import hardened
from optimizer_jobs.technique import Params, Subject
from retune.api.model import Task
from retune.api.techniques import Adversarial, TechniqueType
from retune.api.techniques import Technique as TechniqueSpec

TYPE = TechniqueType.ADVERSARIAL_TRAINING
CHEAP = False
TRAINS = True

OFF = "Off"
_SHARES = (0.5, 1.0)
"""Bounds of the attack in training, as shares of the bound that robust_accuracy is measured with."""


def unavailable(subject: Subject, spec: TechniqueSpec) -> str | None:  # noqa: ARG001
    """Return why this model cannot be trained against an attack, or None."""
    reason = untrainable(subject)
    if reason is not None:
        return reason
    if subject.task is Task.MULTI_LABEL:
        return "an attack turns one class into another, and the model gives a row any number of labels"
    if subject.task is not Task.CLASSIFICATION:
        return "an attack turns one class into another, and the model is no classifier"
    if family(subject.native) != NETWORKS:
        return "scikit-learn fits an estimator to the rows as they are"
    if not any(tensor.is_float for tensor in subject.signature.inputs):
        return "the model has no floating point input that could be changed a little"
    return None


def suggest(trial: BaseTrial, spec: TechniqueSpec, subject: Subject) -> Params | None:  # noqa: ARG001
    """Choose the attack and how far it may go in training."""
    settings = _settings(spec)
    method = str(trial.suggest_categorical(f"{spec.name}.method", (OFF, *settings.methods)))
    share = float(trial.suggest_categorical(f"{spec.name}.share", _SHARES))
    if method == OFF:
        return None
    return {"method": method, "epsilon": share * float(settings.epsilon), "steps": settings.steps}


def defaults(spec: TechniqueSpec, subject: Subject) -> tuple[Params, ...]:
    """Return the strongest attack, with the bound that robust_accuracy is measured with."""
    return (off(spec, subject) | trial_params(spec.name, {"method": _settings(spec).methods[-1]}),)


def off(spec: TechniqueSpec, subject: Subject) -> Params:  # noqa: ARG001
    """Return no attack."""
    return trial_params(spec.name, {"method": OFF, "share": 1.0})


def describe(params: Params) -> str:
    """Return the attack, such as `hardened against PGD of 0.1`."""
    return hardened(params)


def attack_of(techniques: Sequence[TechniqueSpec] | None) -> Adversarial:
    """Return the attack that robust_accuracy is measured with: the settings of this technique, or their defaults."""
    listed = (spec.adversarial for spec in techniques or () if spec.type is TYPE)
    return next((settings for settings in listed if settings is not None), Adversarial())


def _settings(spec: TechniqueSpec) -> Adversarial:
    return spec.adversarial or Adversarial()
