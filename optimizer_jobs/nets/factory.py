"""Find and call what builds a network: code in the Job's image, named by the spec.

Only what says that it returns a network is called: a class derived from torch.nn.Module, or a function annotated to
return one. So no other function of the image can be reached by naming it.
"""

import inspect
import typing
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from torch import nn

from optimizer_jobs.errors import JobError
from optimizer_jobs.technique import ParamValue, json_or_text
from retune.api.model import Factory
from retune.contract.results import Reason

_FIX = "Correct model.factory, or build the optimizer image with a package that has it."


def network(factory: Factory, *, overrides: Mapping[str, ParamValue] | None = None) -> nn.Module:
    """Return the network that the factory builds from its arguments and `overrides`, which win.

    Raises:
        JobError: ModelInvalid saying what is wrong with entry point or arguments.
    """
    build, arguments = _callable(factory), arguments_of(factory) | dict(overrides or {})
    try:
        inspect.signature(build).bind(**arguments)
        module = build(**arguments)
    except Exception as error:  # a factory is foreign code: whatever it raises is its answer to these arguments
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        raise _invalid(factory, f"called with ({given}) it raises {type(error).__name__}: {error}.") from error
    if not isinstance(module, nn.Module):
        raise _invalid(factory, f"it returned a {type(module).__name__}, not a torch.nn.Module.")
    return module


def arguments_of(factory: Factory) -> dict[str, ParamValue]:
    """Return the factory's arguments as numbers, truth values and texts.

    Raises:
        JobError: ModelInvalid for an argument that is a list, an object or null.
    """
    found: dict[str, ParamValue] = {}
    for argument in factory.arguments:
        value = json_or_text(argument.value)
        if not isinstance(value, str | int | float):
            raise _invalid(factory, f"argument {argument.name} is {argument.value}, not a number, truth value or text.")
        found[argument.name] = value
    return found


def usual(factory: Factory) -> dict[str, ParamValue]:
    """Return every argument that the factory takes as a number, truth value or text, with the value it has now.

    Raises:
        JobError: ModelInvalid as `network`.
    """
    parameters, given = inspect.signature(_callable(factory)).parameters, arguments_of(factory)
    values = {name: given.get(name, one.default) for name, one in parameters.items()}
    return {name: value for name, value in values.items() if isinstance(value, str | int | float)}


def _callable(factory: Factory) -> Callable[..., Any]:
    module_name, _, name = factory.entry_point.partition(":")
    try:
        found = getattr(import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise _invalid(factory, f"it is not there: {error}.") from error
    if not callable(found) or not _promises_network(found):
        raise _invalid(
            factory, "it is neither a class derived from torch.nn.Module nor a function annotated `-> torch.nn.Module`."
        )
    return typing.cast("Callable[..., Any]", found)


def _promises_network(found: Any) -> bool:
    if isinstance(found, type):
        return issubclass(found, nn.Module)
    try:
        promised = typing.get_type_hints(found).get("return")
    except (NameError, TypeError):
        return False
    return isinstance(promised, type) and issubclass(promised, nn.Module)


def _invalid(factory: Factory, message: str) -> JobError:
    return JobError(Reason.MODEL_INVALID, f"factory {factory.entry_point}", message, _FIX)
