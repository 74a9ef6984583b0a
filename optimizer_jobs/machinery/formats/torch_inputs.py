"""Find the inputs of a torch network and export it: what all formats of torch share.

A network does not say which inputs it has. The validation data does: arrays by name, or a table as one matrix.
"""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from optimizer_jobs.data.datasets import SINGLE_INPUT, Array
from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.machinery.formats.base import Converted, Delivered
from optimizer_jobs.nets.conversion.exporter import ExportError, export
from optimizer_jobs.nets.learning.losses import scores_of
from optimizer_jobs.signature import Signature, TensorSpec
from retune.api.model import Task
from retune.contract.results import Reason

_OUTPUTS = {Task.CLASSIFICATION: "scores", Task.REGRESSION: "value", Task.EMBEDDING: "embedding"}
_EXAMPLES = 4
"""Rows to run the network on."""


class Exported(nn.Module):  # type: ignore[misc] # the library has no types
    """An exported program as a network. The program evaluates already, and its own `eval()` would raise."""

    def __init__(self, program: torch.export.ExportedProgram) -> None:
        super().__init__()
        self.input_names = tuple(program.graph_signature.user_inputs)
        module = program.module()
        for parameter in module.parameters():
            parameter.requires_grad_(False)  # noqa: FBT003 - the library's form
        self._program = [module]  # in a list, so that `eval()` of this network does not reach it

    def forward(self, *inputs: torch.Tensor) -> Any:
        """Return the answers of the program."""
        return self._program[0](*inputs)


def export_network(module: nn.Module, delivered: Delivered, *, into: Path) -> Converted:
    """Write the network as ONNX into the folder `into`.

    Raises:
        JobError: ModelInvalid when the network does not take the rows or cannot be exported, DataInvalid when the
            validation data has no inputs of numbers.
    """
    examples, target = _in_order(module, _inputs(delivered)), into / "model.onnx"
    try:
        with torch.no_grad():
            answer = scores_of(module.eval()(*(torch.from_numpy(values) for values in examples.values())))
        name = _OUTPUTS[delivered.task]
        output = TensorSpec(name=name, dtype="float32", shape=(-1, *answer.shape[1:]))
        inputs = tuple(_spec(name, values) for name, values in examples.items())
        signature = Signature(inputs=inputs, outputs=(output,))
        export(module, signature=signature, examples=examples, target=target)
    except (ExportError, RuntimeError, TypeError, ValueError, StopIteration) as error:
        raise JobError(
            Reason.MODEL_INVALID,
            delivered.uri,
            f"the network cannot be run on the validation rows or written as ONNX: {printable(str(error), limit=300)}.",
            "Give rows of the shape that its forward takes, and see that torch.onnx.export takes the network.",
        ) from error
    return Converted(model=target, signature=signature)


def _inputs(delivered: Delivered) -> dict[str, Array]:
    """Return a few rows of every input, by input name."""
    columns = delivered.columns
    names = [name for name in columns.names if name != delivered.label]
    arrays = {name: columns.read(name)[:_EXAMPLES] for name in names}
    if columns.tabular:
        arrays = {SINGLE_INPUT: np.stack(list(arrays.values()), axis=1)} if arrays else {}
    if not arrays:
        raise JobError(
            Reason.DATA_INVALID, delivered.uri, "the validation rows hold nothing but labels.", "Add the inputs."
        )
    return {name: _typed(name, values, delivered) for name, values in arrays.items()}


def _typed(name: str, values: Array, delivered: Delivered) -> Array:
    """Return the values as torch networks take them: 32-bit floats, or 64-bit whole numbers."""
    if values.dtype.kind not in "biuf":
        raise JobError(
            Reason.DATA_INVALID,
            delivered.uri,
            f"input {name!r} holds {values.dtype}, not numbers.",
            "A torch network takes numbers: encode text before.",
        )
    return np.ascontiguousarray(values, dtype=np.float32 if values.dtype.kind == "f" else np.int64)


def _in_order(module: nn.Module, examples: dict[str, Array]) -> dict[str, Array]:
    """Return the inputs in the order of forward's parameters when all are named like them, else as in the file."""
    names = [name for name in _parameters(module) if name in examples]
    return {name: examples[name] for name in names} if len(names) == len(examples) else examples


def _parameters(module: nn.Module) -> tuple[str, ...]:
    """Return the names of forward's parameters."""
    if isinstance(module, Exported):
        return module.input_names
    if isinstance(module, torch.jit.ScriptModule):
        return tuple(argument.name for argument in module.forward.schema.arguments[1:])
    return tuple(inspect.signature(module.forward).parameters)


def _spec(name: str, values: Array) -> TensorSpec:
    """Return an input with a free batch. Whole numbers (N, L) are tokens, whose number L is free too."""
    tokens = values.dtype.kind == "i" and values.ndim == 2
    return TensorSpec(name=name, dtype=str(values.dtype), shape=(-1, -1) if tokens else (-1, *values.shape[1:]))
