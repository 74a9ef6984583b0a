"""A torch module as an ONNX file with the names, types and free axes of a signature.

Checked before it is handed on: the file must answer as the module does. The same weights give the same bytes, and
nothing of this machine or of the code's whereabouts is in them.
"""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from onnx import ModelProto, helper
from torch import Tensor, nn

from optimizer_jobs.models.signature import Signature, TensorSpec

OPSET = 17
IR_VERSION = 8
TOLERANCE = 1e-3
"""Largest difference between module and file, relative to the largest answer."""
_AXES = ("N", *(f"axis{number}" for number in range(1, 8)))


class ExportError(RuntimeError):
    """The file does not answer as the module does."""


def export(module: nn.Module, *, signature: Signature, examples: Mapping[str, Any], target: Path) -> None:
    """Write the module to `target`.

    Args:
        module: Takes the inputs by position and answers the floating point outputs, as `importer.import_module` does.
        signature: Inputs and outputs of the file; labels are made by the end of the graph that was imported.
        examples: Real rows by input name, to trace and check with.
        target: The new file.

    Raises:
        ExportError: Module and file answer differently.
    """
    module.eval()
    inputs = tuple(torch.from_numpy(np.ascontiguousarray(examples[spec.name])) for spec in signature.inputs)
    tail = getattr(module, "tail", None)
    names = [spec.name for spec in signature.outputs if spec.is_float]
    taps = list(tail.taps) if tail is not None else []
    traced = [f"{name}_" for name in [*names, *taps]]
    _trace(module, inputs, signature, traced, target)
    proto = _plain(onnx.load(target))
    _rename(proto, dict(zip(traced, [*names, *taps], strict=True)))
    if tail is not None:
        _append(proto, tail)
    _order_outputs(proto, signature)
    proto.ir_version = IR_VERSION
    onnx.checker.check_model(proto)
    onnx.save(proto, target)
    _check(module, inputs, names, signature, target)


def _trace(
    module: nn.Module, inputs: tuple[Tensor, ...], signature: Signature, outputs: Sequence[str], target: Path
) -> None:
    free = {spec.name: _free(spec) for spec in signature.inputs}
    batch = {name: {0: "N"} for name in outputs} if signature.batch is None else {}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter whose graphs ONNX Runtime fuses best is called legacy
        torch.onnx.export(
            module, inputs, str(target), input_names=[spec.name for spec in signature.inputs],
            output_names=list(outputs), dynamic_axes=free | batch, opset_version=OPSET, dynamo=False,
        )  # fmt: skip


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


def _check(
    module: nn.Module, inputs: tuple[Tensor, ...], names: Sequence[str], signature: Signature, target: Path
) -> None:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(str(target), options, providers=["CPUExecutionProvider"])
    feeds = {spec.name: values.numpy() for spec, values in zip(signature.inputs, inputs, strict=True)}
    got = session.run(list(names), feeds)
    with torch.no_grad():
        answers = module(*inputs)
    wanted = answers if isinstance(answers, tuple) else (answers,)
    for name, file, own in zip(names, got, wanted, strict=False):
        values = own.numpy()
        far = float(np.abs(file - values).max()) / max(1.0, float(np.abs(values).max()))
        if file.shape != values.shape or not far <= TOLERANCE:
            raise ExportError(f"output {name} of the file differs from the network's by {far:.2g}")
