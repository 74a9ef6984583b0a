"""What goes into a model and what comes out: names, element types and shapes."""

from math import prod

from retune.contract.requests import Document

TEXT = "str"
"""Element type of text; every other type has NumPy's name."""


class TensorSpec(Document):
    """One input or output. `shape` has -1 where a size is free; the first axis is the batch."""

    name: str
    dtype: str
    """NumPy's name of the element type, such as float32 or int64, or `str` for text."""
    shape: tuple[int, ...]

    @property
    def words(self) -> str:
        """Such as `x float32 (N, 64)`."""
        shape = ", ".join("N" if size < 0 else str(size) for size in self.shape)
        return f"{self.name} {self.dtype} ({shape})"

    @property
    def is_float(self) -> bool:
        """Whether elements are floating point numbers."""
        return self.dtype.startswith(("float", "bfloat"))

    @property
    def row_size(self) -> int:
        """Elements of one row, free axes counted as one."""
        return prod(max(size, 1) for size in self.shape[1:])


class Signature(Document):
    """All inputs and outputs, in the model's order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def words(self) -> str:
        """Such as `x float32 (N, 64) -> label int64 (N)`."""
        inputs, outputs = (", ".join(spec.words for spec in specs) for specs in (self.inputs, self.outputs))
        return f"{inputs} -> {outputs}"

    @property
    def batch(self) -> int | None:
        """Rows that one call must have, or None when any number will do."""
        fixed = [spec.shape[0] for spec in self.inputs if spec.shape and spec.shape[0] > 0]
        return fixed[0] if fixed else None

    @property
    def label_output(self) -> TensorSpec | None:
        """The output that holds class labels: whole numbers or text, one a row."""
        return next((spec for spec in self.outputs if not spec.is_float and spec.row_size == 1), None)

    @property
    def score_output(self) -> TensorSpec | None:
        """The output that holds one floating point score a class, last axis over classes."""
        return next((spec for spec in self.outputs if spec.is_float), None)
