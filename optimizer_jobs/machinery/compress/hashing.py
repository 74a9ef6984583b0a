"""Fewer rows of embedding tables by hashing: rows share parts by their number, and the network trains on.

Only the numbers decide who shares, so no list of rows has to be stored. Rows that are looked up often decide what a
shared part is, as training or calibration rows show it. A table is folded only where the inputs that hold its numbers
are read by its lookups alone: whatever else read them would tell rows apart that are no longer told apart.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto

from optimizer_jobs.machinery.compress import layers, rows, tables
from optimizer_jobs.machinery.compress.tables import Table
from optimizer_jobs.machinery.training.fit import unchangeable
from optimizer_jobs.technique import Applied, Context, Params, Skipped, Subject

HASHED = "hashed"
"""Parameter: the share of the rows of each table that is kept, 0 to 1."""

_EPOCHS = 15
_EXAMPLES = 4


def foldable(model: ModelProto) -> frozenset[str]:
    """Return the names of the large tables whose numbers come from inputs that nothing else reads.

    Weights are not read.
    """
    inputs = {value.name for value in model.graph.input} - {tensor.name for tensor in model.graph.initializer}
    lookups: dict[str, list[str]] = {}
    for node in layers.tables(model):
        lookups.setdefault(node.input[0], []).append(node.input[1])
    reads = [name for graph in layers.graphs(model.graph) for node in graph.node for name in node.input]
    reads += [output.name for output in model.graph.output]
    return frozenset(
        table
        for table, ids in lookups.items()
        if inputs.issuperset(ids) and all(reads.count(name) == ids.count(name) for name in ids)
    )


def fold(model: Path, params: Params, context: Context, *, words: str) -> Applied | Skipped:
    """Fold each table to the share `params["hashed"]` of its rows, train on where that is possible, and write the file.

    Args:
        model: The ONNX file.
        params: `hashed`.
        context: Where the new file goes, and the rows to count lookups on and to train on.
        words: What the summary calls these parameters.
    """
    proto = onnx.load(model)
    names, everything = foldable(proto), tables.of(proto)
    counts = _counts(proto, [table for table in everything if table.name in names], context)
    folded = [table for table, times in counts if _folded(proto, table, float(params[HASHED]), times)]
    if not folded:
        return Skipped(reason="no embedding table has rows that its numbers could be folded to")
    target = context.workdir / "model.onnx"
    onnx.save(proto, target)
    left = len(everything) - len(folded)
    done = f"{words}: {len(folded)} folded{f', {left} left whole' if left else ''}"
    return Applied(model=target, summary=f"{done}, {_trained_on(target, model, context)}")


def _counts(proto: ModelProto, chosen: Sequence[Table], context: Context) -> list[tuple[Table, rows.Array]]:
    """Return tables with what each of their rows counts: once, and once for each lookup that the rows of data show."""
    observed = [part for part in (context.training, context.calibration) if part is not None]
    counted = rows.counted(proto, chosen, max(observed, key=len), context) if chosen and observed else ()
    times = {table.name: seen for table, seen in counted}
    return [(table, times.get(table.name, np.zeros(len(table.values), dtype=np.int64)) + 1) for table in chosen]


def _folded(model: ModelProto, table: Table, share: float, weights: rows.Array) -> bool:
    """Fold a table in place where that makes it smaller; return whether it did."""
    entries = len(table.values)
    slots = max(2, round(share * entries))
    if slots + math.ceil(entries / slots) >= entries:
        return False
    tables.fold(model, table, slots, weights)
    return True


def _trained_on(folded: Path, model: Path, context: Context) -> str:
    """Train the folded file on, with the model before as a teacher beside the labels; return what was done.

    What training made is taken only where it is better on validation: few rows may cost more than folding did.
    """
    subject = Subject(
        graph=layers.graph_of(folded),
        signature=context.signature,
        task=context.task,
        native=context.native,
        training=context.training is not None,
    )
    if unchangeable(subject) is not None:
        return "not trained on"
    from optimizer_jobs.nets.conversion.exporter import ExportError, export
    from optimizer_jobs.nets.conversion.importer import import_module
    from optimizer_jobs.nets.learning.determinism import deterministic
    from optimizer_jobs.nets.learning.loop import train_on

    with deterministic(seed=context.seed, threads=context.threads):
        module = import_module(folded)
    trained = context.workdir / "trained.onnx"
    training = train_on(module, context, model=model, epochs=_EPOCHS)
    try:
        export(module, signature=context.signature, examples=context.examples(_EXAMPLES), target=trained)
    except ExportError as error:
        return f"not trained on, because {str(error).removesuffix('.')}"
    missed = context.shortfall
    better = training.quality > training.before if missed is None else missed(trained) < missed(folded)
    if not better:
        return "not trained on, because that brought no quality back"
    trained.replace(folded)
    return f"{training.epochs} epochs"
