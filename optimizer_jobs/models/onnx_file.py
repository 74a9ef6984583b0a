"""Check an ONNX file as hostile input before anything else uses it.

External data may lie only beside the file, as a plain regular file that nothing else links to; operators come only
from the sets that ONNX Runtime has built in. No custom-op library is ever loaded.
"""

import stat
from pathlib import Path

import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.models.engine import EngineError, EngineOptions, UnsupportedModelError
from optimizer_jobs.models.external import (
    BESIDE,
    EXPORT,
    InvalidOnnxError,
    external_name,
    external_tensors,
    parse,
    parts_of,
)
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.signature import Signature
from retune.contract.results import Reason

MODEL_LIMIT_BYTES = (2 << 30) - 1
"""Bytes an ONNX file may have, without its external data: what protobuf can parse."""

_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"}
"""Operator sets built into ONNX Runtime."""

_LOCALE = "its StringNormalizer asks for a locale that this image does not have; without the attribute, en_US.UTF-8."

_LOADERS = {"EPContext"}
"""Built-in operators that read further files."""


def check_onnx(path: Path, *, uri: str | None = None) -> Signature:
    """Check an ONNX file, open it in ONNX Runtime, and return its signature.

    Args:
        path: The ONNX file.
        uri: Name by which people know the file; the file's name by default.

    Raises:
        JobError: ModelTooLarge, or ModelInvalid naming what is wrong.
    """
    where = uri or path.name
    _check_size(path.stat().st_size, where)
    try:
        model = parse(path)
        _check_external(model, path.parent)
        _check_operators(model)
        _check_form(path)
        return _open(path)
    except InvalidOnnxError as error:
        raise JobError(Reason.MODEL_INVALID, where, str(error), error.next_step) from error


def parse_onnx(path: Path, *, uri: str) -> ModelProto:
    """Return the model without its external data, before anything else in it is checked.

    Raises:
        JobError: ModelTooLarge, or ModelInvalid when the file is no ONNX model.
    """
    _check_size(path.stat().st_size, uri)
    try:
        return parse(path)
    except InvalidOnnxError as error:
        raise JobError(Reason.MODEL_INVALID, uri, str(error), error.next_step) from error


def _check_size(size: int, where: str) -> None:
    if size > MODEL_LIMIT_BYTES:
        raise JobError(
            Reason.MODEL_TOO_LARGE,
            where,
            f"the file has {size} bytes; an ONNX file has at most {MODEL_LIMIT_BYTES}.",
            "Save the weights as external data beside the file.",
        )


def _check_external(model: ModelProto, folder: Path) -> None:
    for tensor in external_tensors(model):
        path = folder / external_name(tensor)
        try:
            info = path.lstat()
        except FileNotFoundError as error:
            raise InvalidOnnxError(
                f"tensor {tensor.name!r} has its data in {path.name!r}, which is missing.", BESIDE
            ) from error
        if not stat.S_ISREG(info.st_mode) or info.st_nlink != 1:
            kind = "a symbolic link" if path.is_symlink() else "not a plain file with one link"
            raise InvalidOnnxError(f"tensor {tensor.name!r} has its data in {path.name!r}, which is {kind}.", BESIDE)


def _check_operators(model: ModelProto) -> None:
    """Refuse operators that ONNX Runtime does not have, unless the model itself defines them as functions."""
    local = {(function.domain, function.name) for function in model.functions}
    for part in parts_of(model):
        if not isinstance(part, NodeProto) or (part.domain, part.op_type) in local:
            continue
        if part.domain not in _DOMAINS or part.op_type in _LOADERS:
            raise InvalidOnnxError(
                f"node {part.name!r} uses operator {part.domain}:{part.op_type}, which is not built into ONNX Runtime.",
                "Export the model with standard operators; custom operators are never loaded.",
            )


def _check_form(path: Path) -> None:
    try:
        onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise InvalidOnnxError(f"onnx.checker refuses it: {printable(str(error), limit=300)}.", EXPORT) from error


def _open(path: Path) -> Signature:
    """Open the model in the engine that serves it, and return its inputs and outputs."""
    try:
        return open_model(path, EngineOptions(spinning=False)).signature
    except EngineError as error:
        if "locale" in str(error):
            raise InvalidOnnxError(_LOCALE, "Set the attribute locale of StringNormalizer to C.UTF-8.") from error
        if (name := _bfloat16(path)) is not None:
            raise InvalidOnnxError(
                f"{name!r} is bfloat16, and ONNX Runtime does not compute with such numbers on a CPU.",
                "Export the model in float32 or float16.",
            ) from error
        if isinstance(error, UnsupportedModelError):
            raise InvalidOnnxError(
                f"{error}.", "Export tensors only; for scikit-learn, convert with zipmap=False."
            ) from error
        raise InvalidOnnxError(f"ONNX Runtime cannot open it: {printable(str(error), limit=300)}.", EXPORT) from error


def _bfloat16(path: Path) -> str | None:
    """Return the name of an input, output or constant of type bfloat16, or None."""
    for part in parts_of(parse(path)):
        if isinstance(part, TensorProto) and part.data_type == TensorProto.BFLOAT16:
            return part.name
        if isinstance(part, ValueInfoProto) and part.type.tensor_type.elem_type == TensorProto.BFLOAT16:
            return part.name
    return None
