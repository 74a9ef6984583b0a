"""Read the events of an inference logger: CloudEvents, in either mode, with bodies of the inference protocol. Pure."""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from optimizer_jobs.production.protocol import ID_LIMIT, Array, Body, Kind, UnfitEventError, json_object, parse_body
from optimizer_jobs.production.protocol import tensors as tensors_of
from optimizer_jobs.signature import Signature

REQUEST_TYPE = "org.kubeflow.serving.inference.request"
RESPONSE_TYPE = "org.kubeflow.serving.inference.response"
KINDS: dict[Any, Kind] = {REQUEST_TYPE: "request", RESPONSE_TYPE: "response"}
STRUCTURED = "application/cloudevents+json"

_ANNOTATIONS_LIMIT = 1 << 16
_DIGEST = re.compile(r"/([0-9a-f]{64})(?:/|$)")


@dataclass(frozen=True)
class Event:
    """A request or a response."""

    id: str
    """The same for a request and its response."""
    kind: Kind
    time: float | None
    """When it happened, in seconds since 1970; None when the event does not say."""
    body: Body
    served: str | None = None
    """Digest of the bundle that the answering pod was given, or None when the event does not name it."""

    @property
    def request_id(self) -> str:
        """The id that labels refer to: that of the protocol's body, or else the event's."""
        return self.body.id or self.id

    @property
    def model(self) -> str | None:
        """Digest of the bundle that answered, or None when neither the response nor the event names it."""
        return self.body.bundle or self.served


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
    envelope = json_object(payload) if structured else attributes
    kind, identity = KINDS.get(str(envelope.get("type"))), envelope.get("id")
    if kind is None:
        raise UnfitEventError(f"the event's type is neither {REQUEST_TYPE} nor {RESPONSE_TYPE}.")
    if not isinstance(identity, str) or not 0 < len(identity) <= ID_LIMIT:
        raise UnfitEventError("the event has no id, or one that is too long.")
    body = _data(envelope) if structured else parse_body(payload)
    moment, served = time_of(envelope.get("time")), served_bundle(envelope.get("annotations"))
    return Event(id=identity, kind=kind, time=moment, body=body, served=served)


def tensors(event: Event, signature: Signature) -> dict[str, Array]:
    """Return a request's inputs or a response's outputs by name, with shape (N, ...); raises UnfitEventError."""
    return tensors_of(event.body, event.kind, signature)


def served_bundle(annotations: Any) -> str | None:
    """Return the digest of the bundle that an InferenceService's annotations name, or None where none does.

    KServe's logger passes those of `logger.metadataAnnotations` on. One of them holds the pod's storageUri, and a
    bundle's URI ends with its digest.

    Args:
        annotations: By name, or the same as JSON.
    """
    if isinstance(annotations, str) and len(annotations) <= _ANNOTATIONS_LIMIT:
        try:
            annotations = json.loads(annotations)
        except (ValueError, RecursionError):
            return None
    values = annotations.values() if isinstance(annotations, dict) else ()
    found = [digest for value in values if isinstance(value, str) for digest in _DIGEST.findall(value)]
    return f"sha256:{found[-1]}" if found else None


def time_of(text: Any) -> float | None:
    """Return a moment in seconds since 1970; None where the text is none, or Go's for a time that is not known."""
    try:
        seconds = datetime.fromisoformat(str(text)).timestamp() if text else 0.0
    except (ValueError, OverflowError):
        return None
    return seconds if seconds > 0 else None


def _data(envelope: Mapping[str, Any]) -> Body:
    data, encoded = envelope.get("data"), envelope.get("data_base64")
    if isinstance(data, dict):
        return Body(data)
    try:
        return parse_body(base64.b64decode(encoded, validate=True) if isinstance(encoded, str) else str(data).encode())
    except binascii.Error as error:
        raise UnfitEventError("data_base64 is not what its name says.") from error
