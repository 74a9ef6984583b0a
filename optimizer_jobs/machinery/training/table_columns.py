"""The first part of a student of tables: from the inputs of the model to columns of scaled numbers, as an ONNX graph.

Training rows go through this very graph, so a student cannot be served with other columns than it has learned. Missing
numbers are replaced by the mean and marked, texts are taken for categories, and numbers far outside of the training
rows count as numbers at their rim, because a network must not extrapolate where trees would not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from optimizer_jobs.signature import TEXT, TensorSpec

Array = NDArray[Any]

DOMAIN = "ai.onnx.ml"
"""Domain of the operator that encodes texts."""
MOST_CATEGORIES = 100
"""Different texts of a column that a student tells apart, at most: the most frequent ones."""
LEAST_KNOWN = 0.9
"""Share of the training rows whose texts must be among these."""
_RIM = 6.0
"""Standard deviations from the mean at which a number stops to count as further away."""
_ROUNDING = 1e-12
"""Standard deviation, as a share of the mean, up to which numbers are all alike and only sums were rounded."""
_LEAST_SPREAD = 1e-30
"""Smallest standard deviation, so that a 32-bit float can hold what numbers are multiplied by."""
_WIDE = frozenset({"float64", "int32", "int64", "uint32", "uint64"})
"""Types whose numbers may need more digits than 32-bit floats have; they are centred before they are shortened."""


class NotLearnableError(ValueError):
    """The rows have something that a student of tables cannot learn; the message says what."""


@dataclass
class Graph:
    """Nodes and constants under construction. No name in it is one of the model's inputs or outputs."""

    prefix: str
    """What all names begin with."""
    nodes: list[NodeProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)

    @classmethod
    def beside(cls, names: Sequence[str]) -> "Graph":
        """Return an empty graph none of whose names is among `names`."""
        prefix = "student"
        while any(name.startswith(prefix) for name in names):
            prefix += "_"
        return cls(prefix)

    def add(self, kind: str, *inputs: str, output: str | None = None, domain: str = "", **attributes: Any) -> str:
        """Add a node and return the name of its output."""
        name = f"{self.prefix}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output or name], name=name, domain=domain, **attributes))
        return output or name

    def constant(self, values: Array) -> str:
        """Add a constant and return its name."""
        name = f"{self.prefix}_constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values, name))
        return name


def columns(graph: Graph, inputs: Sequence[TensorSpec], rows: Mapping[str, Array], *, fills: bool) -> str:
    """Add what turns the inputs into columns (N, W) of 32-bit floats, and return the name of the columns.

    Args:
        graph: The graph to add to.
        inputs: Inputs (N,), or (N, F) each, of numbers or texts.
        rows: Training rows by input.
        fills: Whether the model takes missing numbers, so that the student has to.

    Raises:
        NotLearnableError: A column of texts has too many different ones.
    """
    numbers = [spec for spec in inputs if spec.dtype != TEXT]
    parts: list[str] = []
    for wide in (False, True):
        # Side by side first, because a step of many columns takes hardly longer than one of a single column.
        alike = [spec for spec in numbers if (spec.dtype in _WIDE) is wide]
        if alike:
            values = np.concatenate([_flat(rows[spec.name]) for spec in alike], axis=1)
            parts += _numbers(graph, _joined(graph, alike, wide=wide), values, fills=fills, wide=wide)
    for spec in inputs:
        if spec.dtype == TEXT:
            parts += _texts(graph, _as_table(graph, spec), _flat(rows[spec.name]), spec)
    return parts[0] if len(parts) == 1 else graph.add("Concat", *parts, axis=1)


def _flat(values: Array) -> Array:
    return values.reshape(len(values), -1)


def _as_table(graph: Graph, spec: TensorSpec) -> str:
    """Return an input as a table (N, F)."""
    return spec.name if len(spec.shape) > 1 else _reshaped(graph, spec.name, width=1)


def _reshaped(graph: Graph, name: str, *, width: int) -> str:
    return graph.add("Reshape", name, graph.constant(np.array([-1, width], dtype=np.int64)))


