"""Technique GraphOptimization: fold constants, drop what has no effect, fuse normalization into convolutions.

Only operators of the ONNX standard come out: fusions that fit one machine are left to the engine when it opens the
file, so that one file serves every machine.
"""

import contextlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

from optimizer_jobs.compress.base import Applied, Context, Params, Skipped
from retune.api.spec import Technique as TechniqueSpec
from retune.api.spec import TechniqueType

if TYPE_CHECKING:
    import onnx
    from optuna.trial import BaseTrial

TYPE = TechniqueType.GRAPH_OPTIMIZATION
CHEAP = True

OFF, SLIM, FOLD = "Off", "Slim", "SlimAndFold"


def unavailable(model: "onnx.ModelProto", spec: TechniqueSpec, *, calibration: bool) -> str | None:  # noqa: ARG001
    """Return None: every graph may be tried, and says so when nothing is to gain."""
    return None


def suggest(trial: "BaseTrial", spec: TechniqueSpec, *, calibration: bool) -> Params | None:  # noqa: ARG001
    """Choose the passes."""
    passes = trial.suggest_categorical(f"{spec.name}.passes", (OFF, SLIM, FOLD))
    return None if passes == OFF else {"passes": passes}


def defaults(spec: TechniqueSpec, *, calibration: bool) -> tuple[Params, ...]:  # noqa: ARG001
    """Return all passes."""
    return ({f"{spec.name}.passes": FOLD},)


def off(spec: TechniqueSpec) -> Params:
    """Return no passes."""
    return {f"{spec.name}.passes": OFF}


def describe(params: Params) -> str:
    """Return the passes in words."""
    return "slim graph" if params["passes"] == SLIM else "slim and folded graph"


def apply(model: Path, params: Params, context: Context) -> Applied | Skipped:
    """Rewrite the graph; skipped when it has as many nodes and bytes as before."""
    import onnx

    before = onnx.load(model)
    target = context.workdir / "model.onnx"
    after = _slim(before)
    onnx.save(after, target)
    if params["passes"] == FOLD:
        _fold(target)
        after = onnx.load(target)
    fewer_nodes = _nodes(before) - _nodes(after)
    fewer_bytes = model.stat().st_size - target.stat().st_size
    if fewer_nodes <= 0 and fewer_bytes <= 0:
        return Skipped(reason=f"the graph of {_nodes(before)} nodes has nothing to fold or drop")
    return Applied(model=target, summary=f"{describe(params)}: {_nodes(before)} to {_nodes(after)} nodes")


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
