"""Find and call the factory that builds a network: code in the Job's image, named by the spec.

Only a factory that promises a network is called: a class derived from torch.nn.Module, or a function annotated to
return one. So a spec cannot call any other function of the image.
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
    """Return the network that the factory builds.

    Args:
        factory: Entry point and arguments.
        overrides: Arguments that replace those of the factory.

    Raises:
        JobError: ModelInvalid, with what is wrong with entry point or arguments.
    """
    build, arguments = _callable(factory), arguments_of(factory) | dict(overrides or {})
    try:
        inspect.signature(build).bind(**arguments)
        module = build(**arguments)
    except Exception as error:  # a factory is foreign code, which may raise anything
        call = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        raise _invalid(factory, f"called with ({call}) it raises {type(error).__name__}: {error}.") from error
    if not isinstance(module, nn.Module):
        raise _invalid(factory, f"it returned a {type(module).__name__}, not a torch.nn.Module.")
    return module


def arguments_of(factory: Factory) -> dict[str, ParamValue]:
    """Return the factory's arguments as numbers, truth values and texts.

    Raises:
        JobError: ModelInvalid for an argument that is a list, an object or null.
    """
    arguments: dict[str, ParamValue] = {}
    for argument in factory.arguments:
        value = json_or_text(argument.value)
        if not isinstance(value, str | int | float):
            raise _invalid(factory, f"argument {argument.name} is {argument.value}, not a number, truth value or text.")
        arguments[argument.name] = value
    return arguments


def usual(factory: Factory) -> dict[str, ParamValue]:
    """Return every argument of the factory that is a number, truth value or text, with the value that it has now.

    Raises:
        JobError: ModelInvalid, as from `network`.
    """
    parameters, arguments = inspect.signature(_callable(factory)).parameters, arguments_of(factory)
    values = {name: arguments.get(name, parameter.default) for name, parameter in parameters.items()}
    return {name: value for name, value in values.items() if isinstance(value, str | int | float)}


def _callable(factory: Factory) -> Callable[..., Any]:
    module_name, _, name = factory.entry_point.partition(":")
    try:
        entry = getattr(import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise _invalid(factory, f"it is not there: {error}.") from error
    if not callable(entry) or not _promises_network(entry):
        raise _invalid(
            factory, "it is neither a class derived from torch.nn.Module nor a function annotated `-> torch.nn.Module`."
        )
    return typing.cast("Callable[..., Any]", entry)


def _promises_network(entry: Any) -> bool:
    if isinstance(entry, type):
        return issubclass(entry, nn.Module)
    try:
        promised = typing.get_type_hints(entry).get("return")
    except (NameError, TypeError):
        return False
    return isinstance(promised, type) and issubclass(promised, nn.Module)


def _invalid(factory: Factory, message: str) -> JobError:
    return JobError(Reason.MODEL_INVALID, f"factory {factory.entry_point}", message, _FIX)
