"""An MLServer runtime that serves a bundle with the very code and engine that judged it.

It serves the bundle that the environment variable MODEL_URI names, which Retune owns; else the ONNX file as it was
delivered, which model-settings.json names. As a runtime of KServe's it is given file:///mnt/models. It checks the files
and golden requests of a bundle before it reports ready. A server that cannot prove what it serves must never become
ready: it ends and says why.

Where the environment variable CAPTURE_URI names a folder, requests and answers are captured there for monitoring.
"""

import asyncio
import atexit
import os
import re
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from mlserver import MLModel, ModelSettings
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.codecs.numpy import to_datatype
from mlserver.errors import InferenceError
from mlserver.types import (
    Datatype,
    InferenceRequest,
    InferenceResponse,
    MetadataTensor,
    Parameters,
    RequestInput,
    ResponseOutput,
)

from optimizer_jobs.data.uris import resolve
from optimizer_jobs.data.volumes import file_digest
from optimizer_jobs.errors import JobError
from optimizer_jobs.models import golden
from optimizer_jobs.models.bundle import Bundle, open_bundle
from optimizer_jobs.models.engine import Array, EngineError, EngineOptions, Session
from optimizer_jobs.models.names import MANIFEST
from optimizer_jobs.models.onnx_file import check_onnx
from optimizer_jobs.models.runtime import open_model, open_session
from optimizer_jobs.production.writer import CaptureWriter
from optimizer_jobs.signature import TEXT, Signature, TensorSpec

BUNDLE_VARIABLE = "MODEL_URI"
CAPTURE_VARIABLE = "CAPTURE_URI"
"""Folder for captured requests, such as pvc://CLAIM/captured; without it nothing is captured."""
THREADS_VARIABLE = "CPU_LIMIT"
"""Cores the container may use, by the downward API: `resourceFieldRef: limits.cpu`."""
TERMINATION_LOG = Path("/dev/termination-log")

_BUNDLE = re.compile(r"(?P<uri>.*/(?P<digest>[0-9a-f]{64}))/?")


