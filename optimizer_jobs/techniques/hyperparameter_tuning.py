"""Technique HyperparameterTuning: train again with other hyperparameters, from the delivered weights or from new ones.

Networks and scikit-learn estimators have spaces of their own; parameters that the user lists take their place. The
continuous ones of a network can also follow the gradient of the validation loss.
"""

from optuna.trial import BaseTrial

from optimizer_jobs.machinery.training import estimator_spaces, network_spaces, parameters
from optimizer_jobs.machinery.training.fit import NETWORKS, family, untrainable
from optimizer_jobs.machinery.training.parameters import Space, trial_params
from optimizer_jobs.nets.learning.settings import DELIVERED, SCRATCH, Settings
from optimizer_jobs.technique import Params, ParamValue, Subject
from retune.api.model import Task
from retune.api.techniques import Parameter, TechniqueType, Tuning
from retune.api.techniques import Technique as TechniqueSpec

TYPE = TechniqueType.HYPERPARAMETER_TUNING
CHEAP = False
TRAINS = True

OFF, SEARCHED, LEARNED = "Off", "Searched", "Learned"
_NOT_LEARNED = ("epochs", "batch_size")
"""Hyperparameters that are still searched when the others follow the gradient."""


def unavailable(subject: Subject, spec: TechniqueSpec) -> str | None:
    """Return why this model has no hyperparameters to tune with this data, or None."""
    reason = untrainable(subject)
    if reason is not None:
        return reason
    if subject.task is Task.EMBEDDING:
        return "an embedding has no labels to be trained on; Distillation and Pruning train on its own answers"
    listed = _settings(spec).parameters or ()
    return parameters.wrong(listed) or _unknown(listed, subject)


def suggest(trial: BaseTrial, spec: TechniqueSpec, subject: Subject) -> Params | None:
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
    """Return training again in each mode, and for a network the last of these from new weights too."""
    usual = off(spec, subject)
    variants = [usual | trial_params(spec.name, {"mode": mode}) for mode in _modes(spec, subject)[1:]]
    if _is_network(subject):
        variants.append(variants[-1] | trial_params(spec.name, {"start": SCRATCH}))
    return tuple(variants)


def off(spec: TechniqueSpec, subject: Subject) -> Params:
    """Return no training."""
    start = {"start": DELIVERED} if _is_network(subject) else {}
    return trial_params(spec.name, {"mode": OFF}, start, _space(spec, subject).first())


def describe(params: Params) -> str:
    """Return start and hyperparameters in words, such as `trained from scratch, learning rate 0.01`."""
    usual = Settings()
    changed = [
        f"{name.replace('_', ' ')} {_shown(value)}"
        for name, value in params.items()
        if name not in {"start", "learned"} and value != getattr(usual, name, None)
    ]
    by_gradient = ["hyperparameters by gradient"] if params.get("learned") else []
    return ", ".join([_start_words(params), *by_gradient, *changed])


def _start_words(params: Params) -> str:
    if "start" not in params:
        return "tuned"
    return "trained from scratch" if params["start"] == SCRATCH else "trained on"


def _modes(spec: TechniqueSpec, subject: Subject) -> tuple[str, ...]:
    """Return the ways to find hyperparameters. A gradient could leave the bounds of a user, so then it is not used."""
    settings = _settings(spec)
    by_gradient = _is_network(subject) and settings.gradient == "Auto" and settings.parameters is None
    return (OFF, SEARCHED, *([LEARNED] if by_gradient else []))


def _space(spec: TechniqueSpec, subject: Subject) -> Space:
    listed = _settings(spec).parameters
    if _is_network(subject):
        return network_spaces.hyperparameters(subject, listed)
    return estimator_spaces.hyperparameters(subject.native, listed)


def _unknown(listed: tuple[Parameter, ...], subject: Subject) -> str | None:
    """Return which of the user's parameters this model does not have, or may not have with its values, or None."""
    if _is_network(subject):
        return network_spaces.wrong_hyperparameter(listed)
    return estimator_spaces.unknown(subject.native, listed)


def _shown(value: ParamValue) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _is_network(subject: Subject) -> bool:
    return family(subject.native) == NETWORKS


def _settings(spec: TechniqueSpec) -> Tuning:
    return spec.tuning or Tuning()
