"""Technique Architecture: the same model in another shape, trained from nothing.

A network changes by the arguments of the factory that builds it, an estimator by parameters that say how large it is.
An ONNX file alone has one shape; Pruning, Factorization and Distillation make it smaller.
"""

from typing import TYPE_CHECKING

from optimizer_jobs.machinery.training import parameters
from optimizer_jobs.machinery.training.fit import ESTIMATORS, family, untrainable
from optimizer_jobs.machinery.training.parameters import Space, among, told
from optimizer_jobs.nets.learning.words import reshaped
from optimizer_jobs.technique import Params, ParamValue, Subject
from retune.api.model import Factory, ModelFormat, Task
from retune.api.techniques import Parameter, TechniqueType
from retune.api.techniques import Technique as TechniqueSpec

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

TYPE = TechniqueType.ARCHITECTURE
CHEAP = False
TRAINS = True

OFF, ON = "Off", "On"
_WIDTHS = ("width", "hidden", "hidden_size", "hidden_dim", "hidden_units", "hidden_channels", "filters", "units")
_DEPTHS = ("depth", "layers", "num_layers", "n_layers", "blocks", "num_blocks", "hidden_layers")
_RATES = ("dropout", "dropout_rate")
_SHARES = (0.125, 0.25, 0.5, 1.0, 1.5)
"""Widths to try, as shares of the width as delivered."""
_DEFAULTS = 3


def unavailable(subject: Subject, spec: TechniqueSpec) -> str | None:
    """Return why this model has no other shape to be trained in."""
    reason = untrainable(subject)
    if reason is not None:
        return reason
    if family(subject.native) != ESTIMATORS and _factory(subject) is None:
        return "only a network that model.factory builds (format SafeTensors) has other shapes"
    if subject.task is Task.EMBEDDING:
        return "an embedding has no labels to be trained on; Distillation trains smaller ones on its answers"
    given = _given(spec) or ()
    wrong = parameters.wrong(given) or _unknown(given, subject)
    if wrong is None and not _space(spec, subject).parameters:
        return "nothing that is known to change its size: name it in architecture.parameters"
    return wrong


def suggest(trial: "BaseTrial", spec: TechniqueSpec, subject: Subject) -> Params | None:
    """Choose the arguments; those that are as delivered are left out, and all of them is no change."""
    mode = trial.suggest_categorical(f"{spec.name}.mode", (OFF, ON))
    space = _space(spec, subject)
    chosen = space.choose(trial, spec.name)
    changed = {name: value for name, value in chosen.items() if space.usual.get(name) != value}
    return changed if mode == ON and changed else None


def defaults(spec: TechniqueSpec, subject: Subject) -> tuple[Params, ...]:
    """Return one variant for each of the first parameters: that one smaller, the others as delivered."""
    space = _space(spec, subject)
    usual = off(spec, subject) | told(spec.name, {"mode": ON})
    smaller = ((one.name, _smaller(one, space.usual.get(one.name))) for one in space.parameters)
    found = [usual | told(spec.name, {name: value}) for name, value in smaller if value is not None]
    return tuple(found[:_DEFAULTS])


def off(spec: TechniqueSpec, subject: Subject) -> Params:
    """Return the shape as delivered."""
    return told(spec.name, {"mode": OFF}, _space(spec, subject).first())


def describe(params: Params) -> str:
    """Return the changed arguments, such as `width 64, depth 1`."""
    return reshaped(params)


def _space(spec: TechniqueSpec, subject: Subject) -> Space:
    if family(subject.native) == ESTIMATORS:
        from optimizer_jobs.machinery.training import spaces

        return spaces.architecture(subject.native, _given(spec))
    factory = _factory(subject)
    if factory is None:
        return Space(())
    usual = _usual(factory)
    return Space(_given(spec) or tuple(_known(usual)), usual)


def _known(usual: Params) -> list[Parameter]:
    """Return the arguments whose names say that they are sizes, with values around those delivered."""
    found = []
    for name, value in usual.items():
        values: list[ParamValue] = []
        if name in _WIDTHS and isinstance(value, int):
            values = [*{max(1, round(share * value)): None for share in _SHARES}]
        elif name in _DEPTHS and isinstance(value, int):
            values = [near for near in (value - 1, value, value + 1) if near >= 1]
        elif name in _RATES and isinstance(value, int | float):
            values = [*{float(value): None, 0.0: None, 0.1: None, 0.3: None}]
        if len(values) > 1:
            found.append(among(name, values))
    return found


def _smaller(parameter: Parameter, usual: ParamValue | None) -> ParamValue | None:
    """Return the largest value below the one delivered, if it is a size, or None."""
    if parameter.name in _RATES or not isinstance(usual, int | float):
        return next((value for value in parameters.extremes(parameter) if value != usual), None)
    below = [value for value in parameters.extremes(parameter) if not isinstance(value, str) and value < usual]
    halves = [value for value in below if value <= usual / 2]
    return max(halves or below, default=None)


def _unknown(given: tuple[Parameter, ...], subject: Subject) -> str | None:
    factory = _factory(subject)
    if factory is None:
        from optimizer_jobs.machinery.training import spaces

        return spaces.unknown(subject.native, given)
    usual = _usual(factory)
    strange = next((one.name for one in given if one.name not in usual), None)
    return None if strange is None else f"the factory takes no argument {strange}; it takes {', '.join(usual)}"


def _usual(factory: Factory) -> Params:
    from optimizer_jobs.nets.factory import usual

    return usual(factory)


def _factory(subject: Subject) -> Factory | None:
    native = subject.native
    return native.factory if native is not None and native.format is ModelFormat.SAFETENSORS else None


def _given(spec: TechniqueSpec) -> tuple[Parameter, ...] | None:
    return spec.architecture.parameters if spec.architecture else None
