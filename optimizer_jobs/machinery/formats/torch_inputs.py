"""Which inputs a torch network takes: their order, element types and free axes.

A network does not say it. The validation data shows arrays by name, or a table as one matrix. Forward's parameters have
names, and the network itself is tried: with other element types where it refuses those of the data, and with shorter
rows of whole numbers, to learn whether they are sequences of any length.
"""

import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from optimizer_jobs.data.datasets import SINGLE_INPUT, Array
from optimizer_jobs.errors import JobError
from optimizer_jobs.machinery.formats.base import LABELS, Delivered
from optimizer_jobs.nets.outputs import parameters_of
from optimizer_jobs.signature import TensorSpec
from retune.contract.results import Reason

Arrays = dict[str, Array]
Run = Callable[[Mapping[str, Array]], Mapping[str, Tensor]]
"""Runs the network on inputs by name and returns its outputs by name; raises what the network raises."""

_EXAMPLES = 4
"""Rows to run the network on, where it does not fix their number."""
_MOST_TYPES = 24
"""Combinations of element types that are tried."""
_KEPT_TYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float32")
"""Element types that inputs keep; 64-bit and 16-bit floats become 32-bit ones, and other whole numbers int64."""


@dataclass(frozen=True)
class Shown:
    """A few rows of the validation data."""

    arrays: Arrays
    """Rows by input name, in the order of forward's parameters where they are named alike."""
    tabular: bool
    """Whether one input is a table's columns side by side."""


class Program(nn.Module):  # type: ignore[misc] # the library has no types
    """A network that was saved with its code. It evaluates already, and its own `eval()` may raise."""

    def __init__(self, call: Callable[..., Any], inputs: Sequence[str], specs: Sequence[TensorSpec] = ()) -> None:
        super().__init__()
        self.input_names, self.specs = tuple(inputs), tuple(specs)
        self.script = call if isinstance(call, torch.jit.ScriptModule) else None  # a part, so that it can be traced
        self._call = [call]  # in a list, so that `eval()` of this network does not reach an exported program

    def forward(self, *inputs: Tensor) -> Any:
        """Return the answers of the program."""
        return self._call[0](*inputs) if self.script is None else self.script(*inputs)


def shown(module: nn.Module, delivered: Delivered) -> Shown:
    """Return rows to run the network on, in the element types of the data.

    Raises:
        JobError: DataInvalid when there are no inputs, more than forward takes, or inputs that are no numbers.
    """
    columns = delivered.columns
    names = _inputs(delivered)
    parameters = input_names(module)
    by_name = [name for name in parameters if name in names]
    side_by_side = columns.tabular and not (len(by_name) > 1 and set(_required(module)) <= set(names))
    if not side_by_side and by_name and set(_required(module)) <= set(by_name):
        names = by_name
    if not names:
        raise _invalid(delivered, "the validation rows hold nothing but labels.", "Add the inputs.")
    count = next((spec.shape[0] for spec in specs_of(module) if spec.shape and spec.shape[0] > 0), _EXAMPLES)
    arrays = {name: _numbers(name, columns.read(name)[:count], delivered) for name in names}
    if side_by_side:
        arrays = {SINGLE_INPUT: np.stack(list(arrays.values()), axis=1)}
    if parameters and len(arrays) > len(parameters) and not takes_any_number(module):
        raise _invalid(
            delivered,
            f"the network takes {', '.join(parameters)}, and the data holds {', '.join(arrays)}.",
            "Name the array with the labels in labelColumn, and remove what is no input.",
        )
    return Shown(arrays, side_by_side)


def _inputs(delivered: Delivered) -> list[str]:
    """Return the columns that are no label; where there is no column of the spec's name, none of a usual name."""
    names = [name for name in delivered.columns.names if name != delivered.label]
    if len(names) < len(delivered.columns.names):
        return names
    return [name for name in names if name not in LABELS] or names


def input_names(module: nn.Module) -> tuple[str, ...]:
    """Return the names of forward's parameters."""
    if isinstance(module, Program):
        return module.input_names
    if isinstance(module, torch.jit.ScriptModule):
        return tuple(argument.name for argument in module.forward.schema.arguments[1:])
    return parameters_of(module.forward)


