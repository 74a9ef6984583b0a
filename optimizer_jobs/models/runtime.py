"""Open and run a model: the same code for search, judge and model server, so that the model that serves is as judged.

Stays small to import (NumPy, pydantic and the engine in use), because the model server imports it.
"""

import os
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
"""The module that implements `Engine`, by the engine's name, which is that of its package; imported when first used."""


def unavailable(engine: str) -> str | None:
    """Return why `engine` cannot run on this machine, as words without a full stop, or None when it can."""
    return _module(engine).unavailable()


def load(engine: str) -> None:
    """Load an engine's library as a server does: with every CPU in sight, whatever this process may use by now.

    ONNX Runtime chooses kernels when it is loaded. Those for 8-bit numbers that it chooses with one CPU in sight were
    measured to be 1.4 times as fast on small networks, and a server does not get them: where its container is limited
    to one core, it still sees all CPUs.
    """
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, range(os.cpu_count() or 1))  # the kernel keeps to those that the container has
    try:
        if unavailable(engine) is None:
            import_module(engine)
    finally:
        os.sched_setaffinity(0, mine)


def precisions(engine: str, cpu_flags: AbstractSet[str]) -> tuple[Precision, ...]:
    """Return the precisions that `engine` may use on a processor with these flags, the fastest first."""
    return _module(engine).precisions(cpu_flags)


def open_model(path: Path, options: EngineOptions) -> Session:
    """Open a model file with the engine that `options` names.

    Raises:
        EngineError: The engine refuses the file; as UnsupportedEngineError when the engine cannot run here.
    """
    reason = unavailable(options.engine)
    if reason is not None:
        raise UnsupportedEngineError(f"engine {options.engine} is needed and cannot run here: {reason}")
    session = _module(options.engine).open_model(path, options)
    return FixedSession(session, rows=options.rows) if options.rows else session


def open_session(bundle: Bundle, *, threads_limit: int | None = None) -> Session:
    """Open a bundle's model with the options of its manifest, but with at most `threads_limit` threads."""
    return open_model(bundle.model, limited(bundle.manifest.engine, threads_limit))


def limited(options: EngineOptions, threads: int | None) -> EngineOptions:
    """Return the options with at most `threads` threads over all streams, and at least one; None sets no limit."""
    if threads is None:
        return options
    per_stream = max(1, min(options.threads, threads))
    streams = max(1, min(options.streams, threads // per_stream))
    return options.model_copy(update={"threads": per_stream, "streams": streams})


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
    "load",
    "open_model",
    "open_session",
    "precisions",
    "unavailable",
]
