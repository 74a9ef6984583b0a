"""Find and call the factory that builds a network: code in the Job's image, named by the spec.

Only a factory that promises a network is called: a class derived from torch.nn.Module, or a function annotated to
return one. So a spec cannot call any other function of the image. A function in a folder of the owner's own code needs
no annotation: whoever named the folder trusts what is in it.
"""

import inspect
import os
import sys
import typing
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

from torch import nn

from optimizer_jobs.errors import JobError
from optimizer_jobs.technique import ParamValue, json_or_text
from retune.api.model import Factory
from retune.contract.paths import CODE_VARIABLE
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
    sys.path.extend(folder for folder in _code_folders() if folder not in sys.path)
    try:
        entry = getattr(import_module(module_name), name)
    except ModuleNotFoundError as error:
        raise _not_found(factory, error) from error
    except (ImportError, AttributeError) as error:
        raise _invalid(factory, f"it is not there: {error}.") from error
    if not callable(entry) or not (_promises_network(entry) or _is_own_code(entry)):
        raise _invalid(
            factory,
            "it is neither a class derived from torch.nn.Module nor a function annotated `-> torch.nn.Module`.",
            f"Write `def {name}(...) -> torch.nn.Module:`, or name a class or function that builds the network.",
        )
    return typing.cast("Callable[..., Any]", entry)


def _code_folders() -> list[str]:
    """Return the folders of the owner's own code; they come last on the import path, so that they replace nothing."""
    return [folder for folder in os.environ.get(CODE_VARIABLE, "").split(os.pathsep) if folder]


def _is_own_code(entry: Any) -> bool:
    """Return whether this is a function without a promise either way that is written in the owner's own code."""
    if not isinstance(entry, FunctionType) or "return" in entry.__annotations__:
        return False
    file = Path(entry.__code__.co_filename).resolve()
    return any(file.is_relative_to(Path(folder).resolve()) for folder in _code_folders())


def _not_found(factory: Factory, error: ModuleNotFoundError) -> JobError:
    """Return which module is missing: that of the factory, or one that it imports."""
    module, missing = factory.entry_point.partition(":")[0], str(error.name)
    if f"{module}.".startswith(f"{missing}."):
        next_step = f"Name the folder of {module.partition('.')[0]} with --code, or in {CODE_VARIABLE} of the image."
        return _invalid(factory, f"it is not there: {error}.", next_step)
    package = missing.partition(".")[0]
    next_step = f"Build the optimizer image with it, or, on a machine of your own, install it: pip install {package}"
    return _invalid(factory, f"its code needs the Python module {missing}, which is not installed here.", next_step)


def _promises_network(entry: Any) -> bool:
    if isinstance(entry, type):
        return issubclass(entry, nn.Module)
    try:
        promised = typing.get_type_hints(entry).get("return")
    except (NameError, TypeError):
        return False
    return isinstance(promised, type) and issubclass(promised, nn.Module)


def _invalid(factory: Factory, message: str, next_step: str = _FIX) -> JobError:
    return JobError(Reason.MODEL_INVALID, f"factory {factory.entry_point}", message, next_step)
