"""What is worth searching for a network: hyperparameters of its training, and arguments of the factory that builds it.

Torch is imported only to ask a factory for its arguments. Nothing here trains.
"""

from optimizer_jobs.machinery.training.parameters import Space, among, between, extremes
from optimizer_jobs.nets.learning.settings import LIMITS, Settings
from optimizer_jobs.nets.learning.settings import wrong as wrong_setting
from optimizer_jobs.technique import Params, ParamValue, Subject
from retune.api.model import Task
from retune.api.own_code import Factory
from retune.api.techniques import Parameter

RATES = ("dropout", "dropout_rate")
"""Names of arguments that are shares of units, not sizes."""

_WIDTHS = ("width", "hidden", "hidden_size", "hidden_dim", "hidden_units", "hidden_channels", "filters", "units")
_DEPTHS = ("depth", "layers", "num_layers", "n_layers", "blocks", "num_blocks", "hidden_layers")
_WIDTH_SHARES = (0.125, 0.25, 0.5, 1.0, 1.5)
"""Widths to try, as shares of the width as delivered."""


def hyperparameters(subject: Subject, parameters: tuple[Parameter, ...] | None) -> Space:
    """Return what is searched when the network is trained: the user's `parameters`, or those that matter most."""
    usual: dict[str, ParamValue] = {name: getattr(Settings(), name) for name in LIMITS}
    return Space(parameters or tuple(_hyperparameters(subject)), usual)


def wrong_hyperparameter(parameters: tuple[Parameter, ...]) -> str | None:
    """Return which of the user's parameters is no hyperparameter of a network, or allows an impossible value."""
    for parameter in parameters:
        for value in extremes(parameter):
            reason = wrong_setting(parameter.name, value)
            if reason is not None:
                return f"hyperparameter {parameter.name} {reason}"
    return None


def architecture(factory: Factory, parameters: tuple[Parameter, ...] | None) -> Space:
    """Return what changes the network's size: the user's `parameters`, or arguments whose names say that they do."""
    usual = _arguments(factory)
    return Space(parameters or tuple(_sizes(usual)), usual)


def unknown_argument(factory: Factory, parameters: tuple[Parameter, ...]) -> str | None:
    """Return which of the user's parameters is no argument of the factory, or None."""
    arguments = _arguments(factory)
    unknown = next((parameter.name for parameter in parameters if parameter.name not in arguments), None)
    return None if unknown is None else f"the factory takes no argument {unknown}; it takes {', '.join(arguments)}"


def _hyperparameters(subject: Subject) -> list[Parameter]:
    parameters = [
        between("learning_rate", 1e-4, 3e-2, log=True),
        between("weight_decay", 1e-4, 1.0, log=True),
        among("batch_size", (16, 32, 64, 128)),
        among("epochs", (15, 30, 60)),
    ]
    if subject.task in {Task.CLASSIFICATION, Task.MULTI_LABEL}:
        parameters.append(between("label_smoothing", 0.0, 0.2))
    if any(tensor.is_float for tensor in subject.signature.inputs):
        parameters.append(between("input_noise", 0.0, 0.5))
    return parameters


def _sizes(arguments: Params) -> list[Parameter]:
    """Return the arguments whose names say that they are sizes or rates, with values around those delivered."""
    values_of = {name: _values(name, value) for name, value in arguments.items()}
    return [among(name, values) for name, values in values_of.items() if len(values) > 1]


def _values(name: str, delivered: ParamValue) -> list[ParamValue]:
    """Return the values to try in place of the delivered one; none for an argument that is no size."""
    if name in _WIDTHS and isinstance(delivered, int):
        return [*dict.fromkeys(max(1, round(share * delivered)) for share in _WIDTH_SHARES)]
    if name in _DEPTHS and isinstance(delivered, int):
        return [depth for depth in (delivered - 1, delivered, delivered + 1) if depth >= 1]
    if name in RATES and isinstance(delivered, int | float):
        return [*dict.fromkeys((float(delivered), 0.0, 0.1, 0.3))]
    return []


def _arguments(factory: Factory) -> Params:
    """Return the factory's arguments with the values they have now."""
    from optimizer_jobs.nets.factory import usual

    return usual(factory)
