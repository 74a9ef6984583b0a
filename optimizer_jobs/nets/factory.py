"""Find and call the factory that builds a network: code in the Job's image, named by the spec.

Only a factory that promises a network is called: a class derived from torch.nn.Module, or a function annotated to
return one. So a spec cannot call any other function of the image. A function in a folder of the owner's own code needs
no annotation: whoever named the folder trusts what is in it.
"""

import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from optimizer_jobs import owned_code
from optimizer_jobs.errors import JobError
from optimizer_jobs.technique import ParamValue
from retune.api.own_code import Factory

_FIELD = "model.factory"


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
    """Return the factory's arguments as numbers, truth values and texts; raises JobError for any others."""
    return owned_code.arguments_of(factory.arguments, where=f"factory {factory.entry_point}", field=_FIELD)


def usual(factory: Factory) -> dict[str, ParamValue]:
    """Return every argument of the factory that is a number, truth value or text, with the value that it has now.

    Raises:
        JobError: ModelInvalid, as from `network`.
    """
    parameters, arguments = inspect.signature(_callable(factory)).parameters, arguments_of(factory)
    values = {name: arguments.get(name, parameter.default) for name, parameter in parameters.items()}
    return {name: value for name, value in values.items() if isinstance(value, str | int | float)}


def _callable(factory: Factory) -> Callable[..., Any]:
    name = factory.entry_point.partition(":")[2]
    entry = owned_code.named(factory.entry_point, what="factory", field=_FIELD)
    if not callable(entry) or not (_promises_network(entry) or _is_own_code(entry)):
        raise _invalid(
            factory,
            "it is neither a class derived from torch.nn.Module nor a function annotated `-> torch.nn.Module`.",
            f"Write `def {name}(...) -> torch.nn.Module:`, or name a class or function that builds the network.",
        )
    return typing.cast("Callable[..., Any]", entry)


def _is_own_code(entry: Any) -> bool:
    """Return whether this is a function without a promise either way that is written in the owner's own code."""
    return owned_code.is_own_function(entry) and "return" not in entry.__annotations__


def _promises_network(entry: Any) -> bool:
    if isinstance(entry, type):
        return issubclass(entry, nn.Module)
    try:
        promised = typing.get_type_hints(entry).get("return")
    except (NameError, TypeError):
        return False
    return isinstance(promised, type) and issubclass(promised, nn.Module)


def _invalid(factory: Factory, message: str, next_step: str | None = None) -> JobError:
    return owned_code.invalid(f"factory {factory.entry_point}", message, next_step or owned_code.fix(_FIELD))
