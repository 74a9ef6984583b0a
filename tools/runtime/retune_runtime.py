"""Serve Retune's bundles from a Python server of your own.

    import retune_runtime

    served = retune_runtime.from_environment(delivered="model.onnx")  # raises ServeError: then do not get ready
    outputs = served.run({"x": rows})  # arrays by name
    answer = served.answer(body)  # or JSON of the Open Inference Protocol v2, both ways

A bundle is opened by the code that judged it: every file is verified, and the engine gets the judged options. What
cannot be proved to be the bundle is not served. Bundles lie on volumes, or with the extra `remote` in buckets, which
are asked with the credentials of this process's own environment.
"""

import logging
import os
import tempfile
import time
import uuid
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optimizer_jobs.agent.environment import (
    BUNDLE_VARIABLE,
    THREADS_VARIABLE,
    buckets_allowed,
    leave_last_words,
    sentence_of,
    threads_of,
)
from optimizer_jobs.agent.opening import as_uri, fetched
from optimizer_jobs.data.volumes import file_digest
from optimizer_jobs.errors import JobError
from optimizer_jobs.models import protocol
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.engine import Array, EngineError, EngineOptions, Session
from optimizer_jobs.models.golden import OWN_IDS, Golden, GoldenRequest, check
from optimizer_jobs.models.onnx_file import check_onnx
from optimizer_jobs.models.protocol import InputError
from optimizer_jobs.models.runtime import open_model, open_session
from optimizer_jobs.signature import Signature, TensorSpec

if TYPE_CHECKING:
    from optimizer_jobs.production.writer import CaptureWriter, Destination

CAPTURE_VARIABLE = "CAPTURE_URI"
"""Environment variable with the folder for captured requests, such as pvc://CLAIM/captured."""
_VERSION_DIGITS = 12
_log = logging.getLogger(__name__)


class ServeError(RuntimeError):
    """A model cannot be served as it was judged; the message says why and what to do. The server must not get ready."""


