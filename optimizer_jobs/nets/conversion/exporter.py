"""A torch module as an ONNX file with the names, types and free axes of a signature.

    export(module, signature=signature, examples={"x": rows}, target=folder / "model.onnx")

Any module will do that takes the inputs by position; one from `conversion.importer` gets its labels back. The file is
checked before it is handed on: it must answer as the module does, for other numbers of rows too. The same weights give
the same bytes, and nothing of this machine or of the code's whereabouts is in them. Everything is in the one file.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import ModelProto, helper
from torch import Tensor, nn

from optimizer_jobs.signature import Signature, TensorSpec

OPSET = 17
_NEWEST_OPSET = 20
"""Newest one that the exporter writes whose graphs ONNX Runtime fuses best."""
IR_VERSION = 8
TOLERANCE = 1e-3
_AXES = ("N", *(f"axis{number}" for number in range(1, 8)))


class ExportError(RuntimeError):
    """The module cannot be written, or the file does not answer as it does; the message says which."""


def export(
    module: nn.Module,
    *,
    signature: Signature,
    examples: Mapping[str, Any],
    target: Path,
    rewrite: Callable[[ModelProto], None] | None = None,
    tolerance: float = TOLERANCE,
) -> None:
    """Write the module to `target`.

    Args:
        module: Takes the inputs by position and answers the floating point outputs, as `importer.import_module` does.
        signature: Inputs and outputs of the file; labels are made by the end of the graph that was imported.
        examples: Real rows by input name, to trace and check with.
        target: The new file.
        rewrite: Changes the graph before it is written and checked.
        tolerance: Largest difference between module and file, relative to the largest answer.

    Raises:
        ExportError: The module has something that ONNX does not, or module and file answer differently.
    """
    module.eval()
    inputs = tuple(torch.from_numpy(np.ascontiguousarray(examples[spec.name])) for spec in signature.inputs)
    tail = getattr(module, "tail", None)
    names = [spec.name for spec in signature.outputs if spec.is_float]
    names += list(tail.taps) if tail is not None else []
    traced = [f"{name}_" for name in names]
    opset = min(max(OPSET, module.opset), _NEWEST_OPSET) if tail is not None and tail.nodes else OPSET
    _trace(module, inputs, signature, outputs=traced, opset=opset, target=target)
    proto = _plain(onnx.load(target))
    _rename(proto, dict(zip(traced, names, strict=True)))
    if tail is not None:
        _append(proto, tail)
    _order_outputs(proto, signature)
    if rewrite is not None:
        rewrite(proto)
    proto.ir_version = IR_VERSION
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"the network makes no valid ONNX graph: {str(error)[:_TOLD]}") from error
    onnx.save(proto, target)
    _check(module, inputs, signature, target, tolerance)


_TOLD = 200
"""Letters of somebody else's message that are passed on."""


def _trace(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    signature: Signature,
    *,
    outputs: Sequence[str],
    opset: int,
    target: Path,
) -> None:
    free = {spec.name: _free(spec) for spec in signature.inputs}
    batch = {name: {0: "N"} for name in outputs} if signature.batch is None else {}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter whose graphs ONNX Runtime fuses best is called legacy
        try:
            torch.onnx.export(
                module,
                inputs,
                str(target),
                input_names=[spec.name for spec in signature.inputs],
                output_names=list(outputs),
                dynamic_axes=free | batch,
                opset_version=opset,
                dynamo=False,
            )
        except (RuntimeError, ValueError, TypeError) as error:
            raise ExportError(f"the network cannot be written as ONNX: {str(error)[:_TOLD]}") from error


def _free(spec: TensorSpec) -> dict[int, str]:
    return {axis: _AXES[axis] for axis, size in enumerate(spec.shape) if size < 0}


def _plain(proto: ModelProto) -> ModelProto:
    """Return the graph without what says where it was made, and with short names."""
    proto.doc_string, proto.producer_name, proto.producer_version = "", "retune", ""
    del proto.metadata_props[:]
    proto.graph.name, proto.graph.doc_string = "model", ""
    del proto.graph.value_info[:]
    for node in proto.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    return proto


