"""The inputs and outputs of a model: names, element types and shapes, where their rows are, and which are its answer.

Most tensors have the rows of a request as their first axis. States of a recurrent network may have them as a later one,
and settings such as a sample rate have none: they are the same for all rows of a request.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from math import prod
from typing import Literal

from retune.contract.requests import Document

_LINE_AXES = 2
"""Axes of one row of labels (1, N), as some exporters write them."""
TEXT = "str"
"""Element type of text; all other types have NumPy's names."""


class TensorSpec(Document):
    """One input or output of a model."""

    name: str
    dtype: str
    """NumPy's name of the element type, such as float32 or int64, or `str` for text."""
    shape: tuple[int, ...]
    """Sizes of all axes, with -1 for a free size; usually the first axis is the batch."""

    @property
    def words(self) -> str:
        """The spec as text, such as `x float32 (N, 64)`."""
        shape = ", ".join("N" if size < 0 else str(size) for size in self.shape)
        return f"{self.name} {self.dtype} ({shape})"

    @property
    def is_float(self) -> bool:
        """Whether elements are floating point numbers."""
        return self.dtype.startswith(("float", "bfloat"))

    @property
    def row_size(self) -> int:
        """Number of elements in one row; free axes count as 1."""
        return prod(max(size, 1) for size in self.shape[1:])


class Scale(StrEnum):
    """What the numbers of a classifier's score output are."""

    PROBABILITIES = "Probabilities"
    LOGITS = "Logits"


class Reading(Document):
    """Which outputs of a model are its answer, and what they mean."""

    label: str | None = None
    """Output with one class a row; None when the class follows from the scores."""
    scores: str | None = None
    """Output with scores of classes (N, C), (N, 1) or (N,), with numbers to predict, or with an embedding."""
    scale: Scale | None = None
    """What the scores of a classifier are; None when its probabilities are not known."""
    threshold: float | None = None
    """Probability from which on a row is answered with the second of two classes; None is the larger one."""
    positive: int | str | None = None
    """The class that metrics of two classes call positive; None for other models."""
    singly: Literal[True] | None = None
    """Set when rows are asked one by one, because outputs do not have an entry for each row of a request."""
    rarest: float | None = None
    """Share of the rows that the rarest class had when the model was delivered."""


