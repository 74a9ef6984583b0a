"""Triton Inference Server: a folder of its model repository, with `config.pbtxt` and golden requests as warm-up.

A bundle stays in the engine that it was judged in: Triton's backend `onnxruntime`, on the CPU or through TensorRT, or
its backend `openvino`. Axes are written as they are (`max_batch_size: 0`), because rows may be on any axis of an input
or on none, and the server must never put two requests together that the model would mix up.
"""

from collections.abc import Iterator, Mapping

from optimizer_jobs.errors import JobError
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.names import MODEL
from optimizer_jobs.serving.backends import Backend, backend_of
from optimizer_jobs.serving.base import Layout, called, model_files, version_of
from optimizer_jobs.serving.prototext import Fields, Word, text
from optimizer_jobs.serving.tensors import dims, is_known, type_of
from optimizer_jobs.serving.warm_up import FOLDER, is_kept, samples
from optimizer_jobs.signature import Signature, TensorSpec
from retune.contract.results import Reason

CONFIG = "config.pbtxt"
DIGEST = "retune_bundle_digest"
"""Parameter with the bundle's digest: backends pass over it, and the server shows it with the configuration."""
_INSTEAD = "Serve it in Retune's own runtime, as the example's server does."


def layout(bundle: Bundle, *, name: str, delivered: bool = False) -> Layout:
    """Return the files of `name` in a model repository.

    Args:
        bundle: The bundle.
        name: Name of the model, and so of its folder.
        delivered: Whether it stands for a model as delivered, which no digest names.

    Raises:
        JobError: Triton cannot serve it; the message says why and what to do.
    """
    backend = backend_of(bundle, instead=_INSTEAD)
    _check(backend.signature, bundle)
    warm = list(samples(bundle.golden.requests, backend.signature))
    version = version_of(bundle, delivered=delivered)
    files = model_files(bundle, name, version=version)
    digest = {} if delivered else {DIGEST: bundle.digest}
    config = _config(name, version, backend, backend.parameters | digest, [fields for fields, _ in warm])
    files[f"{name}/{CONFIG}"] = config.encode()
    files |= {f"{name}/{FOLDER}/{file}": content for _, contents in warm for file, content in contents.items()}
    lost = (*backend.lost, *_lost_in_requests(bundle), *_lost_in_warm_up(bundle))
    return Layout(files=files, lost=lost, tried=backend.tried)


def _config(name: str, version: int, backend: Backend, parameters: Mapping[str, str], warm: list[Fields]) -> str:
    message: Fields = [
        ("name", name),
        ("backend", backend.name),
        ("default_model_filename", MODEL),
        ("version_policy", [("specific", [("versions", (version,))])]),  # else the largest number would be served
        ("max_batch_size", 0),
        *(("input", _tensor(spec)) for spec in backend.signature.inputs),
        *(("output", _tensor(spec)) for spec in backend.signature.outputs),
        ("instance_group", [("count", backend.instances), ("kind", Word(backend.kind))]),
        *([("optimization", backend.optimization)] if backend.optimization else []),
        *(("parameters", _parameter(key, value)) for key, value in parameters.items()),
        *(("model_warmup", sample) for sample in warm),
    ]
    return text(message)


def _tensor(spec: TensorSpec) -> Fields:
    return [("name", spec.name), ("data_type", Word(type_of(spec.dtype))), ("dims", dims(spec.shape))]


def _parameter(key: str, value: str) -> Fields:
    return [("key", key), ("value", [("string_value", value)])]


def _check(signature: Signature, bundle: Bundle) -> None:
    """Refuse tensors that no configuration can describe."""
    for spec in (*signature.inputs, *signature.outputs):
        fault = "" if is_known(spec.dtype) else f"type {spec.dtype}"
        fault = fault or ("an axis of size 0" if 0 in spec.shape else "")
        if fault:
            raise JobError(
                Reason.MODEL_INVALID,
                called(bundle),
                f"{spec.name!r} has {fault}, which Triton does not take.",
                _INSTEAD,
            )


def _lost_in_requests(bundle: Bundle) -> Iterator[str]:
    """Yield what clients have to know, because Triton takes their requests in another form than Retune's runtime."""
    signature, golden = bundle.manifest.signature, bundle.golden
    specs = (*signature.inputs, *signature.outputs)
    if single := [repr(spec.name) for spec in specs if not spec.shape]:
        yield f"A single number is a list of one for Triton: {', '.join(single)} has shape [1] in requests and answers."
    if half := [repr(spec.name) for spec in specs if spec.dtype == "float16"]:
        yield f"Triton has no float16 in JSON: {', '.join(half)} is sent and answered as a binary tensor."
    missing = any(None in tensor.data for request in golden.requests for tensor in request.inputs)
    if missing or bundle.manifest.accepts_missing:
        yield "Triton has no missing numbers (null) in JSON: requests with some send NaN in a binary tensor."


def _lost_in_warm_up(bundle: Bundle) -> Iterator[str]:
    left_out = sum(not is_kept(request) for request in bundle.golden.requests)
    if left_out:
        yield f"{left_out} golden requests have an empty tensor, which Triton's warm-up cannot hold: they are left out."
