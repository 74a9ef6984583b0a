"""Name the step of a pipeline from which on a converted file gives other numbers than the pipeline itself."""

import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from optimizer_jobs.machinery.estimators.inputs import Array, asked_with
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.runtime import open_model

_CLOSE = 1e-4
"""How far single precision may be off, as a share of a number."""


def step_that_differs(
    estimator: Any, rows: Mapping[str, Array], *, convert: Callable[[Any], onnx.ModelProto]
) -> str | None:
    """Return the first step in words whose numbers differ; None where all before the last one agree, or none is asked.

    Args:
        estimator: The fitted estimator.
        rows: Rows by input name that the file and the estimator answer differently.
        convert: Returns a fitted pipeline as ONNX; what it raises says that this part is not asked alone.
    """
    for begun in _beginnings(estimator):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                differs = _differs(begun, convert(begun), rows)
        except Exception:  # noqa: BLE001 - a part that cannot be asked alone is not named
            return None
        if differs:
            name, step = begun.steps[-1]
            return f"step {name!r} ({type(step).__name__})"
    return None


def _beginnings(estimator: Any) -> Iterator[Any]:
    """Yield the pipelines of the first step, of the first two, and so on, without the last step."""
    from sklearn.pipeline import Pipeline

    steps = [pair for pair in getattr(estimator, "steps", ()) if pair[1] is not None and not isinstance(pair[1], str)]
    for count in range(1, len(steps)):
        yield Pipeline(steps[:count])


def _differs(begun: Any, model: onnx.ModelProto, rows: Mapping[str, Array]) -> bool:
    expected = begun.transform(asked_with(begun, rows))
    expected = expected.toarray() if hasattr(expected, "toarray") else np.asarray(expected)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "begun.onnx"
        path.write_bytes(model.SerializeToString())
        (given,) = open_model(path, EngineOptions(spinning=False)).run(dict(rows)).values()
    given = given.reshape(expected.shape)
    if given.dtype.kind in "OUS":
        return bool((given.astype(np.str_) != expected.astype(np.str_)).any())
    return not np.allclose(given, expected.astype(np.float64), rtol=_CLOSE, atol=_CLOSE, equal_nan=True)
