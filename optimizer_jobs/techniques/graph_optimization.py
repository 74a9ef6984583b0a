"""Technique GraphOptimization: fold constants, drop what has no effect, fuse normalization into convolutions.

Only operators of the ONNX standard come out, so that one file serves every machine: fusions that fit one machine are
left to the engine when it opens the file. Transformers alone may also get fused operators of ONNX Runtime, as a
variant of its own that need not pay: a small sentence encoder answered one short text in about a tenth less time, and
batches of longer ones no faster.
"""

import contextlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

from optimizer_jobs.machinery.compress.fusions import differs, fuse
from optimizer_jobs.machinery.compress.layers import has_attention
from optimizer_jobs.technique import Applied, Context, Params, Skipped, Subject
from retune.api.techniques import GraphOptimization, TechniqueType
from retune.api.techniques import Technique as TechniqueSpec

if TYPE_CHECKING:
    import onnx
    from optuna.trial import BaseTrial

TYPE = TechniqueType.GRAPH_OPTIMIZATION
CHEAP = True
TRAINS = False

OFF, SLIM, FOLD, FUSE = "Off", "Slim", "SlimAndFold", "Fuse"


def unavailable(subject: Subject, spec: TechniqueSpec) -> str | None:  # noqa: ARG001
    """Return None: every graph may be tried, and says so when nothing is to gain."""
    return None


def suggest(trial: "BaseTrial", spec: TechniqueSpec, subject: Subject) -> Params | None:
    """Choose the passes."""
    further = (FUSE,) if _fusible(spec, subject) else ()
    passes = trial.suggest_categorical(f"{spec.name}.passes", (OFF, SLIM, FOLD, *further))
    return None if passes == OFF else {"passes": passes}


def defaults(spec: TechniqueSpec, subject: Subject) -> tuple[Params, ...]:
    """Return all passes, with and without fused operators."""
    passes = (FOLD, FUSE) if _fusible(spec, subject) else (FOLD,)
    return tuple({f"{spec.name}.passes": name} for name in passes)


def off(spec: TechniqueSpec, subject: Subject) -> Params:  # noqa: ARG001
    """Return no passes."""
    return {f"{spec.name}.passes": OFF}


def describe(params: Params) -> str:
    """Return the passes in words."""
    return {SLIM: "slim graph", FOLD: "slim and folded graph", FUSE: "fused graph"}[str(params["passes"])]


def apply(model: Path, params: Params, context: Context) -> Applied | Skipped:
    """Rewrite the graph; skipped when it has as many nodes and bytes as before."""
    import onnx

    before = onnx.load(model)
    target = context.workdir / "model.onnx"
    if params["passes"] == FUSE:
        reason = _fuse(model, target, context)
        if reason is not None:
            return Skipped(reason=reason)
    else:
        onnx.save(_slim(before), target)
    if params["passes"] == FOLD:
        _fold(target)
    after = onnx.load(target)
    fewer_nodes = _nodes(before) - _nodes(after)
    fewer_bytes = model.stat().st_size - target.stat().st_size
    if fewer_nodes <= 0 and fewer_bytes <= 0:
        return Skipped(reason=f"the graph of {_nodes(before)} nodes has nothing to fold or drop")
    return Applied(model=target, summary=f"{describe(params)}: {_nodes(before)} to {_nodes(after)} nodes")


def _fusible(spec: TechniqueSpec, subject: Subject) -> bool:
    """Return whether the graph has attention to fuse, and there are rows to verify the result on."""
    settings = spec.graph or GraphOptimization()
    return settings.transformer_fusions == "Auto" and subject.calibration and has_attention(subject.graph)


def _fuse(model: Path, target: Path, context: Context) -> str | None:
    """Write the file with fused operators, from the graph as it is; return why it may not be used, or None.

    A slimmed graph has lost shapes by which attention is recognized.
    """
    if not fuse(model, target):
        return "the graph has no pattern that ONNX Runtime fuses"
    return differs(model, target, context)


def _slim(model: "onnx.ModelProto") -> "onnx.ModelProto":
    """Return the model after onnxslim, which prints a table that nobody asked for."""
    import onnx
    import onnxslim

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    with contextlib.redirect_stdout(io.StringIO()):
        slimmed: onnx.ModelProto | None = onnxslim.slim(copy)
    if slimmed is None:
        return model
    slimmed.doc_string, slimmed.producer_name, slimmed.producer_version = model.doc_string, "retune", ""
    return slimmed


def _fold(path: Path) -> None:
    """Rewrite the file with the engine's own standard-conforming optimizations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    folded = path.with_suffix(".folded.onnx")
    options.optimized_model_filepath = str(folded)
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    folded.replace(path)


def _nodes(model: "onnx.ModelProto") -> int:
    return len(model.graph.node)
