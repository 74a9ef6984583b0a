"""Parameters whose values a search chooses: how a trial chooses each one, and which value is tried first.

Users and techniques describe parameters alike, with the API's `Parameter`. So a search treats a space that a user wrote
as it treats a built-in one.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import cast

from optuna.trial import BaseTrial

from optimizer_jobs.owned_code import json_or_text
from optimizer_jobs.technique import Params, ParamValue
from retune.api.techniques import Parameter


@dataclass(frozen=True)
class Space:
    """Parameters to choose, and the values to start from."""

    parameters: tuple[Parameter, ...]
    usual: Mapping[str, ParamValue] = field(default_factory=dict)
    """Values that the model has now, or that suit most models, by parameter. A parameter without one starts in its
    middle."""

    def choose(self, trial: BaseTrial, prefix: str) -> Params:
        """Ask the trial for every parameter, under the name `PREFIX.PARAMETER`; return the values by parameter."""
        return {parameter.name: choose(trial, f"{prefix}.{parameter.name}", parameter) for parameter in self.parameters}

    def first(self) -> Params:
        """Return the values to try first, by parameter."""
        return {parameter.name: first(parameter, self.usual.get(parameter.name)) for parameter in self.parameters}


def between(name: str, low: float, high: float, *, log: bool = False, integer: bool = False) -> Parameter:
    """Return a parameter whose value is a number from `low` to `high`, both included."""
    return Parameter(name=name, min=f"{low:.9f}", max=f"{high:.9f}", log=log, integer=integer)


def among(name: str, values: Iterable[ParamValue]) -> Parameter:
    """Return a parameter whose value is one of `values`."""
    return Parameter(name=name, values=tuple(json.dumps(value) for value in values))


def trial_params(prefix: str, *groups: Mapping[str, ParamValue]) -> Params:
    """Return values under the names that they have in a trial, `PREFIX.PARAMETER`.

    Args:
        prefix: Name of the technique in the spec.
        groups: Values by parameter. Where two groups name the same parameter, the later one wins.
    """
    return {f"{prefix}.{name}": value for group in groups for name, value in group.items()}


def choose(trial: BaseTrial, name: str, parameter: Parameter) -> ParamValue:
    """Ask the trial for a value of the parameter, under the name `name`."""
    if parameter.values is not None:
        return cast("ParamValue", trial.suggest_categorical(name, choices(parameter)))
    low, high = _bounds(parameter)
    if parameter.integer:
        return trial.suggest_int(name, math.ceil(low), math.floor(high), log=parameter.log)
    return trial.suggest_float(name, low, high, log=parameter.log)


def first(parameter: Parameter, usual: ParamValue | None = None) -> ParamValue:
    """Return the value to try first.

    That is `usual`, or the allowed number closest to it. Where `usual` is of no help, it is the first choice, or the
    middle of the range.
    """
    if parameter.values is not None:
        values = choices(parameter)
        return usual if usual is not None and usual in values else values[0]
    low, high = _bounds(parameter)
    middle = math.sqrt(low * high) if parameter.log else (low + high) / 2
    number = float(usual) if isinstance(usual, int | float) else middle
    closest = min(max(number, low), high)
    return min(max(round(closest), math.ceil(low)), math.floor(high)) if parameter.integer else closest


def choices(parameter: Parameter) -> tuple[ParamValue, ...]:
    """Return the values to choose from.

    Raises:
        ValueError: A value is a list, an object or null.
    """
    values = tuple(json_or_text(text) for text in parameter.values or ())
    for value, text in zip(values, parameter.values or (), strict=True):
        if not isinstance(value, str | int | float):
            raise ValueError(  # noqa: TRY004 - the user's text, not a caller's type
                f"parameter {parameter.name} has value {text}, not a number, truth value or text"
            )
    return values


def wrong(parameters: Iterable[Parameter]) -> str | None:
    """Return why a parameter has no values to choose from, as words without a full stop, or None."""
    for parameter in parameters:
        try:
            choices(parameter)
        except ValueError as error:
            return str(error)
        if parameter.values is None and parameter.integer:
            low, high = _bounds(parameter)
            if math.ceil(low) > math.floor(high):
                return f"parameter {parameter.name} is to be a whole number, and there is none from {low:g} to {high:g}"
    return None


def extremes(parameter: Parameter) -> tuple[ParamValue, ...]:
    """Return the values to check when all must be allowed: every choice, or the smallest and the largest number."""
    if parameter.values is not None:
        return choices(parameter)
    return tuple(round(bound) if parameter.integer else bound for bound in _bounds(parameter))


def _bounds(parameter: Parameter) -> tuple[float, float]:
    return float(parameter.min or 0), float(parameter.max or 0)
