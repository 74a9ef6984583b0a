"""A model behind a running server, asked as if it were open here, by the Open Inference Protocol v2.

Tensors are binary, which every element type has, and which costs client and server least.
"""

import http.client
import json
import threading
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from optimizer_jobs.errors import printable
from optimizer_jobs.models.engine import Array, EngineError
from optimizer_jobs.models.golden import DATATYPES
from optimizer_jobs.serving.running.web import (
    SHOWN,
    Answer,
    SilentServerError,
    Web,
    bounded,
    connected,
    silence,
)
from optimizer_jobs.serving.tensors import as_bytes, from_bytes
from optimizer_jobs.signature import Signature, TensorSpec

HEAD = "Inference-Header-Content-Length"
"""Header with the length of the JSON before the tensors of a request or an answer."""
_BROKEN = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError)
"""What becomes of a connection that the server has closed since it was used last."""


class ServedSession:
    """A `Session`: every call is one request over a connection that stays open, one a thread."""

    def __init__(
        self, web: Web, endpoint: str, signature: Signature, *, seconds: float, number: tuple[int, ...] = (1,)
    ) -> None:
        """Know a model, without asking it anything.

        Args:
            web: The server.
            endpoint: URL of the model, without `/infer`.
            signature: Inputs and outputs of its bundle.
            seconds: Longest time of one answer.
            number: The shape that a single number has for the server; for Triton, it is a list of one.
        """
        self.signature = signature
        self._web, self._path, self._seconds = web, f"{urlsplit(endpoint).path}/infer", seconds
        self._outputs = [{"name": spec.name, "parameters": {"binary_data": True}} for spec in signature.outputs]
        self._number = number
        self._own = threading.local()
        self._opened: list[http.client.HTTPConnection] = []

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the server's answer to one batch; see `Session`.

        Raises:
            EngineError: The server refuses the request, in its own words, or does not answer by the protocol.
            JobError: ServerUnreachable.
        """
        tensors = [as_bytes(inputs[spec.name], spec.dtype) for spec in self.signature.inputs]
        described = [
            self._described(spec, inputs[spec.name].shape, len(tensor))
            for spec, tensor in zip(self.signature.inputs, tensors, strict=True)
        ]
        head = json.dumps({"inputs": described, "outputs": self._outputs}).encode()
        answer, length = self._asked(b"".join((head, *tensors)), len(head))
        if not answer.is_good:
            raise EngineError(answer.words)
        try:
            return self._outputs_of(answer.content, length)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            shown = printable(repr(error), limit=SHOWN)
            raise EngineError(f"its answer is not one of the Open Inference Protocol v2 ({shown})") from error

    def close(self) -> None:
        """Close the connections of all threads; a later call opens its own again."""
        for connection in self._opened:
            connection.close()

    def _described(self, spec: TensorSpec, shape: tuple[int, ...], size: int) -> dict[str, Any]:
        return {
            "name": spec.name,
            "shape": list(shape or self._number),
            "datatype": DATATYPES[spec.dtype],
            "parameters": {"binary_data_size": size},
        }

    def _asked(self, body: bytes, head: int) -> tuple[Answer, int]:
        """Return the answer, and the length of its JSON; 0 where all of it is JSON."""
        headers = {"Content-Type": "application/octet-stream", HEAD: str(head)}
        try:
            connection, was_open = self._connection()
            try:
                return self._sent(connection, body, headers)
            except _BROKEN:
                connection.close()
                if not was_open:
                    raise
                return self._sent(connection, body, headers)
        except (SilentServerError, OSError, http.client.HTTPException) as error:
            self.close()
            raise self._web.unreachable(silence(error)) from error

    def _sent(
        self, connection: http.client.HTTPConnection, body: bytes, headers: Mapping[str, str]
    ) -> tuple[Answer, int]:
        connection.request("POST", self._path, body=body, headers=dict(headers))
        with connection.getresponse() as response:
            content = bounded(response, seconds=self._seconds)
            return Answer(response.status, content), int(response.headers.get(HEAD) or 0)

    def _connection(self) -> tuple[http.client.HTTPConnection, bool]:
        """Return this thread's connection, and whether it was open before."""
        connection = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = connected(self._web.address, seconds=self._seconds)
            self._opened.append(connection)
        return connection, connection.sock is not None

    def _outputs_of(self, content: bytes, head: int) -> dict[str, Array]:
        """Return the outputs of an answer, by name; raises ValueError, KeyError or TypeError where it is none."""
        document, binary = json.loads(content[:head] if head else content), memoryview(content)[head or len(content) :]
        found = {}
        for output in document["outputs"]:
            size = (output.get("parameters") or {}).get("binary_data_size")
            found[output["name"]] = (output, None if size is None else binary[:size])
            binary = binary[size or 0 :]
        return {spec.name: _values(spec, *found[spec.name]) for spec in self.signature.outputs}


def _values(spec: TensorSpec, output: Mapping[str, Any], binary: memoryview | None) -> Array:
    """Return an output in the shape that the server tells; a single number, which it has as a list of one, as such."""
    if binary is None:
        flat = np.asarray(output["data"], object if spec.dtype == "str" else spec.dtype)
    else:
        flat = from_bytes(bytes(binary), spec.dtype)
    return flat.reshape(output["shape"] if spec.shape else ())
