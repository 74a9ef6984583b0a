"""Fewer rows of embedding tables: those that are hardly ever looked up share one row.

How often a row is looked up is counted on training and calibration rows, never on validation or test. Few such rows say
little about rows that they do not contain. So it is estimated how many lookups to come would end at the shared row, and
a table of which too many would is left as it is.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.machinery.compress import tables
from optimizer_jobs.machinery.compress.calibration import session_of
from optimizer_jobs.machinery.compress.tables import Table
from optimizer_jobs.technique import Applied, Context, Params, Skipped, Subject

Array = NDArray[Any]

MOST_SHARED = 0.05
"""Share of lookups to come that may end at the shared row."""
_PART = 4096
"""Rows of data whose lookups are counted at once, or more where a group has more."""


def unavailable(subject: Subject) -> str | None:
    """Return why rows of tables cannot be counted with this data, or None."""
    if not (subject.training or subject.calibration):
        return "there are no rows to see on which rows of tables matter: set data.training or data.calibration"
    return None


def prune(model: Path, params: Params, context: Context, *, words: str) -> Applied | Skipped:
    """Let the least used share `params["ratio"]`, 0 to 1, of the rows of each table share one row.

    Args:
        model: The ONNX file.
        params: `ratio`.
        context: Where the new file goes, and the rows on which lookups are counted.
        words: What the summary calls these parameters.
    """
    proto = onnx.load(model)
    everything = tables.of(proto)
    observed = [rows for rows in (context.training, context.calibration) if rows is not None]
    if not everything or not observed:
        return Skipped(reason="there is no embedding table" if observed else "there are no rows to count lookups on")
    done, refused = list[str](), list[float]()
    for table, counts in counted(proto, everything, max(observed, key=len), context):
        shared = _least_used(counts, float(params["ratio"]))
        met = share_met(counts, shared)
        if met > MOST_SHARED:
            refused.append(met)
        elif shared.sum() > 1:
            tables.merge(proto, table, shared, counts + 1)
            done.append(f"{int((~shared).sum())} of {len(counts)}")
    if not done:
        return Skipped(reason=_nothing_done(refused))
    target = context.workdir / "model.onnx"
    onnx.save(proto, target)
    return Applied(model=target, summary=f"{words}: {', '.join(done)} kept{_left(len(refused))}")


def share_met(counts: Array, shared: NDArray[np.bool_]) -> float:
    """Return the estimated share of lookups to come that end at a shared row.

    These are lookups of shared rows that were seen, and lookups of rows that were never seen. The share of the latter
    is about that of rows seen once (Good, 1953).

    Args:
        counts: How often each row was looked up, (entries,).
        shared: Whether a row is shared, (entries,).
    """
    total = int(counts.sum())
    if total == 0:
        return 1.0
    seen = int(counts[shared].sum())
    return float(min(1.0, (seen + int((counts == 1).sum())) / total))


def _least_used(counts: Array, ratio: float) -> NDArray[np.bool_]:
    """Return which rows are shared: the least used ones, the later of those that are used equally often."""
    shared = np.zeros(len(counts), dtype=bool)
    shared[np.lexsort((-np.arange(len(counts)), counts))[: int(ratio * len(counts))]] = True
    return shared


def counted(
    proto: ModelProto, everything: Sequence[Table], rows: Rows, context: Context
) -> Iterator[tuple[Table, NDArray[np.int64]]]:
    """Yield tables with how often each of their rows is looked up, (entries,).

    What one group looks up, such as one user, or one row of data without groups, counts once: its lookups resemble each
    other. Tables whose lookups do not belong to single rows of data, such as those of places in a text, are left out.
    """
    counts = {table.name: np.zeros(len(table.values), dtype=np.int64) for table in everything}
    ids = _Ids(proto, [lookup.input[1] for table in everything for lookup in table.lookups], context)
    for part, units in _parts(rows):
        context.check_time()
        values = ids.of(part)
        for table in everything:
            places = [values[lookup.input[1]] for lookup in table.lookups]
            if table.name in counts and all(len(units) > 1 and place.shape[:1] == units.shape for place in places):
                counts[table.name] += _distinct(places, units, entries=len(table.values))
            else:
                counts.pop(table.name, None)
    yield from ((table, counts[table.name]) for table in everything if table.name in counts)


def _parts(rows: Rows) -> Iterator[tuple[Rows, NDArray[np.int64]]]:
    """Yield all rows in parts that no group is spread over, each with the number of the group of each row (M,)."""
    groups = np.arange(len(rows)) if rows.groups is None else np.unique(rows.groups, return_inverse=True)[1]
    order = np.argsort(groups, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(groups[order])) + 1, len(order))
    start = 0
    while start < len(order):
        end = int(ends[min(int(np.searchsorted(ends, start + _PART)), len(ends) - 1)])
        yield rows.take(order[start:end]), groups[order[start:end]]
        start = end


def _distinct(places: Sequence[Array], units: NDArray[np.int64], *, entries: int) -> NDArray[np.int64]:
    """Return by how many units each row of a table is looked up, (entries,)."""
    keys = [units.reshape(-1, *[1] * (place.ndim - 1)) * entries + place % entries for place in places]
    return np.bincount(np.unique(np.concatenate([key.ravel() for key in keys])) % entries, minlength=entries)


class _Ids:
    """Computes which numbers a model looks up, with nothing but the part of the graph that leads to them."""

    def __init__(self, proto: ModelProto, names: Sequence[str], context: Context) -> None:
        inputs = {tensor.name for tensor in context.signature.inputs}
        self._inputs = [name for name in dict.fromkeys(names) if name in inputs]
        self._computed = [name for name in dict.fromkeys(names) if name not in inputs]
        self._batch = context.signature.batch
        self._session = session_of(_leading_to(proto, self._computed)) if self._computed else None

    def of(self, rows: Rows) -> dict[str, Array]:
        """Return the numbers that these rows look up, by the name of their tensor."""
        values = {name: np.asarray(rows.inputs[name]) for name in self._inputs}
        if self._session is None:
            return values
        read = [value.name for value in self._session.get_inputs()]
        size = self._batch or len(rows)
        pieces = [
            self._session.run(self._computed, {name: rows.inputs[name][at : at + size] for name in read})
            for at in range(0, len(rows) - size + 1, size)
        ]
        parts = zip(*pieces, strict=True)
        return values | {name: np.concatenate(part) for name, part in zip(self._computed, parts, strict=True)}


def _leading_to(proto: ModelProto, names: Sequence[str]) -> ModelProto:
    """Return the part of a graph that computes these tensors."""
    makers = {tensor: node for node in proto.graph.node for tensor in node.output}
    needed, waiting = set[str](), list(names)
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting.extend(_read_by(makers[name]) if name in makers else [])
    part = ModelProto()
    part.CopyFrom(proto)
    graph = part.graph
    for listed in (graph.node, graph.initializer, graph.input, graph.output):
        del listed[:]
    graph.node.extend(node for node in proto.graph.node if needed.intersection(node.output))
    graph.initializer.extend(tensor for tensor in proto.graph.initializer if tensor.name in needed)
    graph.input.extend(value for value in proto.graph.input if value.name in needed)
    graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    return part


def _read_by(node: NodeProto) -> list[str]:
    """Return the tensors that a node reads, those read inside its graphs included."""
    inner = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return [*node.input, *(name for graph in inner for child in graph.node for name in _read_by(child))]


def _nothing_done(refused: Sequence[float]) -> str:
    if not refused:
        return "no table has rows to spare"
    return (
        f"about {100 * min(refused):.2g} % of the lookups to come would end at the shared row, and "
        f"{100 * MOST_SHARED:.2g} % may: more training or calibration rows may show that fewer do"
    )


def _left(refused: int) -> str:
    return f", {refused} table{'s' * (refused != 1)} left whole" if refused else ""
