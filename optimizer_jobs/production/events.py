"""Read what an inference logger sends: CloudEvents with the bodies of the Open Inference Protocol, version 2 or 1.

Pure. Whatever does not fit the model is refused with words; nothing is guessed but which output an answer of version 1
is, because that version does not say.
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
"""Numbers that an answer is filled up to at most."""


class UnfitEventError(ValueError):
    """The event cannot be captured; the message is a sentence."""


@dataclass(frozen=True)
class Event:
    """One half of an inference."""

    id: str
    """Pairs a request with its response."""
    kind: Literal["request", "response"]
    time: float | None
    """When it happened, in seconds since 1970; None where it does not say."""
    body: Mapping[str, Any]

    @property
    def request_id(self) -> str:
        """The id that labels know: the protocol's own, else the event's."""
        own = self.body.get("id")
        return own if isinstance(own, str) and 0 < len(own) <= _ID_LIMIT else self.id

    @property
    def model(self) -> str | None:
        """The bundle that answered, where a response says so."""
        parameters = self.body.get("parameters")
        digest = parameters.get("bundle_digest") if isinstance(parameters, dict) else None
        return digest if isinstance(digest, str) and digest.startswith("sha256:") and len(digest) == 71 else None


def parse(headers: Mapping[str, str], payload: bytes) -> Event:
    """Return the event in an HTTP request, in binary or structured mode; raises UnfitEventError.

    Args:
        headers: By lower-case name.
        payload: The body.
    """
    structured = headers.get("content-type", "").startswith(STRUCTURED)
    envelope = _object(payload) if structured else {k[3:]: v for k, v in headers.items() if k.startswith("ce-")}
    body = _data(envelope) if structured else _object(payload)
    kinds: dict[Any, Literal["request", "response"]] = {REQUEST_TYPE: "request", RESPONSE_TYPE: "response"}
    kind, identity = kinds.get(envelope.get("type")), envelope.get("id")
    if kind is None:
        raise UnfitEventError(f"the event's type is neither {REQUEST_TYPE} nor {RESPONSE_TYPE}.")
    if not isinstance(identity, str) or not 0 < len(identity) <= _ID_LIMIT:
        raise UnfitEventError("the event has no id, or one that is too long.")
    return Event(id=identity, kind=kind, time=_time(envelope.get("time")), body=body)


def tensors(event: Event, signature: Signature) -> dict[str, Array]:
    """Return a request's inputs or a response's outputs by name, each (N, ...); raises UnfitEventError."""
    request = event.kind == "request"
    named, rows = (
        event.body.get("inputs" if request else "outputs"),
        event.body.get("instances" if request else "predictions"),
    )
    specs = signature.inputs if request else signature.outputs
    try:
        if isinstance(named, list):
            return _second(named, specs)
        if isinstance(rows, list) and rows:
            return _first_in(rows, specs) if request else _first_out(rows, specs)
    except (TypeError, ValueError, OverflowError, KeyError) as error:
        if isinstance(error, UnfitEventError):
            raise
        raise UnfitEventError(f"the tensors of the {event.kind} do not fit the model.") from error
    raise UnfitEventError(f"the {event.kind} is of neither version 2 nor version 1 of the protocol.")


def _second(named: list[Any], specs: tuple[TensorSpec, ...]) -> dict[str, Array]:
    given = {each["name"]: each for each in named if isinstance(each, dict)}
    found = {}
    for spec in specs:
        if spec.name not in given or "data" not in given[spec.name]:
            raise UnfitEventError(f"tensor {spec.name!r} is missing, or sent apart from its JSON.")
        found[spec.name] = _array(given[spec.name]["data"], spec).reshape(given[spec.name]["shape"])
    return found


def _first_in(rows: list[Any], specs: tuple[TensorSpec, ...]) -> dict[str, Array]:
    if all(isinstance(row, dict) for row in rows):
        return {spec.name: _rows([row[spec.name] for row in rows], spec) for spec in specs}
    if len(specs) != 1:
        raise UnfitEventError("instances without names fit a model of one input only.")
    return {specs[0].name: _rows(rows, specs[0])}


def _first_out(rows: list[Any], specs: tuple[TensorSpec, ...]) -> dict[str, Array]:
    """Return the outputs; floats that an answer leaves out are no values (NaN)."""
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
        found = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise UnfitEventError("the body is not JSON.") from error
    if not isinstance(found, dict):
        raise UnfitEventError("the body is no JSON object.")
    return found


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