def specs_of(module: nn.Module) -> tuple[TensorSpec, ...]:
    """Return the inputs that an exported program names with type and shape; none for other networks."""
    return module.specs if isinstance(module, Program) else ()


def takes_any_number(module: nn.Module) -> bool:
    """Return whether forward is written with `*inputs`."""
    if isinstance(module, Program | torch.jit.ScriptModule):
        return False
    kinds = {parameter.kind for parameter in inspect.signature(module.forward).parameters.values()}
    return inspect.Parameter.VAR_POSITIONAL in kinds


def _required(module: nn.Module) -> tuple[str, ...]:
    """Return the parameters of forward that have no default."""
    if isinstance(module, Program | torch.jit.ScriptModule):
        return input_names(module)
    parameters = inspect.signature(module.forward).parameters
    return tuple(name for name in input_names(module) if parameters[name].default is inspect.Parameter.empty)


def _numbers(name: str, values: Array, delivered: Delivered) -> Array:
    if values.dtype.kind not in "biuf":
        raise _invalid(
            delivered,
            f"input {name!r} holds {values.dtype}, not numbers.",
            "A torch network takes numbers: encode text before.",
        )
    kept = str(values.dtype) if str(values.dtype) in _KEPT_TYPES else "float32" if values.dtype.kind == "f" else "int64"
    return np.ascontiguousarray(values, dtype=kept)


def typed(rows: Shown, module: nn.Module) -> Iterator[Arrays]:
    """Yield the rows in the element types that the network may take, the likeliest first.

    These are the types of the data, or for a table 32-bit floats; then others, input by input.
    """
    specs = {spec.name: spec.dtype for spec in specs_of(module)}
    if specs:
        yield {name: values.astype(specs.get(name, values.dtype)) for name, values in rows.arrays.items()}
        return
    wide = any(weight.dtype == torch.float64 for weight in module.parameters())
    choices = [_types(values, tabular=rows.tabular, wide=wide) for values in rows.arrays.values()]
    for types in itertools.islice(itertools.product(*choices), _MOST_TYPES):
        yield {name: values.astype(kind) for (name, values), kind in zip(rows.arrays.items(), types, strict=True)}


def _types(values: Array, *, tabular: bool, wide: bool) -> list[str]:
    own = str(values.dtype)
    usual = ["float32", own, "int64"] if tabular else [own, *([] if own == "float32" else ["int64", "float32"])]
    return [*dict.fromkeys(usual), *(["float64"] if wide else [])]


def free_widths(run: Run, rows: Mapping[str, Array], *, tabular: bool) -> frozenset[str]:
    """Return the inputs (N, L) whose L is free: whole numbers or truth values, and the network takes fewer too.

    Args:
        run: Runs the network.
        rows: Rows that it takes.
        tabular: Whether the input is a table, whose columns are never free.
    """
    wholes = [] if tabular else [name for name, values in rows.items() if values.ndim == 2 and values.dtype.kind != "f"]
    alike = [[name for name in wholes if rows[name].shape == rows[first].shape] for first in wholes]
    beside = [[name for name, values in rows.items() if values.shape == rows[first].shape] for first in wholes]
    for group in [wholes, *alike, *beside] if wholes else ():
        if _takes(run, narrowed(rows, group)):
            rest = {name: values for name, values in rows.items() if name not in group}
            others = free_widths(lambda more: run({**rows, **more}), rest, tabular=tabular)
            return frozenset(group) | others
    return frozenset()


def narrowed(rows: Mapping[str, Array], names: Sequence[str] | frozenset[str]) -> Arrays:
    """Return the rows with inputs of another width: half of it, or twice a width of 1."""
    return {name: _narrowed(values) if name in names else values for name, values in rows.items()}


def _narrowed(values: Array) -> Array:
    width = values.shape[1]
    return np.ascontiguousarray(values[:, : (width + 1) // 2]) if width > 1 else np.concatenate([values] * 2, axis=1)


def _takes(run: Run, rows: Mapping[str, Array]) -> bool:
    try:
        run(rows)
    except Exception:  # noqa: BLE001 - a network's code may raise anything
        return False
    return True


def _invalid(delivered: Delivered, message: str, next_step: str) -> JobError:
    return JobError(Reason.DATA_INVALID, delivered.uri, message, next_step)
