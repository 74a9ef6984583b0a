"""Split the layers of a network into products of two lighter ones, train on, and write the network.

Embedding tables are split too, without training. Which layers become lighter by it is decided by `nets.surgery`. Inputs
and outputs stay. Without rows to train on, the loss of quality stays too.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from optimizer_jobs.machinery.compress import tables
from optimizer_jobs.machinery.compress.layers import graph_of
from optimizer_jobs.technique import Applied, Context, Params, Skipped

if TYPE_CHECKING:
    from optimizer_jobs.nets.conversion.importer import GraphModule

RANK, SEPARABLE, TABLES = "rank", "separable", "tables"
"""Parameters: the rank that is kept, as a share of the full one, of layers; the share of convolutions made separable;
the rank that is kept of embedding tables."""

_EXAMPLES = 4
_EPOCHS = {RANK: 15, SEPARABLE: 30}


def factorize(model: Path, params: Params, context: Context, *, words: str) -> Applied | Skipped:
    """Split every layer that gets smaller by it, train on where there are rows for it, and write the network.

    Args:
        model: The ONNX file.
        params: `rank`, `separable` or `tables`.
        context: Where the new file goes, and the rows to train on.
        words: What the summary calls these parameters.
    """
    if TABLES in params:
        return _factorize_tables(model, params, context, words=words)
    from optimizer_jobs.nets.conversion.exporter import ExportError, export
    from optimizer_jobs.nets.conversion.importer import import_module, not_importable
    from optimizer_jobs.nets.learning.determinism import deterministic

    reason = not_importable(graph_of(model))
    if reason is not None:
        return Skipped(reason=reason)
    with deterministic(seed=context.seed, threads=context.threads):
        module = import_module(model)
        split, total = _split(module, params, context)
    if not split:
        return Skipped(reason=_nothing_split(total, params))
    trained = _trained(module, model, context, epochs=_EPOCHS[RANK if RANK in params else SEPARABLE])
    target = context.workdir / "model.onnx"
    try:
        export(module, signature=context.signature, examples=context.examples(_EXAMPLES), target=target)
    except ExportError as error:
        return Skipped(reason=str(error).removesuffix("."))
    return Applied(model=target, summary=f"{words}: {split} of {total} layers split, {trained}")


def _factorize_tables(model: Path, params: Params, context: Context, *, words: str) -> Applied | Skipped:
    """Split embedding tables in the graph itself, so that the rest of it need not be known."""
    graph = onnx.load(model)
    replaced, total = tables.split(graph, float(params[TABLES]))
    if not replaced:
        return Skipped(reason=f"none of {total} embedding tables is smaller as a product of rank {params[TABLES]:g}")
    target = context.workdir / "model.onnx"
    onnx.save(graph, target)
    return Applied(model=target, summary=f"{words}: {replaced} of {total} split, not trained on")


def _split(module: "GraphModule", params: Params, context: Context) -> tuple[int, int]:
    """Split layers in place; return how many were split, and how many could be."""
    import torch

    from optimizer_jobs.nets.surgery.low_rank import split_layers
    from optimizer_jobs.nets.surgery.separable import separate_layers

    if RANK in params:
        return split_layers(module, float(params[RANK]))
    examples = tuple(torch.from_numpy(values) for values in context.examples(_EXAMPLES).values())
    return separate_layers(module, float(params[SEPARABLE]), examples)


def _nothing_split(total: int, params: Params) -> str:
    if RANK in params:
        return f"none of {total} layers is smaller as a product of rank {params[RANK]:g}"
    return "no dense convolution of several channels is left to make separable"


def _trained(module: Any, model: Path, context: Context, *, epochs: int) -> str:
    """Train on with the unchanged model as a teacher beside the labels; return what was done."""
    from optimizer_jobs.nets.learning.loop import train_on

    if context.training is None:
        return "not trained on"
    return f"{train_on(module, context, model=model, epochs=epochs).epochs} epochs"