def _joined(graph: Graph, inputs: Sequence[TensorSpec], *, wide: bool) -> str:
    """Return inputs of numbers side by side, in the precision in which they are centred."""
    kind = "float64" if wide else "float32"
    cast = partial(graph.add, "Cast", to=helper.np_dtype_to_tensor_dtype(np.dtype(kind)))
    tables = [_as_table(graph, spec) for spec in inputs]
    tables = [name if spec.dtype == kind else cast(name) for name, spec in zip(tables, inputs, strict=True)]
    return tables[0] if len(tables) == 1 else graph.add("Concat", *tables, axis=1)


def _numbers(graph: Graph, table: str, values: Array, *, fills: bool, wide: bool) -> list[str]:
    """Return numbers as distances from their mean in standard deviations, and marks of those that were missing."""
    numbers, kind = values.astype(np.float64), np.float64 if wide else np.float32
    centre, spread = _moments(numbers)
    mean, missing = graph.constant(centre.astype(kind)), np.isnan(numbers).any(axis=0)
    marks: list[str] = []
    if fills or missing.any():
        holes = graph.add("IsNaN", table)
        table = graph.add("Where", holes, mean, table)
        marks = _marks(graph, holes, np.flatnonzero(missing))
    scaled = graph.add("Mul", graph.add("Sub", table, mean), graph.constant((1 / spread).astype(kind)))
    if wide:
        scaled = graph.add("Cast", scaled, to=TensorProto.FLOAT)
    rim = [graph.constant(np.array(end, dtype=np.float32)) for end in (-_RIM, _RIM)]
    return [graph.add("Clip", scaled, *rim), *marks]


def _moments(numbers: Array) -> tuple[Array, Array]:
    """Return mean and standard deviation (F,) of the finite numbers of each column (N, F); 1 where they are all alike.

    Each column is divided by its largest number first, whose square may be too large for a float.
    """
    finite = np.isfinite(numbers)
    known, count = np.where(finite, numbers, 0.0), np.maximum(finite.sum(axis=0), 1)
    unit = np.abs(known).max(axis=0, initial=0.0)
    unit[unit == 0] = 1.0
    known = known / unit
    centre = known.sum(axis=0) / count
    spread = np.sqrt(np.where(finite, np.square(known - centre), 0.0).sum(axis=0) / count)
    spread = np.where(spread > _ROUNDING * np.abs(centre), spread, 1.0)
    return centre * unit, np.maximum(spread * unit, _LEAST_SPREAD)


def _marks(graph: Graph, holes: str, places: Array) -> list[str]:
    if not len(places):
        return []
    chosen = graph.add("Gather", holes, graph.constant(places.astype(np.int64)), axis=1)
    return [graph.add("Cast", chosen, to=TensorProto.FLOAT)]


def _texts(graph: Graph, table: str, values: Array, spec: TensorSpec) -> list[str]:
    """Return a column for each known text of each column of texts; all are 0 for a text that is not known."""
    parts = []
    for place in range(values.shape[1]):
        known = _categories(values[:, place], spec)
        column = table
        if values.shape[1] > 1:
            column = graph.add("Gather", table, graph.constant(np.array([place], dtype=np.int64)), axis=1)
        encoded = graph.add("OneHotEncoder", column, domain=DOMAIN, cats_strings=known, zeros=1)
        parts.append(_reshaped(graph, encoded, width=len(known)))
    return parts


def _categories(cells: Array, spec: TensorSpec) -> list[str]:
    """Return the most frequent texts of a column, in order."""
    names, counts = np.unique(cells.astype(str), return_counts=True)
    kept = np.sort(np.argsort(-counts, kind="stable")[:MOST_CATEGORIES])
    if counts[kept].sum() < LEAST_KNOWN * len(cells):
        raise NotLearnableError(
            f"input {spec.name} holds {len(names)} different texts in {len(cells)} training rows, and a student tells "
            f"{MOST_CATEGORIES} apart"
        )
    return [str(name) for name in names[kept]]