class Served:
    """An open model. Safe to use from several threads; after a fork, open it anew."""

    def __init__(
        self, session: Session, *, digest: str, engine: EngineOptions, golden: Golden | None, where: str
    ) -> None:
        """Do not call this; see `open`. A file as delivered has no golden requests (None)."""
        self._session, self._digest, self._engine, self._golden = session, digest, engine, golden
        self._where = where
        self._writer: CaptureWriter | None = None

    @property
    def digest(self) -> str:
        """`sha256:...` of the bundle, or of the ONNX file where it is served as delivered."""
        return self._digest

    @property
    def bundle_digest(self) -> str | None:
        """`sha256:...` of the bundle, which belongs into every answer; None where a file is served as delivered."""
        return None if self._golden is None else self._digest

    @property
    def version(self) -> str:
        """The first 12 digits of the digest, for people and metrics."""
        return self._digest.removeprefix("sha256:")[:_VERSION_DIGITS]

    @property
    def engine(self) -> str:
        """Name of the engine, such as onnxruntime."""
        return self._engine.engine

    @property
    def signature(self) -> Signature:
        """Inputs and outputs of the model: name, element type and shape of each, with -1 for a free size."""
        return self._session.signature

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Array]:
        """Return the outputs of one request.

        Args:
            inputs: Values of every input by name, with the shapes of the signature. Numbers are converted to the
                model's element type where each of them has a place there.

        Raises:
            InputError: The inputs do not fit the model: the client's fault, status 400.
            EngineError: The model fails at what fits: the server's fault, status 500.
        """
        return self._run(protocol.fitted(inputs, self.signature))

    def answer(self, body: object, *, name: str = "model") -> dict[str, Any]:
        """Answer one inference request of the Open Inference Protocol v2, and capture it where `capture_to` was called.

        Args:
            body: The request's body, as parsed from JSON.
            name: The model's name in the answer.

        Returns:
            The answer, to be written as JSON. It names the bundle in `parameters.bundle_digest`.

        Raises:
            InputError: The body does not fit the model: the client's fault, status 400.
            EngineError: The model fails at what fits, or gives numbers that JSON cannot write: status 500.
        """
        came, inputs = time.time(), protocol.inputs_of(body, self.signature)
        request_id = _id_of(body) or str(uuid.uuid4())
        outputs = self._run(inputs)
        written = protocol.outputs_as_json(outputs, self.signature)
        self.capture(inputs, outputs, request_id=request_id, came=came)
        named = {"parameters": self.parameters} if self.parameters else {}
        return {"model_name": name, "model_version": self.version, "id": request_id, **named, "outputs": written}

    @property
    def parameters(self) -> dict[str, str]:
        """What every answer has under `parameters`, so that Retune can prove what serves; nothing for a file."""
        return {} if self.bundle_digest is None else {"bundle_digest": self.bundle_digest}

    def metadata(self, name: str = "model") -> dict[str, Any]:
        """Return the model's metadata of the Open Inference Protocol v2."""
        sides: dict[str, tuple[TensorSpec, ...]] = {"inputs": self.signature.inputs, "outputs": self.signature.outputs}
        tensors = {side: [protocol.metadata(spec) for spec in specs] for side, specs in sides.items()}
        return {"name": name, "versions": [self.version], "platform": self.engine, **tensors}

    def check_golden(self) -> int:
        """Ask the bundle's golden requests as a client would, and return how many there are; none for a file.

        Raises:
            ServeError: An answer differs from the recorded one: this machine does not run the bundle as it was judged.
        """
        recorded = self._golden or Golden()
        for number, request in enumerate(recorded.requests, start=1):
            why = self._unlike(request, recorded)
            if why is not None:
                raise ServeError(
                    f"{self._where}: golden request {number}: {why}; this machine does not run the bundle as it was "
                    "judged. Serve it on the judged hardware class, or search again there."
                )
        return len(recorded.requests)

    def capture_to(self, uri: str | Path) -> None:
        """Capture what `answer` answers from now on, for monitoring, as Parquet files in the folder at `uri`.

        It lies on a volume or, with the extra `remote`, in a bucket. One thread writes them in the background; requests
        are never slowed down, and dropped where they come too fast. A model with an element type that Parquet does not
        have is served without being captured.

        Raises:
            ServeError: The URI is malformed, or the extra `capture` is not installed.
        """
        try:
            from optimizer_jobs.production.writer import CaptureWriter

            writer = CaptureWriter(_destination(as_uri(uri)), self.signature)
        except ImportError as error:
            raise ServeError(f"{uri}: {error.name} is missing. Install retune-runtime[capture].") from error
        except JobError as error:
            raise ServeError(str(error)) from error
        except ValueError as error:
            _log.warning("nothing is captured: %s", error)
            return
        self.close()
        self._writer = writer
        weakref.finalize(self, writer.close)  # also when the process ends

    def capture(
        self,
        inputs: Mapping[str, Array],
        outputs: Mapping[str, Array],
        *,
        request_id: str | None = None,
        came: float | None = None,
    ) -> bool:
        """Capture one request; only who calls `run` needs this. Returns at once.

        Args:
            inputs: What `run` was asked, with the model's element types; must not be changed afterwards.
            outputs: What `run` returned; must not be changed afterwards.
            request_id: The request's id, which labels will name; a new one by default. Retune's own are not captured.
            came: When the request came, in seconds since 1970; now by default.

        Returns:
            Whether it will be written; False also where `capture_to` was not called.
        """
        if self._writer is None or request_id in OWN_IDS:
            return False
        moment = time.time() if came is None else came
        return self._writer.offer(request_id or str(uuid.uuid4()), self._digest, inputs, outputs, moment)

    def close(self) -> None:
        """Write what was captured and is in no file yet; the model still answers.

        Call this when the server ends. It also happens when Python ends by itself, but several servers, uvicorn among
        them, end by their signal.
        """
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _run(self, inputs: dict[str, Array]) -> dict[str, Array]:
        try:
            return self._session.run(inputs)
        except EngineError as error:
            if protocol.same_rows(inputs, self.signature):
                raise
            raise InputError("The inputs do not have the same number of rows, at least one.") from error

    def _unlike(self, request: GoldenRequest, recorded: Golden) -> str | None:
        """Return how the answer to a golden request differs, or None."""
        try:
            return check(self.answer(request.body()), request, golden=recorded)
        except (InputError, EngineError) as error:
            return str(error)