class BundleModel(MLModel):  # type: ignore[misc]  # MLServer has no type information
    """The served model; its version is the start of the digest of the bundle or file that it serves."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__(settings)
        delivered = settings.parameters.uri if settings.parameters else None
        self._uri = os.environ.get(BUNDLE_VARIABLE) or delivered or ""
        self._session, self._bundle, self._digest = _opened(self._uri)
        self._capture = _capturing(os.environ.get(CAPTURE_VARIABLE), self._session.signature)
        if settings.parameters:
            settings.parameters.version = self._digest.removeprefix("sha256:")[:12]
            settings.versions = [settings.parameters.version]
        settings.platform = self._bundle.manifest.engine.engine if self._bundle else EngineOptions().engine
        self.inputs = [_metadata(spec) for spec in self._session.signature.inputs]
        self.outputs = [_metadata(spec) for spec in self._session.signature.outputs]

    async def load(self) -> bool:
        """Ask the golden requests in the same way as a client's, then report ready."""
        if self._bundle is not None:
            reason = await self._unlike_golden(self._bundle)
            if reason:
                _end(f"{self._uri}: golden request {reason}; this machine does not run the bundle as it was judged")
        return True

    async def unload(self) -> bool:
        """Write what was captured and is not in a file yet."""
        if self._capture is not None:
            await asyncio.to_thread(self._capture.close)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer one request of the Open Inference Protocol.

        Raises:
            InferenceError: It does not fit the model's inputs: the client is told so with the status 400.
            EngineError: The model fails at what fits: that is the server's fault, and answered with 500.
        """
        came, request_id = time.time(), payload.id or str(uuid.uuid4())
        signature = self._session.signature
        tensors = {tensor.name: tensor for tensor in payload.inputs}
        inputs = {spec.name: self._decoded(tensors.get(spec.name), spec) for spec in signature.inputs}
        outputs = await asyncio.to_thread(self._session.run, inputs)
        if self._capture is not None and request_id not in golden.OWN_IDS:
            self._capture.offer(request_id, self._digest, inputs, outputs, came)
        return InferenceResponse(
            id=request_id,
            model_name=self.name,
            model_version=self.version,
            parameters=Parameters(bundle_digest=self._bundle.digest) if self._bundle else None,
            outputs=[_encoded(spec, outputs[spec.name]) for spec in signature.outputs],
        )

    def _decoded(self, tensor: RequestInput | None, spec: TensorSpec) -> Array:
        if tensor is None:
            raise InferenceError(f"input {spec.name!r} is missing")
        try:
            values: Any = self.decode(tensor, default_codec=StringCodec if spec.dtype == TEXT else NumpyCodec)
            array = np.asarray(values, dtype=object if spec.dtype == TEXT else spec.dtype)
            array = array.reshape(tensor.shape)
        except (ValueError, TypeError, OverflowError) as error:
            raise InferenceError(f"input {spec.name!r} is no {spec.dtype} of shape {list(tensor.shape)}") from error
        if not _fits(array.shape, spec.shape):
            raise InferenceError(f"input {spec.name!r} has the shape {list(array.shape)}, not {list(spec.shape)}")
        return array

    async def _unlike_golden(self, bundle: Bundle) -> str | None:
        """Return what differs from the recorded answers, or None."""
        for number, request in enumerate(bundle.golden.requests, start=1):
            answer = await self.predict(InferenceRequest.model_validate(request.body()))
            reason = golden.check(answer.model_dump(mode="json"), request, golden=bundle.golden)
            if reason:
                return f"{number}: {reason}"
        return None


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    """Whether an array has the sizes that are wanted, of which -1 is free."""
    return len(shape) == len(wanted) and all(size < 0 or size == has for has, size in zip(shape, wanted, strict=True))


def _opened(uri: str) -> tuple[Session, Bundle | None, str]:
    """Return session, bundle and digest of what `uri` names; a plain file has no bundle.

    Ends the process where it is missing or damaged.
    """
    threads = max(1, int(os.environ.get(THREADS_VARIABLE, "1")))
    try:
        model, named = resolve(uri).local, _BUNDLE.fullmatch(uri)
        if named or (model / MANIFEST).is_file():  # KServe mounts a bundle under a path that does not name it
            digest = f"sha256:{named['digest']}" if named else None
            bundle = open_bundle(named["uri"] if named else uri, digest=digest, into=_private_folder())
            return open_session(bundle, threads_limit=threads), bundle, bundle.digest
        model = next(iter(sorted(model.glob("*.onnx"))), model) if model.is_dir() else model
        if not model.is_file():
            _end(f"{uri}: there is no such file; check the claim and whether the model was written")
        check_onnx(model, uri=uri)
        return open_model(model, EngineOptions(threads=threads)), None, file_digest(model)
    except JobError as error:
        _end(str(error))
    except EngineError as error:
        _end(f"{uri}: {error}")


def _private_folder() -> Path:
    """Return where the copy of a bundle goes that is verified and served: nobody else can change it in between."""
    folder = tempfile.TemporaryDirectory(prefix="bundle-", ignore_cleanup_errors=True)
    atexit.register(folder.cleanup)
    return Path(folder.name) / "bundle"


def _capturing(uri: str | None, signature: Signature) -> CaptureWriter | None:
    """Return what captures into the folder at `uri`; None without one, or where the format has no type for a tensor.

    Ends the process where the URI is malformed.
    """
    if not uri:
        return None
    try:
        writer = CaptureWriter(resolve(uri).local, signature)
        atexit.register(writer.close)  # MLServer unloads a model for another, but not when it ends
        return writer
    except JobError as error:
        _end(str(error))
    except ValueError as error:
        sys.stderr.write(f"nothing is captured: {error}\n")
    return None


def _end(why: str) -> NoReturn:
    """End the process and leave the reason where `kubectl describe` and the operator find it."""
    sys.stderr.write(f"cannot serve: {why}\n")
    sys.stderr.flush()
    if TERMINATION_LOG.exists():
        TERMINATION_LOG.write_text(why[:4000])
    os._exit(1)  # nothing is open yet; an orderly end would bury the reason under tracebacks


def _encoded(spec: TensorSpec, values: Array) -> ResponseOutput:
    if spec.dtype == TEXT:
        return StringCodec.encode_output(spec.name, [str(value) for value in values.reshape(-1)])
    return NumpyCodec.encode_output(spec.name, values)


def _metadata(spec: TensorSpec) -> MetadataTensor:
    datatype = Datatype.BYTES if spec.dtype == TEXT else to_datatype(np.dtype(spec.dtype))
    return MetadataTensor(name=spec.name, datatype=datatype, shape=list(spec.shape))
