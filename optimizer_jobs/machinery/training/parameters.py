"""Parameters whose values a search chooses, given by the user or by a technique: how a trial chooses, what comes first.

Both kinds are the API's `Parameter`, so that a space a user writes is treated as one that is built in.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import cast

from optuna.trial import BaseTrial

from optimizer_jobs.technique import Params, ParamValue, json_or_text
from retune.api.techniques import Parameter


@dataclass(frozen=True)
class Space:
    """What can be chosen, and what is usual."""

    parameters: tuple[Parameter, ...]
    usual: Mapping[str, ParamValue] = field(default_factory=dict)
    """Values that a model has now, or that suit most; a parameter without one starts in its middle."""

    def choose(self, trial: BaseTrial, prefix: str) -> Params:
        """Ask the trial for all of it, each under the name `PREFIX.PARAMETER`; return values by parameter."""
        return {one.name: choose(trial, f"{prefix}.{one.name}", one) for one in self.parameters}

    def first(self) -> Params:
        """Return the values to try first, by parameter."""
        return {one.name: first(one, self.usual.get(one.name)) for one in self.parameters}


def between(name: str, low: float, high: float, *, log: bool = False, integer: bool = False) -> Parameter:
    """Return a parameter that is a number from `low` to `high`."""
    return Parameter(name=name, min=f"{low:.9f}", max=f"{high:.9f}", log=log, integer=integer)


def among(name: str, values: Iterable[ParamValue]) -> Parameter:
    """Return a parameter that is one of the values."""
    return Parameter(name=name, values=tuple(json.dumps(value) for value in values))


def told(prefix: str, *params: Mapping[str, ParamValue]) -> Params:
    """Return values by parameter as a trial is told them, each under the name `PREFIX.PARAMETER`; later ones win."""
    return {f"{prefix}.{name}": value for some in params for name, value in some.items()}


def choose(trial: BaseTrial, name: str, parameter: Parameter) -> ParamValue:
    """Ask the trial for a value under the name `name`."""
    if parameter.values is not None:
        return cast("ParamValue", trial.suggest_categorical(name, choices(parameter)))
    low, high = _bounds(parameter)
    if parameter.integer:
        return trial.suggest_int(name, math.ceil(low), math.floor(high), log=parameter.log)
    return trial.suggest_float(name, low, high, log=parameter.log)


def first(parameter: Parameter, usual: ParamValue | None = None) -> ParamValue:
    """Return the value to try first: `usual` as near as the parameter allows, else the middle or the first choice."""
    if parameter.values is not None:
        listed = choices(parameter)
        return usual if usual is not None and usual in listed else listed[0]
    low, high = _bounds(parameter)
    middle = math.sqrt(low * high) if parameter.log else (low + high) / 2
    number = float(usual) if isinstance(usual, int | float) else middle
    near = min(max(number, low), high)
    return min(max(round(near), math.ceil(low)), math.floor(high)) if parameter.integer else near


def choices(parameter: Parameter) -> tuple[ParamValue, ...]:
    """Return the values to choose from; raises ValueError for one that is a list, an object or null."""
    found = tuple(json_or_text(value) for value in parameter.values or ())
    for value, spelled in zip(found, parameter.values or (), strict=True):
        if not isinstance(value, str | int | float):
            raise ValueError(  # noqa: TRY004 - the user's text, not a caller's type
                f"parameter {parameter.name} has value {spelled}, not a number, truth value or text"
            )
    return found


def wrong(parameters: Iterable[Parameter]) -> str | None:
    """Return why the values of one of the parameters cannot be chosen from, or None."""
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
    """Return values that show whether all are allowed: every choice, or smallest and largest."""
    if parameter.values is not None:
        return choices(parameter)
    return tuple(round(bound) if parameter.integer else bound for bound in _bounds(parameter))


def _bounds(parameter: Parameter) -> tuple[float, float]:
    return float(parameter.min or 0), float(parameter.max or 0)