def open(uri: str | Path, threads: int | None = None) -> Served:  # noqa: A001 - read as retune_runtime.open
    """Open a bundle, or an ONNX file as it was delivered. Golden requests are not asked yet, see `Served.check_golden`.

    A bundle is copied into a private folder first, so that the files that are verified are the files that are served.
    From a bucket it is downloaded; with RETUNE_BUNDLE_CACHE, a folder, only where it is not there yet.

    Args:
        uri: pvc://CLAIM/PATH, which is below /mnt/pvc/CLAIM as in Retune's Jobs; s3://BUCKET/PATH; gs://BUCKET/PATH;
            az://CONTAINER/PATH; file:///PATH; or a path. It leads to the folder of a bundle, to an ONNX file, or on a
            volume to a folder with one. A bundle must have the digest that the last part of the URI names.
        threads: Most threads that the engine uses; None keeps those that the bundle was judged with, and 1 for a file.

    Raises:
        ServeError: There is nothing, it is damaged, the bucket cannot be read, or no engine can open it here.
    """
    where = as_uri(uri)
    try:
        with tempfile.TemporaryDirectory(prefix="bundle-", ignore_cleanup_errors=True) as private:
            return _served(fetched(where, into=Path(private)), where, threads=threads)  # the copy goes with the folder
    except JobError as error:
        raise ServeError(sentence_of(error)) from error
    except (EngineError, OSError) as error:
        raise ServeError(f"{where}: {error}") from error


def from_environment(*, delivered: str | Path | None = None) -> Served:
    """Open what the environment names, and ask it its golden requests: what this returns may get ready at once.

    MODEL_URI is the bundle, which Retune owns. CPU_LIMIT, where it is set, limits threads. Where CAPTURE_URI is set,
    answers are captured there. The reason of a failure is also left in the container's termination message.

    Args:
        delivered: URI or path of the ONNX file that is served while MODEL_URI is not set.

    Raises:
        ServeError: What is named cannot be proved to be the bundle, or nothing is named.
    """
    try:
        return _from_environment(delivered)
    except ServeError as error:
        leave_last_words(str(error))
        raise


def _from_environment(delivered: str | Path | None) -> Served:
    uri = os.environ.get(BUNDLE_VARIABLE) or delivered
    if not uri:
        raise ServeError(f"{BUNDLE_VARIABLE} is not set, and no file is named that is served meanwhile.")
    try:
        served = open(uri, threads=threads_of(os.environ))
    except JobError as error:
        raise ServeError(str(error)) from error
    served.check_golden()
    if folder := os.environ.get(CAPTURE_VARIABLE):
        served.capture_to(folder)
    return served


def _served(found: Bundle | Path, uri: str, *, threads: int | None) -> Served:
    if isinstance(found, Bundle):
        session = open_session(found, threads_limit=threads)
        return Served(session, digest=found.digest, engine=found.manifest.engine, golden=found.golden, where=uri)
    check_onnx(found, uri=uri)
    options = EngineOptions(threads=threads or 1)
    return Served(open_model(found, options), digest=file_digest(found), engine=options, golden=None, where=uri)


def _destination(uri: str) -> "Path | Destination":
    """Return where captured requests go; raises JobError."""
    from optimizer_jobs.production.destinations import destination

    with buckets_allowed():
        place = destination(uri)
    return place if isinstance(place, Path) else _OwnAddresses(place)


class _OwnAddresses:
    """A bucket that may be at a private address, as `_buckets_allowed` says."""

    def __init__(self, place: "Destination") -> None:
        self._place = place

    def put(self, folder: str, name: str, content: bytes) -> None:
        with buckets_allowed():
            self._place.put(folder, name, content)


def _id_of(body: object) -> str | None:
    identity = body.get("id") if isinstance(body, dict) else None
    return identity if isinstance(identity, str) else None


__all__ = [
    "BUNDLE_VARIABLE",
    "CAPTURE_VARIABLE",
    "THREADS_VARIABLE",
    "EngineError",
    "InputError",
    "ServeError",
    "Served",
    "Signature",
    "TensorSpec",
    "from_environment",
    "open",
]

if __name__ == "__main__":
    from optimizer_jobs.agent.command import main

    raise SystemExit(main())
