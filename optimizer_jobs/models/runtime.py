"""Run a bundle: the one way for search, judge and model server, so that what was judged is what serves.

Stays small to import (NumPy, pydantic and the engine in use): the model server imports it too.
"""

from collections.abc import Set as AbstractSet
from importlib import import_module
from pathlib import Path
from typing import cast

from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.engine import (
    Engine,
    EngineError,
    EngineOptions,
    Precision,
    Session,
    UnsupportedEngineError,
)
from optimizer_jobs.models.fixed import FixedSession

ENGINES = {
    "onnxruntime": "optimizer_jobs.models.ort",
    "openvino": "optimizer_jobs.models.openvino",
    "tensorrt": "optimizer_jobs.models.tensorrt",
}
"""Engine name to the module that implements `Engine`; imported when first used."""


def unavailable(engine: str) -> str | None:
    """Return why `engine` cannot run on this machine, as words without a full stop, or None when it can."""
    return _module(engine).unavailable()


def precisions(engine: str, cpu_flags: AbstractSet[str]) -> tuple[Precision, ...]:
    """Return the precisions that `engine` may compute in on such a processor, the fastest first."""
    return _module(engine).precisions(cpu_flags)


def open_model(path: Path, options: EngineOptions) -> Session:
    """Open a model file with the engine that `options` names.

    Raises:
        EngineError: The engine refuses the file, or, as UnsupportedEngineError, it is not here.
    """
    reason = unavailable(options.engine)
    if reason is not None:
        raise UnsupportedEngineError(f"engine {options.engine} is needed and cannot run here: {reason}")
    session = _module(options.engine).open_model(path, options)
    return FixedSession(session, rows=options.rows) if options.rows else session


def open_session(bundle: Bundle, *, threads_limit: int | None = None) -> Session:
    """Open a bundle's model with its own options, with at most `threads_limit` threads."""
    return open_model(bundle.model, limited(bundle.manifest.engine, threads_limit))


def limited(options: EngineOptions, threads: int | None) -> EngineOptions:
    """Return the options with at most that many threads in all, and at least one."""
    if threads is None:
        return options
    at_once = max(1, min(options.threads, threads))
    return options.model_copy(update={"threads": at_once, "streams": max(1, min(options.streams, threads // at_once))})


def _module(engine: str) -> Engine:
    return cast("Engine", import_module(ENGINES[engine]))


__all__ = [
    "ENGINES",
    "Engine",
    "EngineError",
    "EngineOptions",
    "Session",
    "UnsupportedEngineError",
    "limited",
    "open_model",
    "open_session",
    "precisions",
    "unavailable",
]
