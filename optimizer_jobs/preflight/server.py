"""Whether the server that the spec names can run a delivered model at all, seen before anything is measured."""

from pathlib import Path

from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.models.engine import EngineError, EngineOptions, UnsupportedEngineError
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.serving.limits import Limits
from retune.contract.results import Reason

_SHOWN = 300
"""Characters of an engine's own message that are passed on."""


def check_server(model: Path, *, uri: str, limits: Limits) -> None:
    """Refuse a model that the server cannot run.

    Args:
        model: The ONNX file, as it was delivered or as it was converted.
        uri: Name by which people know the model.
        limits: The limits of the server.

    Raises:
        JobError: ModelInvalid naming the part that the server's engine lacks, or EngineUnavailable where the only
            engine of the server is not installed here.
    """
    if (fault := limits.fault(model)) is not None:
        raise JobError(
            Reason.MODEL_INVALID,
            uri,
            f"{limits.engine_words}, the server's engine by spec.serving.engineVersion, cannot run it: {fault}.",
            "Export it for that version, let a newer server serve it, or correct spec.serving.engineVersion.",
        )
    if limits.openvino_only:
        _check_openvino(model, uri, limits)


def _check_openvino(model: Path, uri: str, limits: Limits) -> None:
    try:
        open_model(model, limits.as_run(EngineOptions()))
    except UnsupportedEngineError as error:
        raise JobError(
            Reason.ENGINE_UNAVAILABLE,
            "serving.runtime",
            f"{limits.server} computes in OpenVINO: {error}.",
            "Use an image of the Jobs that has OpenVINO, or name another server.",
        ) from error
    except EngineError as error:
        raise JobError(
            Reason.MODEL_INVALID,
            uri,
            f"OpenVINO, in which {limits.server} computes, cannot run it: {printable(str(error), limit=_SHOWN)}.",
            "Let Triton or a server of your own serve it (spec.serving.runtime), which run ONNX Runtime.",
        ) from error
