"""Read the events of an inference logger: CloudEvents with bodies of the Open Inference Protocol, version 2 or 1.

Pure. An event that does not fit the model is refused with a sentence. Only one thing is guessed: which of the model's
outputs an answer of version 1 holds, because version 1 does not name it.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.signature import TEXT, Signature, TensorSpec

Array = NDArray[Any]

REQUEST_TYPE = "org.kubeflow.serving.inference.request"
RESPONSE_TYPE = "org.kubeflow.serving.inference.response"
STRUCTURED = "application/cloudevents+json"

_ID_LIMIT = 256
_NUMBERS_LIMIT = 16 << 20
"""Most numbers in one answer, including outputs that are filled with NaN."""


class UnfitEventError(ValueError):
    """The event cannot be captured; the message is a sentence."""


@dataclass(frozen=True)
class Event:
    """A request or a response."""

    id: str
    """The same for a request and its response."""
    kind: Literal["request", "response"]
    time: float | None
    """When it happened, in seconds since 1970; None when the event does not say."""
    body: Mapping[str, Any]

    @property
    def request_id(self) -> str:
        """The id that labels refer to: that of the protocol's body, or else the event's."""
        body_id = self.body.get("id")
        return body_id if isinstance(body_id, str) and 0 < len(body_id) <= _ID_LIMIT else self.id

    @property
    def model(self) -> str | None:
        """Digest of the bundle that answered, or None when the response does not name it."""
        parameters = self.body.get("parameters")
        digest = parameters.get("bundle_digest") if isinstance(parameters, dict) else None
        return digest if isinstance(digest, str) and digest.startswith("sha256:") and len(digest) == 71 else None


def parse(headers: Mapping[str, str], payload: bytes) -> Event:
    """Return the event in an HTTP request, in CloudEvents' binary or structured mode.

    Args:
        headers: Headers by lower-case name.
        payload: The body.

    Raises:
        UnfitEventError: The request is no event of an inference logger.
    """
    structured = headers.get("content-type", "").startswith(STRUCTURED)
    attributes = {name[3:]: value for name, value in headers.items() if name.startswith("ce-")}
    envelope = _object(payload) if structured else attributes
    body = _data(envelope) if structured else _object(payload)
    kinds: dict[Any, Literal["request", "response"]] = {REQUEST_TYPE: "request", RESPONSE_TYPE: "response"}
    kind, identity = kinds.get(envelope.get("type")), envelope.get("id")
    if kind is None:
        raise UnfitEventError(f"the event's type is neither {REQUEST_TYPE} nor {RESPONSE_TYPE}.")
    if not isinstance(identity, str) or not 0 < len(identity) <= _ID_LIMIT:
        raise UnfitEventError("the event has no id, or one that is too long.")
    return Event(id=identity, kind=kind, time=_time(envelope.get("time")), body=body)


def tensors(event: Event, signature: Signature) -> dict[str, Array]:
    """Return a request's inputs or a response's outputs by name, with shape (N, ...); raises UnfitEventError."""
    try:
        values = _inputs(event.body, signature) if event.kind == "request" else _outputs(event.body, signature)
    except UnfitEventError:
        raise
    except (TypeError, ValueError, OverflowError, KeyError) as error:
        raise UnfitEventError(f"the tensors of the {event.kind} do not fit the model.") from error
    if values is None:
        raise UnfitEventError(f"the {event.kind} is of neither version 2 nor version 1 of the protocol.")
    return values


def _inputs(body: Mapping[str, Any], signature: Signature) -> dict[str, Array] | None:
    named, rows = body.get("inputs"), body.get("instances")
    if isinstance(named, list):
        return _version_2(named, signature.inputs)
    return _version_1_inputs(rows, signature.inputs) if isinstance(rows, list) and rows else None


def _outputs(body: Mapping[str, Any], signature: Signature) -> dict[str, Array] | None:
    named, rows = body.get("outputs"), body.get("predictions")
    if isinstance(named, list):
        return _version_2(named, signature.outputs)
    return _version_1_outputs(rows, signature.outputs) if isinstance(rows, list) and rows else None


def _version_2(named: list[Any], specs: tuple[TensorSpec, ...]) -> dict[str, Array]:
    by_name = {tensor["name"]: tensor for tensor in named if isinstance(tensor, dict)}
    values = {}
    for spec in specs:
        tensor = by_name.get(spec.name, {})
        if "data" not in tensor:
            raise UnfitEventError(f"tensor {spec.name!r} is missing, or sent apart from its JSON.")
        values[spec.name] = _array(tensor["data"], spec).reshape(tensor["shape"])
    return values


def _version_1_inputs(rows: list[Any], specs: tuple[TensorSpec, ...]) -> dict[str, Array]:
    if all(isinstance(row, dict) for row in rows):
        return {spec.name: _rows([row[spec.name] for row in rows], spec) for spec in specs}
    if len(specs) != 1:
        raise UnfitEventError("instances without names fit a model of one input only.")
    return {specs[0].name: _rows(rows, specs[0])}


def _version_1_outputs(rows: list[Any], specs: tuple[TensorSpec, ...]) -> dict[str, Array]:
    """Return the outputs; float outputs that the answer leaves out are filled with NaN."""
    if all(isinstance(row, dict) for row in rows):
        return {spec.name: _rows([row[spec.name] for row in rows], spec) for spec in specs}
    values = np.asarray(rows)
    answered = next((spec for spec in specs if _fits(values, spec)), None)
    if answered is None or any(not spec.is_float for spec in specs if spec is not answered):
        raise UnfitEventError("the predictions are none of the model's outputs, or leave out more than scores.")
    if len(rows) * sum(spec.row_size for spec in specs) > _NUMBERS_LIMIT:
        raise UnfitEventError("there are too many predictions.")
    missing = {spec.name: np.full(_target(len(rows), spec), np.nan, spec.dtype) for spec in specs if spec.is_float}
    return missing | {answered.name: _rows(rows, answered)}


def _fits(values: Array, spec: TensorSpec) -> bool:
    kinds = "U" if spec.dtype == TEXT else "if" if spec.is_float else "ib"
    size = values.size // max(len(values), 1)
    return values.dtype.kind in kinds and (size == spec.row_size or -1 in spec.shape[1:])


def _rows(rows: list[Any], spec: TensorSpec) -> Array:
    values = _array(rows, spec)
    return values.reshape(_target(len(rows), spec)) if -1 not in spec.shape[1:] else values


def _target(rows: int, spec: TensorSpec) -> tuple[int, ...]:
    return (rows, *(max(size, 1) for size in spec.shape[1:]))


def _array(data: Any, spec: TensorSpec) -> Array:
    return np.asarray(data, dtype=object if spec.dtype == TEXT else spec.dtype)


def _object(payload: bytes | str) -> dict[str, Any]:
    try:
        content = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise UnfitEventError("the body is not JSON.") from error
    if not isinstance(content, dict):
        raise UnfitEventError("the body is no JSON object.")
    return content


def _data(envelope: Mapping[str, Any]) -> dict[str, Any]:
    data, encoded = envelope.get("data"), envelope.get("data_base64")
    if isinstance(data, dict):
        return data
    try:
        return _object(base64.b64decode(encoded, validate=True) if isinstance(encoded, str) else str(data))
    except binascii.Error as error:
        raise UnfitEventError("data_base64 is not what its name says.") from error


def _time(text: Any) -> float | None:
    try:
        return datetime.fromisoformat(str(text)).timestamp() if text else None
    except (ValueError, OverflowError):
        return None
