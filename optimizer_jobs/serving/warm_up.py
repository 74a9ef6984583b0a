"""Golden requests as Triton's warm-up: one sample a request, with the bytes of each input in a file of its own.

A model that fails at one of them does not become ready.
"""

from collections.abc import Iterator
from math import prod

from optimizer_jobs.models.golden import GoldenRequest, feed
from optimizer_jobs.serving.prototext import Fields, Word
from optimizer_jobs.serving.tensors import as_bytes, dims, type_of
from optimizer_jobs.signature import Signature

FOLDER = "warmup"
"""Folder beside the version's in which Triton looks for the files."""


def samples(requests: tuple[GoldenRequest, ...], signature: Signature) -> Iterator[tuple[Fields, dict[str, bytes]]]:
    """Yield the configuration of each sample, and its files by name.

    Args:
        requests: Golden requests. One with an empty tensor is left out, because Triton has no sample without elements.
        signature: The model's inputs.
    """
    for number, request in enumerate(requests, start=1):
        if is_kept(request):
            yield _sample(f"golden-{number}", request, signature)


def is_kept(request: GoldenRequest) -> bool:
    """Return whether a sample can hold a request."""
    return all(prod(tensor.shape) > 0 for tensor in request.inputs)


def _sample(name: str, request: GoldenRequest, signature: Signature) -> tuple[Fields, dict[str, bytes]]:
    dtypes, values = {spec.name: spec.dtype for spec in signature.inputs}, feed(request, signature)
    fields: Fields = [("name", name), ("batch_size", 1)]
    files = dict[str, bytes]()
    for place, tensor in enumerate(request.inputs, start=1):
        file = f"{name}-{place}"
        files[file] = as_bytes(values[tensor.name], dtypes[tensor.name])
        value: Fields = [
            ("data_type", Word(type_of(dtypes[tensor.name]))),
            ("dims", dims(tensor.shape)),
            ("input_data_file", file),
        ]
        fields.append(("inputs", [("key", tensor.name), ("value", value)]))
    return fields, files
