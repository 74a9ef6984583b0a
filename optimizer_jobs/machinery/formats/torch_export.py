"""Write a torch network as ONNX: what all formats of torch share.

The network is run on a few validation rows first. Its outputs get names, its inputs types and free axes, as the network
itself shows them; nothing is taken from the shape of the data alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from optimizer_jobs.data.datasets import Array
from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.machinery.formats.base import Converted, Delivered
from optimizer_jobs.machinery.formats.classes import labels_in, named_classes
from optimizer_jobs.machinery.formats.torch_inputs import (
    Arrays,
    Program,
    Shown,
    free_widths,
    input_names,
    narrowed,
    shown,
    specs_of,
    typed,
)
from optimizer_jobs.nets.conversion.exporter import ExportError, export
from optimizer_jobs.nets.outputs import EMBEDDINGS, SCORES, in_order, likely_scores, named
from optimizer_jobs.nets.plain import plain
from optimizer_jobs.progress import say
from optimizer_jobs.signature import Signature, TensorSpec
from retune.api.model import Task
from retune.contract.results import Reason

_OUTPUTS = {
    Task.CLASSIFICATION: "scores",
    Task.REGRESSION: "value",
    Task.EMBEDDING: "embedding",
    Task.MULTI_LABEL: "scores",
    Task.GENERIC: "output",
}
"""Name of an output that has none, by task."""
_USUAL: Mapping[Task, Sequence[str]] = {
    Task.CLASSIFICATION: SCORES,
    Task.MULTI_LABEL: SCORES,
    Task.EMBEDDING: EMBEDDINGS,
}
_SHOWN = 300
"""Characters of a network's own message that are passed on."""
_PACKED = "the network packs sequences of different length (pack_padded_sequence), which ONNX does not hold"


def export_network(module: nn.Module, delivered: Delivered, *, into: Path) -> Converted:
    """Write the network as ONNX into the folder `into`.

    Raises:
        JobError: ModelInvalid when the network does not take the rows or cannot be exported, DataInvalid when the
            validation data has no inputs of numbers.
    """
    classes = _classes(module, delivered)
    module, rows, target = _wrapped(module.eval()), shown(module, delivered), into / "model.onnx"
    failures: list[Exception] = []
    for arrays in typed(rows, module):
        try:
            signature = _written(_Ask(module, delivered, rows, arrays), target=target)
        except Exception as error:  # noqa: BLE001 - a network's code may raise anything
            failures.append(error)
        else:
            return Converted(model=target, signature=signature, classes=classes)
    raise _refused(module, rows, failures, delivered)


def _wrapped(module: nn.Module) -> nn.Module:
    """Return a network whose answers can be put in order; a script lets nobody change them."""
    return Program(module, input_names(module)) if isinstance(module, torch.jit.ScriptModule) else module


@dataclass(frozen=True)
class _Ask:
    """A network and rows that it is to be written for."""

    module: nn.Module
    delivered: Delivered
    rows: Shown
    arrays: Arrays
    """The rows in the element types that are tried."""

    def run(self, arrays: Mapping[str, Array]) -> dict[str, Tensor]:
        """Return the outputs for inputs in this order, by name."""
        names, parameters = list(arrays), input_names(self.module)
        tensors = {name: torch.from_numpy(values) for name, values in arrays.items()}
        with torch.no_grad(), plain():
            if set(names) <= set(parameters) and names != list(parameters[: len(names)]):
                answer = self.module(**tensors)
            else:
                answer = self.module(*tensors.values())
        return named(answer, only=_OUTPUTS[self.delivered.task], taken=names)


def _written(ask: _Ask, *, target: Path) -> Signature:
    """Write the network with every axis free that it leaves free, or with fixed widths where it cannot be otherwise."""
    outputs = ask.run(ask.arrays)
    free = _free(ask)
    for widths in dict.fromkeys((free, frozenset[str]())):
        signature = _signature(ask, outputs, widths)
        try:
            with in_order(ask.module, signature):
                export(_exportable(ask), signature=signature, examples=ask.arrays, target=target)
        except ExportError:
            if not widths:
                raise
        else:
            if widths != free:
                fixed = ", ".join(sorted(free))
                say(f"inputs {fixed} have a fixed length, because the network cannot be written with a free one")
            return signature
    raise AssertionError("the last of the widths is written or raises")


def _exportable(ask: _Ask) -> nn.Module:
    """Return what is exported. A script whose answers need an order is traced, because nothing can be added to it."""
    script = ask.module.script if isinstance(ask.module, Program) else None
    inputs = tuple(torch.from_numpy(values) for values in ask.arrays.values())
    if script is None:
        return ask.module
    with torch.no_grad():
        return script if isinstance(script(*inputs), Tensor) else torch.jit.trace(ask.module, inputs, check_trace=False)


