"""Open a bundle's model in the engine that a server runs, and ask it the golden requests, before anything is written.

The engine here may be of another version than the server's, so this shows what cannot work and proves nothing of speed.
"""

from dataclasses import dataclass
from importlib import import_module

from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.engine import EngineError, EngineOptions, Session
from optimizer_jobs.models.golden import replay
from optimizer_jobs.models.runtime import open_model, unavailable
from optimizer_jobs.serving.base import called
from retune.contract.results import Reason

ENGINES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO", "tensorrt": "TensorRT"}
"""Names of engines in sentences."""
_OWN = {"onnxruntime": ("onnxruntime", "tensorrt"), "openvino": ("openvino",)}
"""Engines of bundles that are tried in an engine because the server runs them in it."""
_SHOWN = 200
"""Characters of an engine's own message that are passed on."""
_COMPARED = "float32"
"""Precision in which answers are the same on any machine, within the tolerances of the golden requests."""


@dataclass(frozen=True)
class Trial:
    """What came of it."""

    session: Session | None
    """The open model; None where the engine is not installed here."""
    words: str
    """What was tried, as a sentence."""


def try_out(bundle: Bundle, options: EngineOptions, *, instead: str) -> Trial:
    """Open the model with the options that a server will use, and ask it the golden requests.

    Args:
        bundle: The bundle.
        options: The engine and how it opens the file. Answers are compared where these name the bundle's precision.
        instead: What a person does where it cannot work, as a sentence.

    Raises:
        JobError: ModelInvalid where the engine cannot open or ask the model, or GoldenMismatch where it is another
            engine than the bundle's and answers otherwise.
    """
    name = ENGINES[options.engine]
    reason = unavailable(options.engine)
    if reason is not None:
        return Trial(None, f"Nothing was tried, because {reason} here.")
    try:
        session = open_model(bundle.model, options)
        answered = _answered(bundle, session, options)
    except EngineError as error:
        fault = f"{name} cannot run this model: {printable(str(error), limit=_SHOWN)}."
        raise JobError(Reason.MODEL_INVALID, called(bundle), fault, instead) from error
    if answered.other and bundle.manifest.engine.engine not in _OWN[options.engine]:
        fault = f"{name} does not answer as the bundle does: {answered.other}."
        raise JobError(Reason.GOLDEN_MISMATCH, called(bundle), fault, instead)
    return Trial(session, f"{name} {version_here(options.engine)} opened the model on this machine{answered.words}.")


@dataclass(frozen=True)
class _Answered:
    words: str
    other: str | None = None
    """How an answer differs from the recorded one; in the bundle's own engine that is the work of this machine."""


def _answered(bundle: Bundle, session: Session, options: EngineOptions) -> _Answered:
    """Ask every golden request whose answers can be compared."""
    golden, precision = bundle.golden, bundle.manifest.engine.precision
    if not golden.requests:
        return _Answered("")
    if not precision == options.precision == _COMPARED:
        return _Answered(f"; it was asked no golden requests, because their answers were computed in {precision}")
    for number, request in enumerate(golden.requests, start=1):
        reason = replay(session, request, golden=golden)
        if reason is not None:
            other = f"golden request {number}: {reason}"
            return _Answered(f", but not as it was recorded elsewhere ({other}): ask it where it will serve", other)
    return _Answered(f" and answered its {len(golden.requests)} golden requests as recorded")


def version_here(engine: str) -> str:
    """Return the version of an engine that is installed here."""
    return str(import_module(engine).__version__).partition("-")[0]
