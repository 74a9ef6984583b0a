"""Check an ONNX file as hostile input before anything else uses it.

External data may lie only beside the file, as a plain regular file that nothing else links to; operators come only
from the sets that ONNX Runtime has built in. No custom-op library is ever loaded.
"""

import stat
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, Message
from onnx import ModelProto, NodeProto, TensorProto

from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.models.bundle import GOLDEN, MANIFEST, MODEL, NATIVE
from optimizer_jobs.models.engine import EngineError, EngineOptions, UnsupportedModelError
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.signature import Signature
from retune.contract.results import Reason

MODEL_LIMIT_BYTES = (2 << 30) - 1
"""Bytes an ONNX file may have, without its external data: what protobuf can parse."""

_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"}
"""Operator sets built into ONNX Runtime."""

_LOADERS = {"EPContext"}
"""Built-in operators that read further files."""


class _InvalidError(ValueError):
    """What is wrong with a model and what to do, as two sentences."""

    def __init__(self, message: str, next_step: str) -> None:
        super().__init__(message)
        self.next_step = next_step


_EXPORT = "Export the model again and check it with onnx.checker."
_BESIDE = "Save external data as a plain file beside the model, named without a folder."


def check_onnx(path: Path, *, uri: str | None = None) -> Signature:
    """Return the signature of the ONNX file at `path` after checking it and opening it in ONNX Runtime.

    `uri` is the name people know the file by.

    Raises:
        JobError: ModelTooLarge, or ModelInvalid naming what is wrong.
    """
    where = uri or path.name
    size = path.stat().st_size
    if size > MODEL_LIMIT_BYTES:
        raise JobError(
            Reason.MODEL_TOO_LARGE,
            where,
            f"the file has {size} bytes; an ONNX file has at most {MODEL_LIMIT_BYTES}.",
            "Save the weights as external data beside the file.",
        )
    try:
        model = _parse(path)
        _check_external(model, path.parent)
        _check_operators(model)
        _check_form(path)
        return _open(path)
    except _InvalidError as error:
        raise JobError(Reason.MODEL_INVALID, where, str(error), error.next_step) from error


def external_files(path: Path, *, uri: str | None = None) -> tuple[str, ...]:
    """Return the names of the external data files that the ONNX file at `path` wants beside it, sorted.

    Raises:
        JobError: ModelInvalid when the file cannot be parsed or names a place other than its own folder.
    """
    try:
        return tuple(sorted({_external_name(tensor) for tensor in _external(_parse(path))}))
    except _InvalidError as error:
        raise JobError(Reason.MODEL_INVALID, uri or path.name, str(error), error.next_step) from error


def _parse(path: Path) -> ModelProto:
    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except DecodeError as error:
        raise _InvalidError("this is not an ONNX file, or it is truncated.", _EXPORT) from error
    if not model.graph.node or not model.opset_import:
        raise _InvalidError("this is not an ONNX file, or its graph is empty.", _EXPORT)
    return model


def _parts(message: Message) -> Iterator[Message]:
    """Yield `message` and every message inside it, at any depth; tensors are not looked into."""
    stack = [message]
    while stack:
        item = stack.pop()
        yield item
        if isinstance(item, TensorProto):
            continue
        for field, value in item.ListFields():
            if field.message_type is not None:
                stack.extend([value] if isinstance(value, Message) else value)


def _external(model: ModelProto) -> Iterator[TensorProto]:
    for part in _parts(model):
        if isinstance(part, TensorProto) and (part.data_location == TensorProto.EXTERNAL or part.external_data):
            yield part


def _external_name(tensor: TensorProto) -> str:
    """Return the file a tensor's data lies in; only a plain name is allowed, never a path."""
    name = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    if name in {MANIFEST, MODEL, GOLDEN} or Path(name).stem == NATIVE:
        raise _InvalidError(f"tensor {tensor.name!r} has its data in {name!r}, a name that bundles use.", _BESIDE)
    if not name.isprintable() or name in {"", ".", ".."} or "/" in name or "\\" in name:
        raise _InvalidError(f"tensor {tensor.name!r} has its data outside the model's folder, at {name!r}.", _BESIDE)
    return name


def _check_external(model: ModelProto, folder: Path) -> None:
    for tensor in _external(model):
        path = folder / _external_name(tensor)
        try:
            info = path.lstat()
        except FileNotFoundError as error:
            raise _InvalidError(
                f"tensor {tensor.name!r} has its data in {path.name!r}, which is missing.", _BESIDE
            ) from error
        if not stat.S_ISREG(info.st_mode) or info.st_nlink != 1:
            kind = "a symbolic link" if path.is_symlink() else "not a plain file with one link"
            raise _InvalidError(f"tensor {tensor.name!r} has its data in {path.name!r}, which is {kind}.", _BESIDE)


def _check_operators(model: ModelProto) -> None:
    """Refuse operators of foreign sets, unless the model itself defines them as functions."""
    local = {(function.domain, function.name) for function in model.functions}
    for part in _parts(model):
        if not isinstance(part, NodeProto) or (part.domain, part.op_type) in local:
            continue
        if part.domain not in _DOMAINS or part.op_type in _LOADERS:
            raise _InvalidError(
                f"node {part.name!r} uses operator {part.domain}:{part.op_type}, which is not built into ONNX Runtime.",
                "Export the model with standard operators; custom operators are never loaded.",
            )


def _check_form(path: Path) -> None:
    try:
        onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise _InvalidError(f"onnx.checker refuses it: {printable(str(error), limit=300)}.", _EXPORT) from error


def _open(path: Path) -> Signature:
    """Open the model as it will be served, to see that the engine can and what goes in and out."""
    try:
        return open_model(path, EngineOptions(spinning=False)).signature
    except UnsupportedModelError as error:
        raise _InvalidError(f"{error}.", "Export tensors only; for scikit-learn, convert with zipmap=False.") from error
    except EngineError as error:
        raise _InvalidError(f"ONNX Runtime cannot open it: {printable(str(error), limit=300)}.", _EXPORT) from error
