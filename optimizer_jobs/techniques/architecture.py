"""Technique Architecture: the same model in another shape, trained from new weights.

A network changes by the arguments of the factory that builds it, an estimator by the parameters that set its size. An
ONNX file has no such arguments; Pruning, Factorization and Distillation make it smaller.
"""

from optuna.trial import BaseTrial

from optimizer_jobs.machinery.training import estimator_spaces, network_spaces, parameters
from optimizer_jobs.machinery.training.fit import ESTIMATORS, family, untrainable
from optimizer_jobs.machinery.training.parameters import Space, trial_params
from optimizer_jobs.nets.learning.words import reshaped
from optimizer_jobs.technique import Params, ParamValue, Subject
from retune.api.model import ModelFormat, Task
from retune.api.own_code import Factory
from retune.api.techniques import Parameter, TechniqueType
from retune.api.techniques import Technique as TechniqueSpec

TYPE = TechniqueType.ARCHITECTURE
CHEAP = False
TRAINS = True

OFF, ON = "Off", "On"
_DEFAULTS = 3
"""Variants to try first, at most."""


def unavailable(subject: Subject, spec: TechniqueSpec) -> str | None:
    """Return why this model cannot be trained in another shape, or None."""
    reason = untrainable(subject)
    if reason is not None:
        return reason
    if family(subject.native) != ESTIMATORS and _factory(subject) is None:
        return "only a network that model.factory builds (format SafeTensors) has other shapes"
    if subject.task is Task.EMBEDDING:
        return "an embedding has no labels to be trained on; Distillation trains smaller ones on its answers"
    listed = _listed(spec) or ()
    reason = parameters.wrong(listed) or _unknown(listed, subject)
    if reason is None and not _space(spec, subject).parameters:
        return "nothing that is known to change its size: name it in architecture.parameters"
    return reason


def suggest(trial: BaseTrial, spec: TechniqueSpec, subject: Subject) -> Params | None:
    """Choose the arguments; return those that differ from the delivered model, or None when none does."""
    mode = trial.suggest_categorical(f"{spec.name}.mode", (OFF, ON))
    space = _space(spec, subject)
    chosen = space.choose(trial, spec.name)
    changed = {name: value for name, value in chosen.items() if space.usual.get(name) != value}
    return changed if mode == ON and changed else None


def defaults(spec: TechniqueSpec, subject: Subject) -> tuple[Params, ...]:
    """Return one variant for each of the first parameters: that one smaller, the others as delivered."""
    space = _space(spec, subject)
    usual = off(spec, subject) | trial_params(spec.name, {"mode": ON})
    smaller = ((parameter.name, _smaller(parameter, space.usual.get(parameter.name))) for parameter in space.parameters)
    variants = [usual | trial_params(spec.name, {name: value}) for name, value in smaller if value is not None]
    return tuple(variants[:_DEFAULTS])


def off(spec: TechniqueSpec, subject: Subject) -> Params:
    """Return the shape as delivered."""
    return trial_params(spec.name, {"mode": OFF}, _space(spec, subject).first())


def describe(params: Params) -> str:
    """Return the changed arguments, such as `width 64, depth 1`."""
    return reshaped(params)


def _space(spec: TechniqueSpec, subject: Subject) -> Space:
    if family(subject.native) == ESTIMATORS:
        return estimator_spaces.architecture(subject.native, _listed(spec))
    factory = _factory(subject)
    return Space(()) if factory is None else network_spaces.architecture(factory, _listed(spec))


def _unknown(listed: tuple[Parameter, ...], subject: Subject) -> str | None:
    """Return which of the user's parameters this model does not have, or None."""
    factory = _factory(subject)
    if factory is None:
        return estimator_spaces.unknown(subject.native, listed)
    return network_spaces.unknown_argument(factory, listed)


def _smaller(parameter: Parameter, delivered: ParamValue | None) -> ParamValue | None:
    """Return a clearly smaller value than the delivered one, or None.

    It is the largest value up to half of the delivered one, or else the largest below it. For what is no number or a
    rate, it is the first other value.
    """
    values = parameters.extremes(parameter)
    if parameter.name in network_spaces.RATES or not isinstance(delivered, int | float):
        return next((value for value in values if value != delivered), None)
    below = [value for value in values if not isinstance(value, str) and value < delivered]
    halves = [value for value in below if value <= delivered / 2]
    return max(halves or below, default=None)


def _factory(subject: Subject) -> Factory | None:
    """Return what builds the network, when the model was delivered as weights and a factory."""
    native = subject.native
    return native.factory if native is not None and native.format is ModelFormat.SAFETENSORS else None


def _listed(spec: TechniqueSpec) -> tuple[Parameter, ...] | None:
    """Return the parameters that the user lists."""
    return spec.architecture.parameters if spec.architecture else None
