"""Parse an ONNX file and list its external data files, as hostile input: only plain names in its own folder pass."""

from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError, Message
from onnx import ModelProto, TensorProto

from optimizer_jobs.errors import JobError
from optimizer_jobs.models.names import GOLDEN, MANIFEST, MODEL, NATIVE
from retune.contract.results import Reason

EXPORT = "Export the model again and check it with onnx.checker."
BESIDE = "Save external data as a plain file beside the model, named without a folder."


class InvalidOnnxError(ValueError):
    """What is wrong with an ONNX file (`message`) and what a person should do (`next_step`), as sentences."""

    def __init__(self, message: str, next_step: str) -> None:
        super().__init__(message)
        self.next_step = next_step


def external_files(path: Path, *, uri: str | None = None) -> tuple[str, ...]:
    """Return the names of the external data files that an ONNX file needs beside it, sorted.

    Args:
        path: The ONNX file.
        uri: Name by which people know the file; the file's name by default.

    Raises:
        JobError: ModelInvalid when the file cannot be parsed or names a place other than its own folder.
    """
    try:
        return tuple(sorted({external_name(tensor) for tensor in external_tensors(parse(path))}))
    except InvalidOnnxError as error:
        raise JobError(Reason.MODEL_INVALID, uri or path.name, str(error), error.next_step) from error


def parse(path: Path) -> ModelProto:
    """Return the model without its external data; raises InvalidOnnxError when the file is not an ONNX model."""
    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
    except DecodeError as error:
        raise InvalidOnnxError("this is not an ONNX file, or it is truncated.", EXPORT) from error
    if not model.graph.node or not model.opset_import:
        raise InvalidOnnxError("this is not an ONNX file, or its graph is empty.", EXPORT)
    return model


def parts_of(message: Message) -> Iterator[Message]:
    """Yield `message` and every message inside it, at any depth; the contents of tensors are skipped."""
    stack = [message]
    while stack:
        part = stack.pop()
        yield part
        if isinstance(part, TensorProto):
            continue
        for field, value in part.ListFields():
            if field.message_type is not None:
                stack.extend([value] if isinstance(value, Message) else value)


def external_tensors(model: ModelProto) -> Iterator[TensorProto]:
    """Yield the tensors whose data lie outside the file."""
    for part in parts_of(model):
        if isinstance(part, TensorProto) and (part.data_location == TensorProto.EXTERNAL or part.external_data):
            yield part


def external_name(tensor: TensorProto) -> str:
    """Return the name of the file with a tensor's data; raises InvalidOnnxError unless it is a plain name."""
    name = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
    if name in {MANIFEST, MODEL, GOLDEN} or Path(name).stem == NATIVE:
        raise InvalidOnnxError(f"tensor {tensor.name!r} has its data in {name!r}, a name that bundles use.", BESIDE)
    if not name.isprintable() or name in {"", ".", ".."} or "/" in name or "\\" in name:
        raise InvalidOnnxError(f"tensor {tensor.name!r} has its data outside the model's folder, at {name!r}.", BESIDE)
    return name
