"""Rewrite a graph with fewer nodes or bytes that computes the same: the passes of technique GraphOptimization.

Slim and Fold write operators of the ONNX standard only, and trees in their short form. Fuse writes operators of ONNX
Runtime, and counts only when the answers stay the same (`fusions`).
"""

import contextlib
import io
from pathlib import Path

import onnx
from onnx import ModelProto

from optimizer_jobs.machinery.compress.fusions import differs, fuse
from optimizer_jobs.machinery.trees.compact import compact
from optimizer_jobs.technique import Applied, Context, Skipped

SLIM, FOLD, FUSE = "Slim", "SlimAndFold", "Fuse"


def rewrite(model: Path, passes: str, context: Context, *, words: str) -> Applied | Skipped:
    """Rewrite the graph; skipped when neither nodes nor bytes become fewer.

    Args:
        model: The ONNX file.
        passes: Slim, SlimAndFold or Fuse.
        context: Where the new file goes, and rows to compare answers on.
        words: What the summary calls the passes.
    """
    target = context.workdir / "model.onnx"
    reason = _write(model, target, passes, context)
    if reason is not None:
        return Skipped(reason=reason)
    before, after = _nodes(model), _nodes(target)
    shortened = ", trees in their short form" if _shorten(target) else ""
    if before <= after and model.stat().st_size <= target.stat().st_size:
        return Skipped(reason=f"the graph of {before} nodes has nothing to fold or drop")
    return Applied(model=target, summary=f"{words}: {before} to {after} nodes{shortened}")


def _write(model: Path, target: Path, passes: str, context: Context) -> str | None:
    """Write the file after the passes; return why it may not be used, or None."""
    if passes == FUSE:
        return _fuse(model, target, context)
    _slim(model, target)
    if passes == FOLD:
        _fold(target)
    return None


def _slim(model: Path, target: Path) -> None:
    """Write the model after onnxslim: constants folded, operators without effect dropped."""
    import onnxslim

    delivered, copy = onnx.load(model), onnx.load(model)
    with contextlib.redirect_stdout(io.StringIO()):  # onnxslim prints a table
        slimmed: ModelProto | None = onnxslim.slim(copy)
    if slimmed is None:
        slimmed = delivered
    else:
        slimmed.doc_string, slimmed.producer_name, slimmed.producer_version = delivered.doc_string, "retune", ""
    onnx.save(slimmed, target)


def _fold(path: Path) -> None:
    """Rewrite the file with those optimizations of ONNX Runtime that keep to standard operators."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    folded = path.with_suffix(".folded.onnx")
    options.optimized_model_filepath = str(folded)
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    folded.replace(path)


def _shorten(path: Path) -> bool:
    """Rewrite ensembles of trees in the file in the form that takes fewest bytes; return whether there are any."""
    graph = onnx.load(path, load_external_data=False)
    shortened = compact(graph) > 0
    if shortened:
        path.write_bytes(graph.SerializeToString(deterministic=True))
    return shortened


def _fuse(model: Path, target: Path, context: Context) -> str | None:
    """Write the file with fused operators; return why it may not be used, or None.

    The graph is not slimmed before, because that removes shapes by which ONNX Runtime recognizes attention.
    """
    if not fuse(model, target):
        return "the graph has no pattern that ONNX Runtime fuses"
    return differs(model, target, context)


def _nodes(model: Path) -> int:
    return len(onnx.load(model, load_external_data=False).graph.node)
