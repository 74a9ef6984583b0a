"""Technique HyperparameterTuning: train anew with other hyperparameters, from the delivered weights or from nothing.

Networks and scikit-learn estimators have spaces of their own; parameters that the user gives take their place. The
continuous ones of a network can also follow the gradient of the validation loss.
"""

from typing import TYPE_CHECKING

from optimizer_jobs.machinery.training import parameters
from optimizer_jobs.machinery.training.fit import NETWORKS, family, untrainable
from optimizer_jobs.machinery.training.parameters import Space, among, between, told
from optimizer_jobs.nets.learning.settings import DELIVERED, LIMITS, SCRATCH, Settings
from optimizer_jobs.nets.learning.settings import wrong as wrong_setting
from optimizer_jobs.technique import Params, ParamValue, Subject
from retune.api.model import Task
from retune.api.techniques import Parameter, TechniqueType, Tuning
from retune.api.techniques import Technique as TechniqueSpec

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

TYPE = TechniqueType.HYPERPARAMETER_TUNING
CHEAP = False
TRAINS = True

OFF, SEARCHED, LEARNED = "Off", "Searched", "Learned"
_NOT_LEARNED = ("epochs", "batch_size")
"""What is still searched when the rest follows the gradient."""


def unavailable(subject: Subject, spec: TechniqueSpec) -> str | None:
    """Return why this model has no hyperparameters to tune with this data."""
    reason = untrainable(subject)
    if reason is not None:
        return reason
    if subject.task is Task.EMBEDDING:
        return "an embedding has no labels to be trained on; Distillation and Pruning train on its own answers"
    given = _settings(spec).parameters or ()
    return parameters.wrong(given) or (_wrong(given) if _is_network(subject) else _unknown(given, subject))


def suggest(trial: "BaseTrial", spec: TechniqueSpec, subject: Subject) -> Params | None:
    """Choose how hyperparameters are found, where training starts, and the hyperparameters."""
    mode = str(trial.suggest_categorical(f"{spec.name}.mode", _modes(spec, subject)))
    chosen = _space(spec, subject).choose(trial, spec.name)
    if _is_network(subject):
        start: Params = {"start": str(trial.suggest_categorical(f"{spec.name}.start", (DELIVERED, SCRATCH)))}
        chosen = start | chosen
    if mode == OFF:
        return None
    if mode == LEARNED:
        kept = {name: value for name, value in chosen.items() if name in {"start", *_NOT_LEARNED}}
        return kept | {"learned": True}
    return chosen


def defaults(spec: TechniqueSpec, subject: Subject) -> tuple[Params, ...]:
    """Return plain retraining, with what the gradient finds too, and for a network from nothing as well."""
    usual = off(spec, subject)
    found = [usual | told(spec.name, {"mode": mode}) for mode in _modes(spec, subject)[1:]]
    if _is_network(subject):
        found.append(found[-1] | told(spec.name, {"start": SCRATCH}))
    return tuple(found)


def off(spec: TechniqueSpec, subject: Subject) -> Params:
    """Return no training."""
    start = {"start": DELIVERED} if _is_network(subject) else {}
    return told(spec.name, {"mode": OFF}, start, _space(spec, subject).first())


def describe(params: Params) -> str:
    """Return start and hyperparameters in words, such as `trained from scratch, learning rate 0.01`."""
    words = [
        "trained from scratch" if params.get("start") == SCRATCH else "trained on" if "start" in params else "tuned"
    ]
    words += ["hyperparameters by gradient"] if params.get("learned") else []
    usual = Settings()
    return ", ".join(
        words
        + [
            f"{name.replace('_', ' ')} {_shown(value)}"
            for name, value in params.items()
            if name not in {"start", "learned"} and value != getattr(usual, name, None)
        ]
    )


def _space(spec: TechniqueSpec, subject: Subject) -> Space:
    given = _settings(spec).parameters
    if not _is_network(subject):
        return _estimator_space(given, subject)
    usual: dict[str, ParamValue] = {name: getattr(Settings(), name) for name in LIMITS}
    return Space(given or tuple(_network_parameters(subject)), usual)


def _network_parameters(subject: Subject) -> list[Parameter]:
    """Return what matters when a network is trained."""
    found = [
        between("learning_rate", 1e-4, 3e-2, log=True),
        between("weight_decay", 1e-4, 1.0, log=True),
        among("batch_size", (16, 32, 64, 128)),
        among("epochs", (15, 30, 60)),
    ]
    if subject.task is Task.CLASSIFICATION:
        found.append(between("label_smoothing", 0.0, 0.2))
    if any(tensor.is_float for tensor in subject.signature.inputs):
        found.append(between("input_noise", 0.0, 0.5))
    return found


def _modes(spec: TechniqueSpec, subject: Subject) -> tuple[str, ...]:
    """Return the ways to find hyperparameters; what a user bounds does not follow a gradient out of the bounds."""
    settings = _settings(spec)
    by_gradient = _is_network(subject) and settings.gradient == "Auto" and settings.parameters is None
    return (OFF, SEARCHED, *([LEARNED] if by_gradient else []))


def _estimator_space(given: tuple[Parameter, ...] | None, subject: Subject) -> Space:
    from optimizer_jobs.machinery.training import spaces

    return spaces.hyperparameters(subject.native, given)


def _unknown(given: tuple[Parameter, ...], subject: Subject) -> str | None:
    from optimizer_jobs.machinery.training import spaces

    return spaces.unknown(subject.native, given)


def _wrong(given: tuple[Parameter, ...]) -> str | None:
    """Return which hyperparameter of a network is not one, or may not have one of its values."""
    for parameter in given:
        for value in parameters.extremes(parameter):
            reason = wrong_setting(parameter.name, value)
            if reason is not None:
                return f"hyperparameter {parameter.name} {reason}"
    return None


def _shown(value: ParamValue) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _is_network(subject: Subject) -> bool:
    return family(subject.native) == NETWORKS


def _settings(spec: TechniqueSpec) -> Tuning:
    return spec.tuning or Tuning()
