"""Engine options in the words of plans and reports."""

from optimizer_jobs.models.engine import EngineOptions
from retune.api.servers import EngineName

_PLAIN = "float32"


def engine_words(options: EngineOptions) -> list[str]:
    """Return the options in words, such as `all graph`, `2 threads` or `OpenVINO bfloat16`, `1 thread`, `2 streams`."""
    if options.engine == "onnxruntime":
        precision = [options.precision] if options.precision != _PLAIN else []
        rows = [f"{options.rows} rows a call"] if options.rows else []
        return [f"{options.graph_level} graph", *precision, _threads(options), *rows]
    name = next(str(name) for name in EngineName if name.lower() == options.engine)
    streams = [f"{options.streams} streams"] if options.streams > 1 else []
    return [f"{name} {options.precision}", _threads(options), *streams, *_planned(options)]


def _planned(options: EngineOptions) -> list[str]:
    shapes = dict.fromkeys("x".join(map(str, shape)) for shape in (options.planned or {}).values())
    return [f"planned for {', '.join(shapes)}"] if shapes else []


def _threads(options: EngineOptions) -> str:
    count = "1 thread" if options.threads == 1 else f"{options.threads} threads"
    return count if options.spinning else f"{count} not spinning"