def _free(ask: _Ask) -> frozenset[str]:
    specs = specs_of(ask.module)
    if specs:
        return frozenset(spec.name for spec in specs if len(spec.shape) > 1 and spec.shape[1] < 0)
    return free_widths(ask.run, ask.arrays, tabular=ask.rows.tabular)


def _signature(ask: _Ask, outputs: Mapping[str, Tensor], free: frozenset[str]) -> Signature:
    specs = {spec.name: spec for spec in specs_of(ask.module)}
    inputs = [specs.get(name) or _input(name, values, free) for name, values in ask.arrays.items()]
    other = ask.run(narrowed(ask.arrays, free)) if free else outputs
    rows = len(next(iter(ask.arrays.values())))
    batch = inputs[0].shape[0]
    answers = {name: values for name, values in outputs.items() if values.ndim and len(values) == rows}
    if left_out := [name for name in outputs if name not in answers]:
        say(f"outputs that do not have one row a row are left out: {', '.join(left_out)}")
    specs_out = {name: _output(name, values, other[name], batch) for name, values in answers.items()}
    first = likely_scores(answers, names=_USUAL.get(ask.delivered.task, ()), width=_width(ask.delivered))
    if first is None:
        raise ValueError("the network answers no floating point numbers, one row a row")
    return Signature(inputs=tuple(inputs), outputs=(specs_out.pop(first), *specs_out.values()))


def _input(name: str, values: Array, free: frozenset[str]) -> TensorSpec:
    return TensorSpec(name=name, dtype=str(values.dtype), shape=(-1, -1) if name in free else (-1, *values.shape[1:]))


def _output(name: str, values: Tensor, other: Tensor, batch: int) -> TensorSpec:
    """Return an output; axes whose size differs from that for rows of another width are free."""
    sizes = [size if size == another else -1 for size, another in zip(values.shape[1:], other.shape[1:], strict=True)]
    return TensorSpec(name=name, dtype=str(values.dtype).removeprefix("torch."), shape=(batch, *sizes))


def _width(delivered: Delivered) -> int:
    """Return how many numbers a row of the output has by the labels; 0 where it is not known."""
    labels = labels_in(delivered)
    if labels is None or not delivered.task.has_labels:
        return 0
    if delivered.task in {Task.REGRESSION, Task.MULTI_LABEL}:
        return labels.shape[1] if labels.ndim == 2 else 1
    whole = labels.dtype.kind in "biu" or (labels.dtype.kind == "f" and bool((labels == np.round(labels)).all()))
    return int(labels.max()) + 1 if whole and labels.size else len(np.unique(labels.astype(str)))


def _classes(module: nn.Module, delivered: Delivered) -> tuple[str, ...]:
    """Return the names of the score columns, where labels are text; the network itself, or the spec, must say them."""
    by_number = getattr(getattr(module, "config", None), "id2label", None)
    names = [by_number[number] for number in sorted(by_number)] if by_number else getattr(module, "classes", None)
    return named_classes(names, delivered)


def _refused(module: nn.Module, rows: Shown, failures: Sequence[Exception], delivered: Delivered) -> JobError:
    """Return why no form of the rows would do, with the most telling of the network's own messages."""
    about_types = ("type", "not implemented for")
    telling = [error for error in failures if not any(words in str(error) for words in about_types)]
    error = next((error for error in telling if isinstance(error, ExportError)), [*telling, *failures][0])
    if isinstance(error, ExportError):
        words = printable(str(error), limit=_SHOWN).removesuffix(".")
        message = f"{_PACKED if _packs(module, rows) else words}."
        next_step = "Change the network's forward, or export it to ONNX yourself and deliver that."
    else:
        words = f"{type(error).__name__}: {printable(str(error), limit=_SHOWN)}"
        message = f"the network cannot be run on the validation rows: {words}."
        shapes = ", ".join(f"{name} {values.dtype}{list(values.shape[1:])}" for name, values in rows.arrays.items())
        next_step = f"Give rows of the shape that its forward takes; it was given {printable(shapes, limit=200)} a row."
    return JobError(Reason.MODEL_INVALID, delivered.uri, message, next_step)


class _Seen(TorchDispatchMode):  # type: ignore[misc] # the library has no types
    """Notes which operations run."""

    def __init__(self) -> None:
        super().__init__()
        self.names = set[str]()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Note the operation, and run it."""
        del types
        self.names.add(str(function))
        return function(*args, **(kwargs or {}))


def _packs(module: nn.Module, rows: Shown) -> bool:
    """Return whether forward packs padded sequences."""
    with torch.no_grad(), _Seen() as seen:
        for arrays in typed(rows, module):
            try:
                module(*(torch.from_numpy(values) for values in arrays.values()))
            except Exception:  # noqa: BLE001, S112 - a network's code may raise anything; other types are tried
                continue
            break
    return any("pack_padded" in name for name in seen.names)
