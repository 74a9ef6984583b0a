"""Run a bundle: the one way for search, judge and model server, so that what was judged is what serves.

Stays small to import (NumPy, pydantic and the engine): the model server imports it too.
"""

from importlib import import_module
from pathlib import Path
from typing import cast

from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.engine import Engine, EngineError, EngineOptions, Session

ENGINES = {"onnxruntime": "optimizer_jobs.models.ort"}
"""Engine name to the module that implements `Engine`; imported when first used."""


def open_model(path: Path, options: EngineOptions) -> Session:
    """Open a model file with the engine that `options` names."""
    engine = cast("Engine", import_module(ENGINES[options.engine]))
    return engine.open_model(path, options)


def open_session(bundle: Bundle, *, threads_limit: int | None = None) -> Session:
    """Open a bundle's model with its own options, with at most `threads_limit` threads."""
    options = bundle.manifest.engine
    if threads_limit is not None:
        options = options.model_copy(update={"threads": max(1, min(options.threads, threads_limit))})
    return open_model(bundle.model, options)


__all__ = ["ENGINES", "Engine", "EngineError", "EngineOptions", "Session", "open_model", "open_session"]
