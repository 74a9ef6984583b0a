"""Embedding tables made smaller in the graph: rows in few bits, as products of lower rank, or fewer of them.

A table is a constant of which a graph only looks rows up. Whatever the graph does with a row, it finds the row under
the same name afterwards, so this works for recommenders, text encoders and everything else that has tables. What comes
out are operators of the ONNX standard, which every engine knows. A table that something else reads too, such as the
last layer of a language model, is left as it is: both copies together would be larger.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from optimizer_jobs.machinery.compress import layers
from optimizer_jobs.technique import Params

TABLE_BITS = "table_bits"
"""Parameter: bits of a number in the rows of tables."""

Floats = NDArray[np.float32]
Array = NDArray[Any]

_LARGEST = 127
"""The largest 8-bit code of a row; the smallest is its negative."""
_LEVELS = 15
"""Steps between the smallest and the largest number of a row in 4 bits."""
_NARROW = 8
"""Width up to which the two numbers that each row in 4 bits needs outweigh its codes."""
_LEAST_RANK = 2
_TURNS = 5
"""How often the two parts of folded rows are fitted to each other."""


@dataclass(frozen=True)
class Table:
    """A table of which rows are looked up, and nothing else."""

    name: str
    """Name of the constant."""
    values: Floats
    """Its rows, (entries, width)."""
    lookups: tuple[NodeProto, ...]
    """The Gather nodes that look rows up."""


def of(model: ModelProto) -> list[Table]:
    """Return the large tables of which a graph looks rows up and which nothing else reads, in the order of the graph.

    Tables in Constant nodes become initializers first, in place.
    """
    _settle(model)
    lookups: dict[str, list[NodeProto]] = {}
    for node in layers.tables(model):
        lookups.setdefault(node.input[0], []).append(node)
    reads = [name for graph in layers.graphs(model.graph) for node in graph.node for name in node.input]
    reads += [output.name for output in model.graph.output]
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    made = (Table(name, numpy_helper.to_array(weights[name]), tuple(nodes)) for name, nodes in lookups.items())
    return [table for table in made if reads.count(table.name) == len(table.lookups) and _is_finite(table)]


def store(model: ModelProto, bits: int) -> int:
    """Store, in place, the rows of each table in 8 or 4 bits with a scale for each row; return how many tables.

    A number in 8 bits is off by at most half a level, which is the largest magnitude of its row over 127; one in 4 bits
    by half of 1/15 of the way from the smallest to the largest number of its row. Rows of an odd width, and those that
    would not get smaller by it, take 8 bits instead of 4.
    """
    tables = [table for table in of(model) if table.values.shape[1] > 1]
    for table in tables:
        width = table.values.shape[1]
        pack = _in_four if bits == 4 and width % 2 == 0 and width > _NARROW else _in_eight
        _replace(model, table, *pack(table))
    return len(tables)


def store_in(path: Path, params: Params) -> int:
    """Rewrite a file with the rows of its tables in `table_bits` bits, 8 if not given; return how many tables."""
    model = onnx.load(path)
    count = store(model, int(params.get(TABLE_BITS, 8)))
    if count:
        onnx.save(model, path)
    return count


def split(model: ModelProto, share: float) -> tuple[int, int]:
    """Replace, in place, each table that gets smaller by it by a narrower table and a matrix.

    Their product is the closest one of that rank. Every row is taken for equally important.

    Args:
        model: The graph.
        share: Rank that is kept, as a share of the width of the table, 0 to 1.

    Returns:
        How many tables were replaced, and how many there are.
    """
    tables = of(model)
    replaced = 0
    for table in tables:
        entries, width = table.values.shape
        rank = max(_LEAST_RANK, round(share * width))
        if rank * (entries + width) < entries * width:
            _replace(model, table, *_product(table, rank))
            replaced += 1
    return replaced, len(tables)


def merge(model: ModelProto, table: Table, shared: NDArray[np.bool_], weights: Array) -> None:
    """Let the rows of a table that are marked share one row, in place: their mean.

    A list says under which number each old number is found now, so numbers from the end count as before.

    Args:
        model: The graph.
        table: One of its tables.
        shared: Whether a row is shared, (entries,).
        weights: What each row counts in the mean, (entries,), positive for the shared ones.
    """
    places = np.where(shared, 0, np.cumsum(~shared)).astype(np.int32)
    mean = np.average(table.values[shared].astype(np.float64), axis=0, weights=weights[shared])
    rows = np.concatenate([mean[None].astype(np.float32), table.values[~shared]])
    places_name, rows_name = f"{table.name}_places", f"{table.name}_rows"

    def nodes_of(lookup: NodeProto) -> list[NodeProto]:
        place, row = f"{lookup.output[0]}_place", lookup.output[0]
        return [_gather(places_name, lookup.input[1], place), _gather(rows_name, place, row)]

    _replace(model, table, {places_name: places, rows_name: rows}, nodes_of)


def fold(model: ModelProto, table: Table, slots: int, weights: Array) -> None:
    """Let all rows of a table share `slots` rows by their number, in place (Shi et al., 2020).

    A row becomes the sum of a row that it shares with every `slots`-th one, and of one that it shares with the rows
    whose number has the same quotient. Both are means of what they stand for. A number that is far too large is still
    refused, and numbers from the end count as before.

    Args:
        model: The graph.
        table: One of its tables, all of whose lookups read inputs of the graph.
        slots: Rows that are shared by the remainder, fewer than the table has.
        weights: What each row counts in the means, (entries,), all positive.
    """
    shared, offsets = _sums(table.values, slots, weights)
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    kind = helper.tensor_dtype_to_np_dtype(types[table.lookups[0].input[1]])
    names = {part: f"{table.name}_{part}" for part in ("shared", "offsets", "entries", "slots", "first")}
    constants: dict[str, Array] = {names["shared"]: shared, names["offsets"]: offsets}
    constants |= {names["entries"]: np.array(len(table.values), dtype=kind)}
    constants |= {names["slots"]: np.array(slots, dtype=kind), names["first"]: np.array(0, dtype=kind)}

    def nodes_of(lookup: NodeProto) -> list[NodeProto]:
        ids, row = lookup.input[1], lookup.output[0]
        return [
            _node("Less", [ids, names["first"]], f"{row}_from_the_end"),
            _node("Add", [ids, names["entries"]], f"{row}_counted"),
            _node("Where", [f"{row}_from_the_end", f"{row}_counted", ids], f"{row}_id"),
            _node("Mod", [f"{row}_id", names["slots"]], f"{row}_slot"),
            _node("Div", [f"{row}_id", names["slots"]], f"{row}_quotient"),
            _gather(names["shared"], f"{row}_slot", f"{row}_shared"),
            _gather(names["offsets"], f"{row}_quotient", f"{row}_offset"),
            _node("Add", [f"{row}_shared", f"{row}_offset"], row),
        ]

    _replace(model, table, constants, nodes_of)


def _sums(values: Floats, slots: int, weights: Array) -> tuple[Floats, Floats]:
    """Return rows (slots, width) and (quotients, width) whose sums come close to the rows (entries, width).

    They are weighted means in turn of what the other ones leave over, which is least squares by coordinates.
    """
    entries, width = values.shape
    quotients = -(-entries // slots)
    grid, counts = np.zeros((quotients * slots, width)), np.zeros(quotients * slots)
    grid[:entries], counts[:entries] = values, weights
    rows, share = grid.reshape(quotients, slots, width), counts.reshape(quotients, slots, 1)
    offsets = np.zeros((quotients, 1, width))
    shared = np.zeros((1, slots, width))
    for _ in range(_TURNS):
        shared = (share * (rows - offsets)).sum(axis=0, keepdims=True) / share.sum(axis=0, keepdims=True)
        offsets = (share * (rows - shared)).sum(axis=1, keepdims=True) / share.sum(axis=1, keepdims=True)
    return shared[0].astype(np.float32), offsets[:, 0].astype(np.float32)


NodesOf = Callable[[NodeProto], list[NodeProto]]
"""Returns the nodes that take the place of a lookup; the last one makes its output."""
Packed = tuple[Mapping[str, Array], NodesOf]
"""Constants in place of a table, by name, and the nodes that read them."""


def _in_eight(table: Table) -> Packed:
    """Return rows as codes from -127 to 127, which are multiplied by the scale of the row."""
    scales = np.abs(table.values).max(axis=1, keepdims=True).astype(np.float32) / _LARGEST
    scales = np.where(scales > 0, scales, 1).astype(np.float32)
    codes = np.clip(np.rint(table.values / scales), -_LARGEST, _LARGEST).astype(np.int8)
    names = {part: f"{table.name}_{part}" for part in ("codes", "scales")}

    def nodes_of(lookup: NodeProto) -> list[NodeProto]:
        ids, row = lookup.input[1], lookup.output[0]
        return [
            _gather(names["codes"], ids, f"{row}_codes"),
            _node("Cast", [f"{row}_codes"], f"{row}_levels", to=TensorProto.FLOAT),
            _gather(names["scales"], ids, f"{row}_scale"),
            _node("Mul", [f"{row}_levels", f"{row}_scale"], row),
        ]

    return {names["codes"]: codes, names["scales"]: scales}, nodes_of


def _in_four(table: Table) -> Packed:
    """Return rows as codes from 0 to 15 between the smallest and the largest number of the row, two in a byte.

    The first half of a row lies in the low bits, the second half in the high bits, so that both are taken apart for all
    columns at once: high = floor(byte / 16), low = byte - 16 high. These are exact in floats.
    """
    half = table.values.shape[1] // 2
    values = table.values.astype(np.float64)
    lowest = table.values.min(axis=1, keepdims=True)
    steps = ((values.max(axis=1, keepdims=True) - lowest) / _LEVELS).astype(np.float32)
    steps = np.where(steps > 0, steps, 1).astype(np.float32)
    codes = np.clip(np.rint((values - lowest) / steps), 0, _LEVELS).astype(np.uint8)
    names = {part: f"{table.name}_{part}" for part in ("codes", "steps", "lowest", "sixteenth", "sixteen")}
    constants = {
        names["codes"]: codes[:, :half] | (codes[:, half:] << 4),
        names["steps"]: steps,
        names["lowest"]: lowest,
        names["sixteenth"]: np.array(1 / 16, dtype=np.float32),
        names["sixteen"]: np.array(16, dtype=np.float32),
    }
    return constants, lambda lookup: _unpack_four(names, lookup)


def _unpack_four(names: Mapping[str, str], lookup: NodeProto) -> list[NodeProto]:
    ids, row = lookup.input[1], lookup.output[0]
    return [
        _gather(names["codes"], ids, f"{row}_codes"),
        _node("Cast", [f"{row}_codes"], f"{row}_bytes", to=TensorProto.FLOAT),
        _node("Mul", [f"{row}_bytes", names["sixteenth"]], f"{row}_shifted"),
        _node("Floor", [f"{row}_shifted"], f"{row}_high"),
        _node("Mul", [f"{row}_high", names["sixteen"]], f"{row}_above"),
        _node("Sub", [f"{row}_bytes", f"{row}_above"], f"{row}_low"),
        _node("Concat", [f"{row}_low", f"{row}_high"], f"{row}_levels", axis=-1),
        _gather(names["steps"], ids, f"{row}_step"),
        _node("Mul", [f"{row}_levels", f"{row}_step"], f"{row}_raised"),
        _gather(names["lowest"], ids, f"{row}_lowest"),
        _node("Add", [f"{row}_raised", f"{row}_lowest"], row),
    ]


def _product(table: Table, rank: int) -> Packed:
    """Return the table as rows of `rank` numbers and a matrix (rank, width), by its largest singular values."""
    values = table.values.astype(np.float64)
    _, vectors = np.linalg.eigh(values.T @ values)
    matrix = vectors[:, ::-1][:, :rank].T
    matrix *= np.where(matrix[np.arange(rank), np.abs(matrix).argmax(axis=1)] < 0, -1, 1)[:, None]
    names = {part: f"{table.name}_{part}" for part in ("narrow", "matrix")}
    constants = {names["narrow"]: values @ matrix.T, names["matrix"]: matrix}

    def nodes_of(lookup: NodeProto) -> list[NodeProto]:
        narrow, row = f"{lookup.output[0]}_narrow", lookup.output[0]
        return [_gather(names["narrow"], lookup.input[1], narrow), _node("MatMul", [narrow, names["matrix"]], row)]

    return {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in constants.items()}, nodes_of


def _replace(model: ModelProto, table: Table, constants: Mapping[str, Array], nodes_of: NodesOf) -> None:
    """Put constants in place of a table, and the nodes that read them in place of its lookups."""
    graph, rows = model.graph, {lookup.output[0] for lookup in table.lookups}
    nodes = list(graph.node)
    made = [nodes_of(node) if node.output and node.output[0] in rows else None for node in nodes]
    names = _free_names(model, [*constants, *(node.output[0] for part in made for node in part or ())], rows)
    del graph.node[:]
    for node, part in zip(nodes, made, strict=True):
        graph.node.extend([node] if part is None else [_renamed(new, names) for new in part])
    weights = [tensor for tensor in graph.initializer if tensor.name != table.name]
    inputs = [value for value in graph.input if value.name != table.name]  # old files list constants among them, too
    del graph.initializer[:], graph.input[:]
    graph.initializer.extend(weights)
    graph.input.extend(inputs)
    graph.initializer.extend(numpy_helper.from_array(array, names[name]) for name, array in constants.items())


def _free_names(model: ModelProto, wanted: Sequence[str], kept: set[str]) -> dict[str, str]:
    """Return for each wanted name one that nothing in the graph has; those to be kept stay. Quantizers name alike."""
    taken = {
        name for graph in layers.graphs(model.graph) for node in graph.node for name in (*node.input, *node.output)
    }
    taken |= {tensor.name for tensor in model.graph.initializer} | {value.name for value in model.graph.input}
    names = {name: name for name in kept}
    for name in wanted:
        free = name
        while name not in kept and free in taken:
            free += "_"
        names[name] = free
    return names


def _renamed(node: NodeProto, names: Mapping[str, str]) -> NodeProto:
    node.input[:] = [names.get(name, name) for name in node.input]
    node.output[:] = [names.get(name, name) for name in node.output]
    return node


def _settle(model: ModelProto) -> None:
    """Turn Constant nodes that hold tables into initializers, in place."""
    large = {node.input[0] for node in layers.tables(model)}
    nodes = [node for node in model.graph.node if node.op_type == "Constant" and node.output[0] in large]
    for node in nodes:
        (value,) = (attribute.t for attribute in node.attribute if attribute.name == "value")
        settled = model.graph.initializer.add()
        settled.CopyFrom(value)
        settled.name = node.output[0]
        model.graph.node.remove(node)


def _is_finite(table: Table) -> bool:
    return bool(np.isfinite(table.values).all())


def _gather(table: str, ids: str, row: str) -> NodeProto:
    return _node("Gather", [table, ids], row)


def _node(kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> NodeProto:
    return helper.make_node(kind, inputs, [output], name=f"{output}_{kind.lower()}", **attributes)