class Signature(Document):
    """All inputs and outputs of a model, in the model's order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    reading: Reading | None = None
    """How the outputs are read; None takes the first that fit."""
    fills: Mapping[str, float] | None = None
    """Values of inputs that the data does not have, by name; every number of such an input is that value."""

    @property
    def words(self) -> str:
        """The signature as text, such as `x float32 (N, 64) -> label int64 (N)`."""
        inputs, outputs = (", ".join(spec.words for spec in specs) for specs in (self.inputs, self.outputs))
        return f"{inputs} -> {outputs}"

    def same_tensors(self, other: "Signature") -> bool:
        """Return whether inputs and outputs are the same, however they are read."""
        return (self.inputs, self.outputs) == (other.inputs, other.outputs)

    @property
    def batch(self) -> int | None:
        """Number of rows that every call must have, or None when any number is allowed."""
        size = self._batch_size
        return size if size > 0 else None

    @property
    def input_axes(self) -> dict[str, int | None]:
        """By input, the axis that has the rows; None where it has none and is the same for all rows of a request."""
        return {spec.name: _row_axis(spec.shape, self._batch_size) for spec in self.inputs}

    @property
    def output_axes(self) -> dict[str, int | None]:
        """By output, the axis that has the rows, as far as names and shapes say; None for a single number."""
        return {spec.name: self._output_axis(spec) for spec in self.outputs}

    @property
    def is_rows_first(self) -> bool:
        """Whether every input and output has the rows as its first axis."""
        return all(axis == 0 for axes in (self.input_axes, self.output_axes) for axis in axes.values())

    @property
    def rows_first(self) -> "Signature":
        """The signature with the rows as the first axis of every input, as data sets hold them."""
        return self.model_copy(update={"inputs": tuple(map(self._with_rows_first, self.inputs))})

    @property
    def states(self) -> tuple[str, ...]:
        """The inputs that a caller carries over from an output of the call before, by name and shape."""
        return tuple(spec.name for spec in self.inputs if any(_are_akin(spec, output) for output in self.outputs))

    @property
    def _batch_size(self) -> int:
        """The number of rows of every call, -1 where it is free: the size that most inputs have, the first at best."""
        shapes = [spec.shape for spec in self.inputs if spec.shape]
        firsts = [shape[0] for shape in shapes]
        if not firsts or -1 in firsts:
            return -1
        return max(firsts, key=lambda size: (sum(size in shape for shape in shapes), -firsts.index(size)))

    def _output_axis(self, spec: TensorSpec) -> int | None:
        states = [other for other in self.inputs if self.input_axes[other.name] and _are_akin(other, spec)]
        if states:
            return self.input_axes[states[0].name]
        free = [axis for axis, size in enumerate(spec.shape) if size < 0]
        is_turned = len(free) == 1 and self._batch_size < 0 and (spec.shape[0] > 1 or self._is_line(spec))
        return free[0] if is_turned else 0 if spec.shape else None

    def _is_line(self, spec: TensorSpec) -> bool:
        """Whether an output (1, N) has a row in each place, because nothing but rows is free in the inputs."""
        return len(spec.shape) == _LINE_AXES and all(other.shape.count(-1) < _LINE_AXES for other in self.inputs)

    def _with_rows_first(self, spec: TensorSpec) -> TensorSpec:
        axis = self.input_axes[spec.name]
        if axis == 0:
            return spec
        rest = spec.shape if axis is None else (*spec.shape[:axis], *spec.shape[axis + 1 :])
        return spec.model_copy(update={"shape": (self._batch_size, *rest)})

    @property
    def label_output(self) -> TensorSpec | None:
        """The output with class labels, one whole number or text for each row; None when there is none."""
        if self.reading is not None:
            return self._named(self.reading.label)
        return next((spec for spec in self.outputs if not spec.is_float and spec.row_size == 1), None)

    @property
    def score_output(self) -> TensorSpec | None:
        """The output with floating point numbers, such as scores (N, classes); None when there is none."""
        if self.reading is not None:
            return self._named(self.reading.scores)
        return next((spec for spec in self.outputs if spec.is_float), None)

    @property
    def score_place(self) -> int:
        """Place of `score_output` among the floating point outputs."""
        return [spec for spec in self.outputs if spec.is_float].index(self.score_output) if self.score_output else 0

    @property
    def score_scale(self) -> Scale | None:
        """What the numbers of `score_output` are; None where that is not known."""
        return None if self.reading is None else self.reading.scale

    def _named(self, name: str | None) -> TensorSpec | None:
        return next((spec for spec in self.outputs if spec.name == name), None)


_CARRIED = re.compile(r"(_?(in|out|next|new|prev|old|n|\d+))+$", re.IGNORECASE)
"""Endings by which a carried state is called differently as input and output, such as h0 and hn."""


def _are_akin(state: TensorSpec, output: TensorSpec) -> bool:
    """Return whether an output is the next value of an input: shapes agree, and names differ by their ending only."""
    if len(state.shape) != len(output.shape) or len(state.shape) < 2 or state.dtype != output.dtype:
        return False
    sizes = zip(state.shape, output.shape, strict=True)
    if any(mine != theirs and -1 not in (mine, theirs) for mine, theirs in sizes):
        return False
    stems = [_CARRIED.sub("", spec.name) for spec in (state, output)]
    return stems[0] == stems[1] != ""


def _row_axis(shape: tuple[int, ...], batch: int) -> int | None:
    """Return the first axis whose size is that of the batch, or None."""
    return shape.index(batch) if batch in shape else None
