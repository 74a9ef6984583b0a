"""Whether two trials run the same thing: the same file, in the same engine, with options that come to the same.

A trial that would repeat an earlier one is not measured and does not count. What is compared is what would run, not
what was asked for, so a step without effect shows here whatever it says of itself.
"""

import hashlib
import json
from pathlib import Path

from optimizer_jobs.commands.search.engines import ORT
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.techniques.steps import digest

_LARGEST_BYTES = 256 << 20
"""Size of a file up to which it is looked at what ONNX Runtime makes of it."""


def what_runs(model: Path, engine: EngineOptions, *, scratch: Path) -> str:
    """Return a digest that is the same for trials that run the same.

    Args:
        model: The ONNX file.
        engine: How it is run.
        scratch: An existing folder for temporary files.
    """
    options = engine.model_dump(mode="json")
    if engine.engine == ORT and model.stat().st_size <= _LARGEST_BYTES:
        options["graph_level"] = _as_run(model, engine, scratch) or engine.graph_level
    return hashlib.sha256(json.dumps([digest(model), options], sort_keys=True).encode()).hexdigest()


def _as_run(model: Path, engine: EngineOptions, scratch: Path) -> str | None:
    """Return the digest of the graph that ONNX Runtime rewrites the file to, or None when it cannot be stored."""
    import onnxruntime

    from optimizer_jobs.models.ort import LEVELS

    target = scratch / "as_run.onnx"
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = LEVELS[engine.graph_level]
    options.optimized_model_filepath, options.log_severity_level = str(target), 4
    options.intra_op_num_threads = 1
    try:
        onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        return digest(target)
    except Exception:  # noqa: BLE001 - the library raises whatever it likes; then the option itself is compared
        return None
    finally:
        target.unlink(missing_ok=True)
