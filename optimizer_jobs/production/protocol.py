"""Bodies that clients and model servers exchange: the Open Inference Protocol, version 2, and KServe's version 1.

Version 2 has its tensors in JSON, or as bytes that follow it. Pure; what is read is hostile input, and what does not
fit the model is refused with a sentence. Only one thing is guessed: which of the model's outputs an answer of version 1
holds, because version 1 does not name it.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.models.golden import DATATYPES, OWN_IDS
from optimizer_jobs.production.columns import TEXT_LIMIT
from optimizer_jobs.signature import TEXT, Signature, TensorSpec

Array = NDArray[Any]
Kind = Literal["request", "response"]

BODY_BYTES = 16 << 20
"""Largest size of one body, as it is sent and unpacked."""

ID_LIMIT = 256
"""Most characters of an id."""

_NUMBERS_LIMIT = 16 << 20
"""Most numbers in one answer, including outputs that are filled with NaN."""

_TYPES = {word: name for name, word in DATATYPES.items()}
_LENGTH_BYTES = 4
"""Bytes that say how long the text after them is."""
_GZIP = b"\x1f\x8b"


class UnfitEventError(ValueError):
    """A request or response cannot be captured; the message is a sentence."""


class UnreadableBodyError(UnfitEventError):
    """A body is none of the protocol; the message is a sentence."""


@dataclass(frozen=True)
class Body:
    """The body of a request or of a response."""

    content: Mapping[str, Any]
    """The JSON object."""
    binary: bytes = b""
    """What follows it."""

    @property
    def id(self) -> str | None:
        """The id that the client gave its request, which a server repeats; None where there is none."""
        given = self.content.get("id")
        return given if isinstance(given, str) and 0 < len(given) <= ID_LIMIT else None

    @property
    def is_own(self) -> bool:
        """Whether Retune asked this, and no user."""
        return self.content.get("id") in OWN_IDS if isinstance(self.content.get("id"), str) else False

    @property
    def bundle(self) -> str | None:
        """Digest of the bundle that answered, or None when the response does not name it."""
        parameters = self.content.get("parameters")
        digest = parameters.get("bundle_digest") if isinstance(parameters, dict) else None
        return digest if isinstance(digest, str) and digest.startswith("sha256:") and len(digest) == 71 else None


def parse_body(payload: bytes) -> Body:
    """Return a body as it was sent, or as it was packed by gzip; raises UnreadableBodyError."""
    plain = _unpacked(payload)
    try:
        return Body(json_object(plain))
    except UnreadableBodyError:
        end = _end_of_json(plain)
        if not end:
            raise
    return Body(json_object(plain[:end]), plain[end:])


def json_object(payload: bytes | str) -> dict[str, Any]:
    """Return a JSON object; raises UnreadableBodyError."""
    try:
        content = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise UnreadableBodyError("the body is not JSON.") from error
    if not isinstance(content, dict):
        raise UnreadableBodyError("the body is no JSON object.")
    return content


def tensors(body: Body, kind: Kind, signature: Signature) -> dict[str, Array]:
    """Return a request's inputs or a response's outputs by name, with shape (N, ...).

    Raises:
        UnreadableBodyError: The body is of neither version of the protocol.
        UnfitEventError: It does not fit the model.
    """
    try:
        with np.errstate(all="ignore"):
            values = _inputs(body, signature) if kind == "request" else _outputs(body, signature)
    except UnfitEventError:
        raise
    except (TypeError, ValueError, OverflowError, KeyError, AttributeError) as error:
        raise UnfitEventError(f"the tensors of the {kind} do not fit the model.") from error
    if values is None:
        raise UnreadableBodyError(f"the {kind} is of neither version 2 nor version 1 of the protocol.")
    return values


def _inputs(body: Body, signature: Signature) -> dict[str, Array] | None:
    named, rows = body.content.get("inputs"), body.content.get("instances")
    if isinstance(named, list):
        return _version_2(named, body.binary, signature.inputs)
    return _version_1_inputs(rows, signature.inputs) if isinstance(rows, list) and rows else None


def _outputs(body: Body, signature: Signature) -> dict[str, Array] | None:
    named, rows = body.content.get("outputs"), body.content.get("predictions")
    if isinstance(named, list):
        return _version_2(named, body.binary, signature.outputs)
    return _version_1_outputs(rows, signature.outputs) if isinstance(rows, list) and rows else None


def _version_2(named: list[Any], binary: bytes, specs: tuple[TensorSpec, ...]) -> dict[str, Array]:
    by_name = {tensor["name"]: tensor for tensor in named if isinstance(tensor, dict)}
    parts = _parts(named, binary)
    values = {}
    for spec in specs:
        tensor = by_name.get(spec.name, {})
        if spec.name in parts:
            data: Any = _elements(parts[spec.name], tensor["datatype"])
        elif "data" in tensor:
            data = tensor["data"]
        else:
            raise UnfitEventError(f"tensor {spec.name!r} is missing, or sent apart from its JSON.")
        values[spec.name] = shaped(values_of(data, spec), tensor["shape"])
    return values


def _parts(named: list[Any], binary: bytes) -> dict[str, bytes]:
    """Return the bytes of each tensor that has its elements after the JSON."""
    parts, start = {}, 0
    for tensor in named:
        size = (tensor.get("parameters") or {}).get("binary_data_size")
        if size is None:
            continue
        if not isinstance(size, int) or not 0 <= size <= len(binary) - start:
            raise UnfitEventError("the bytes after the JSON end before those of its tensors.")
        parts[tensor["name"]] = binary[start : start + size]
        start += size
    if start != len(binary):
        raise UnfitEventError("there are more bytes after the JSON than its tensors have.")
    return parts


def _elements(content: bytes, datatype: str) -> Array:
    name = _TYPES[datatype]
    return np.frombuffer(content, np.dtype(name).newbyteorder("<")) if name != TEXT else _texts(content)


def _texts(content: bytes) -> Array:
    """Return texts that are each preceded by their length."""
    found, start = [], 0
    while start < len(content):
        begin = start + _LENGTH_BYTES
        start = begin + int.from_bytes(content[start:begin], "little")
        if start > len(content):
            raise UnfitEventError("a text ends after its tensor does.")
        found.append(content[begin:start].decode())
    return np.array(found, dtype=object)


def shaped(values: Array, shape: Any) -> Array:
    """Return values with the shape that a tensor says, which nobody has checked; raises ValueError or TypeError."""
    if not all(isinstance(size, int) and size > 0 for size in shape):
        raise UnfitEventError("a tensor has no values, or a shape that is none.")
    return values.reshape(shape)


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
    values = values_of(rows, spec)
    return values.reshape(_target(len(rows), spec)) if -1 not in spec.shape[1:] else values


def _target(rows: int, spec: TensorSpec) -> tuple[int, ...]:
    return (rows, *(max(size, 1) for size in spec.shape[1:]))


def values_of(data: Any, spec: TensorSpec) -> Array:
    """Return numbers or texts in the model's element type; raises ValueError or TypeError where it cannot hold them."""
    if spec.is_float:
        return np.asarray(data, dtype=spec.dtype)
    if spec.dtype == TEXT:
        words = np.asarray(data, dtype=object)
        if not all(isinstance(word, str) and len(word) <= TEXT_LIMIT for word in words.flat):
            raise UnfitEventError(f"tensor {spec.name!r} has something else than texts, or one that is too long.")
        return words
    given = np.asarray(data)
    values = given.astype(spec.dtype)
    if not np.array_equal(values, given):
        raise UnfitEventError(f"tensor {spec.name!r} has values that do not fit the model's {spec.dtype}.")
    return values


def _unpacked(payload: bytes) -> bytes:
    """Return a body without its gzip, where it has one; no more than a body may have."""
    if not payload.startswith(_GZIP):
        return payload
    unpacker = zlib.decompressobj(wbits=31)
    try:
        plain = unpacker.decompress(payload, BODY_BYTES)
    except zlib.error as error:
        raise UnreadableBodyError("the body begins as gzip does, and is none.") from error
    if not unpacker.eof:
        raise UnreadableBodyError("the body is too large once it is unpacked, or ends too early.")
    return plain


def _end_of_json(payload: bytes) -> int:
    """Return where the JSON that a body begins with ends, in bytes; 0 where there is none."""
    try:
        return json.JSONDecoder().raw_decode(payload.decode("latin-1"))[1]  # a character a byte
    except (ValueError, RecursionError):
        return 0
