"""Fusions of transformers: attention, normalization and activation become single operators of ONNX Runtime.

A fused graph counts only when it answers as the original does, on real rows.
"""

from pathlib import Path
from typing import Any

import numpy as np

from optimizer_jobs.machinery.compress.calibration import quiet
from optimizer_jobs.models.engine import EngineError, EngineOptions
from optimizer_jobs.models.layout import as_taken
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.technique import Context

_TOLERANCE = 1e-3
"""Largest difference of an answer, relative to the largest answer where that is above 1."""
_ROWS = 64
"""Rows on which answers are compared, at most."""


def fuse(path: Path, target: Path) -> int:
    """Write the fused graph; return the number of fused operators, 0 when the graph has no known pattern."""
    from onnxruntime.transformers.optimizer import optimize_model

    with quiet():
        fused = optimize_model(str(path), model_type="bert", opt_level=0)
        fused.save_model_to_file(str(target))
    return sum(node.domain == "com.microsoft" for node in fused.model.graph.node)


def differs(original: Path, fused: Path, context: Context) -> str | None:
    """Return why the fused graph may not be used, as words without a full stop, or None when answers are the same."""
    if context.calibration is None:
        return "there are no rows to compare answers on"
    few = context.calibration.take(slice(0, context.signature.batch or _ROWS))
    rows = dict(as_taken(context.signature, few.inputs))
    try:
        before, after = (open_model(path, EngineOptions(spinning=False)).run(rows) for path in (original, fused))
    except EngineError as error:
        return f"ONNX Runtime does not run the fused graph: {str(error)[:200]}"
    largest = max((_difference(before[name], after[name]) for name in before), default=0.0)
    return None if largest <= _TOLERANCE else f"fused operators change answers by up to {largest:.2g}"


def _difference(before: Any, after: Any) -> float:
    """Return the largest difference relative to the largest value; 1 where labels differ or a value is NaN."""
    if not np.issubdtype(before.dtype, np.floating):
        return float(not np.array_equal(before, after))
    gap = float(np.max(np.abs(before - after), initial=0.0)) / max(1.0, float(np.max(np.abs(before), initial=0.0)))
    return gap if np.isfinite(gap) else 1.0
