"""The inputs and outputs of a model: names, element types and shapes, and which outputs are its answer."""

from enum import StrEnum
from math import prod

from retune.contract.requests import Document

TEXT = "str"
"""Element type of text; all other types have NumPy's names."""


class TensorSpec(Document):
    """One input or output of a model."""

    name: str
    dtype: str
    """NumPy's name of the element type, such as float32 or int64, or `str` for text."""
    shape: tuple[int, ...]
    """Sizes of all axes, with -1 for a free size; the first axis is the batch."""

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
    rarest: float | None = None
    """Share of the rows that the rarest class had when the model was delivered."""


class Signature(Document):
    """All inputs and outputs of a model, in the model's order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    reading: Reading | None = None
    """How the outputs are read; None takes the first that fit."""

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
        fixed = [spec.shape[0] for spec in self.inputs if spec.shape and spec.shape[0] > 0]
        return fixed[0] if fixed else None

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

    def _named(self, name: str | None) -> TensorSpec | None:
        return next((spec for spec in self.outputs if spec.name == name), None)
