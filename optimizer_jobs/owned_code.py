"""Find code of the owner's own in the Job's image: what `package.module:callable` names, and its arguments.

Nothing is called here: whoever calls decides which callables may be, and does so in a process without credentials.
"""

import json
import os
import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

from optimizer_jobs.errors import JobError
from retune.api.own_code import FactoryArgument
from retune.contract.paths import CODE_VARIABLE
from retune.contract.results import Reason


def named(entry_point: str, *, what: str, field: str) -> Any:
    """Return what an entry point names, after the owner's folders were put last on the import path.

    Args:
        entry_point: `package.module:name`.
        what: What it is, such as `factory`.
        field: The field of the spec that names it.

    Raises:
        JobError: ModelInvalid; it, or a module that its code imports, is not there.
    """
    module_name, _, name = entry_point.partition(":")
    sys.path.extend(folder for folder in _folders() if folder not in sys.path)
    try:
        return getattr(import_module(module_name), name)
    except ModuleNotFoundError as error:
        raise _not_found(f"{what} {entry_point}", module_name, error) from error
    except (ImportError, AttributeError) as error:
        raise invalid(f"{what} {entry_point}", f"it is not there: {error}.", fix(field)) from error


def arguments_of(arguments: Iterable[FactoryArgument], *, where: str, field: str) -> dict[str, str | int | float]:
    """Return arguments as numbers, truth values and texts.

    Args:
        arguments: Names and values as JSON.
        where: Whose arguments they are, in words.
        field: The field of the spec that has them.

    Raises:
        JobError: ModelInvalid for an argument that is a list, an object or null.
    """
    values: dict[str, str | int | float] = {}
    for argument in arguments:
        value = json_or_text(argument.value)
        if not isinstance(value, str | int | float):
            words = f"argument {argument.name} is {argument.value}, not a number, truth value or text."
            raise invalid(where, words, fix(field))
        values[argument.name] = value
    return values


def is_own_function(entry: Any) -> bool:
    """Return whether this is a function that is written in a folder of the owner's own code."""
    if not isinstance(entry, FunctionType):
        return False
    file = Path(entry.__code__.co_filename).resolve()
    return any(file.is_relative_to(Path(folder).resolve()) for folder in _folders())


def fix(field: str) -> str:
    """Return the next step where a field names what is not there."""
    return f"Correct {field}, or build the optimizer image with a package that has it."


def invalid(where: str, message: str, next_step: str) -> JobError:
    """Return the error that code of the owner's own cannot be used."""
    return JobError(Reason.MODEL_INVALID, where, message, next_step)


def _folders() -> list[str]:
    """Return the folders of the owner's own code; they come last on the import path, so that they replace nothing."""
    return [folder for folder in os.environ.get(CODE_VARIABLE, "").split(os.pathsep) if folder]


def _not_found(where: str, module: str, error: ModuleNotFoundError) -> JobError:
    """Return which module is missing: the named one, or one that it imports."""
    missing = str(error.name)
    if f"{module}.".startswith(f"{missing}."):
        next_step = f"Name the folder of {module.partition('.')[0]} with --code, or in {CODE_VARIABLE} of the image."
        return invalid(where, f"it is not there: {error}.", next_step)
    package = missing.partition(".")[0]
    next_step = f"Build the optimizer image with it, or, on a machine of your own, install it: pip install {package}"
    return invalid(where, f"its code needs the Python module {missing}, which is not installed here.", next_step)


def json_or_text(value: str) -> Any:
    """Return `value` parsed as JSON, or the text itself when it is not JSON."""
    try:
        return json.loads(value, parse_constant=_refuse)
    except ValueError:
        return value


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