def _rename(proto: ModelProto, names: Mapping[str, str]) -> None:
    """Give traced outputs their own names; they had others so that none collides with a name inside."""
    taken = {name for node in proto.graph.node for name in (*node.input, *node.output)}
    clash = {name: f"{name}__inner" for name in names.values() if name in taken}
    table = {**clash, **names}
    for node in proto.graph.node:
        node.input[:] = [table.get(name, name) for name in node.input]
        node.output[:] = [table.get(name, name) for name in node.output]
    for tensor in proto.graph.initializer:
        tensor.name = table.get(tensor.name, tensor.name)
    for output in proto.graph.output:
        output.name = table.get(output.name, output.name)


def _append(proto: ModelProto, tail: Any) -> None:
    """Put the end of the imported graph back."""
    graph = proto.graph
    graph.node.extend(tail.nodes)
    have = {tensor.name for tensor in graph.initializer}
    graph.initializer.extend(tensor for tensor in tail.initializers if tensor.name not in have)
    graph.output.extend(tail.outputs)
    domains = {each.domain for each in proto.opset_import}
    proto.opset_import.extend(
        helper.make_opsetid(each.domain, each.version)
        for each in tail.opsets
        if each.domain not in {*domains, "ai.onnx"}
    )


def _order_outputs(proto: ModelProto, signature: Signature) -> None:
    outputs = {output.name: output for output in proto.graph.output}
    for spec in signature.outputs:
        if spec.is_float:
            kind = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
            shape = [_AXES[axis] if size < 0 else size for axis, size in enumerate(spec.shape)]
            outputs[spec.name] = helper.make_tensor_value_info(spec.name, kind, shape)
    del proto.graph.output[:]
    proto.graph.output.extend(outputs[spec.name] for spec in signature.outputs)


def _check(module: nn.Module, inputs: tuple[Tensor, ...], signature: Signature, target: Path, tolerance: float) -> None:
    session = _opened(target)
    names = [spec.name for spec in signature.outputs if spec.is_float]
    for given in _variants(inputs, signature):
        try:
            with torch.no_grad():
                answers = module(*given)
        except RuntimeError:
            if given is inputs:
                raise
            continue  # the network itself does not take this size
        wanted = answers if isinstance(answers, tuple) else (answers,)
        for name, file, own in zip(names, _answers(session, names, given, signature), wanted, strict=False):
            _compare(name, file, own.numpy(), tolerance)


def _opened(target: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(str(target), options, providers=["CPUExecutionProvider"])
    except (RuntimeError, NotImplementedError) as error:
        raise ExportError(f"ONNX Runtime does not open the network's file: {str(error)[:_TOLD]}") from error


def _answers(
    session: ort.InferenceSession, names: Sequence[str], given: tuple[Tensor, ...], signature: Signature
) -> list[Any]:
    feeds = {spec.name: values.numpy() for spec, values in zip(signature.inputs, given, strict=True)}
    try:
        return list(session.run(list(names), feeds))
    except Exception as error:  # ONNX Runtime raises classes of its own that have no common one
        shapes = ", ".join(str(tuple(values.shape)) for values in given)
        raise ExportError(
            f"the network's file does not run on inputs of shape {shapes}: {str(error)[:_TOLD]}"
        ) from error


def _variants(inputs: tuple[Tensor, ...], signature: Signature) -> Iterator[tuple[Tensor, ...]]:
    """Yield the examples, and fewer of them along each free axis: a size that got stuck in the trace shows there."""
    yield inputs
    free = {axis for spec in signature.inputs for axis, size in enumerate(spec.shape) if size < 0}
    for axis in sorted(free):
        yield tuple(
            values.narrow(axis, 0, (values.shape[axis] + 1) // 2).contiguous()
            if axis < len(spec.shape) and spec.shape[axis] < 0 and values.shape[axis] > 0
            else values
            for spec, values in zip(signature.inputs, inputs, strict=True)
        )


def _compare(name: str, file: Any, own: Any, tolerance: float) -> None:
    far = float(np.abs(file - own).max()) / max(1.0, float(np.abs(own).max())) if file.shape == own.shape else np.inf
    if not far <= tolerance:
        raise ExportError(
            f"output {name} of the file, {file.shape}, differs from the network's, {own.shape}: {far:.2g}"
        )
