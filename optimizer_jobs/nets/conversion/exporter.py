"""Write a torch module as an ONNX file with the names, types and free axes of a signature.

    export(module, signature=signature, examples={"x": rows}, target=folder / "model.onnx")

The module may be any that takes the inputs by position; one from `conversion.importer` gets its labels back. The file
is checked before it is handed on: it must answer like the module, for other numbers of rows too. The same weights give
the same bytes, without any trace of this machine or of where the code lies. All weights are in the one file.
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

from optimizer_jobs.nets.conversion.graph import Tail
from optimizer_jobs.nets.plain import plain
from optimizer_jobs.signature import Signature, TensorSpec

OPSET = 17
_NEWEST_OPSET = 20
"""Newest operator set that torch's older exporter writes; ONNX Runtime fuses the graphs of that exporter best."""
IR_VERSION = 8
TOLERANCE = 1e-3
_AXES = ("N", *(f"axis{number}" for number in range(1, 8)))
"""Names of free axes, by their number."""
_SHOWN = 200
"""Characters of a library's message that are passed on."""


class ExportError(RuntimeError):
    """The module cannot be written, or the file answers differently; the message says which."""


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
        module: Takes the inputs by position and answers the outputs in the order of the signature; one from
            `importer.import_module` answers the floating point ones.
        signature: Inputs and outputs of the file. Labels come from the end of the graph that was imported.
        examples: Real rows by input name, each (N, ...), to trace and check with.
        target: The new file.
        rewrite: Changes the graph, in place, before it is written and checked.
        tolerance: Largest difference between module and file, relative to the largest answer.

    Raises:
        ExportError: ONNX has no counterpart for some part of the module, or module and file answer differently.
    """
    module.eval()
    inputs = tuple(torch.from_numpy(np.ascontiguousarray(examples[spec.name])) for spec in signature.inputs)
    tail: Tail | None = getattr(module, "tail", None)
    names = _answered(signature, tail)
    names += list(tail.taps) if tail is not None else []
    with plain():
        _trace(
            module, inputs, signature, outputs=[_traced(name) for name in names], opset=_opset(module), target=target
        )
    proto = _plain(onnx.load(target))
    _rename(proto, {_traced(name): name for name in names})
    if tail is not None:
        _append(proto, tail)
    _order_outputs(proto, signature, tail)
    if rewrite is not None:
        rewrite(proto)
    _write(proto, target)
    check(module, signature=signature, examples=examples, target=target, tolerance=tolerance)


def check(
    module: nn.Module,
    *,
    signature: Signature,
    examples: Mapping[str, Any],
    target: Path,
    tolerance: float = TOLERANCE,
) -> None:
    """Hold the answers of a file against those of its module, for these examples and for half of them along free axes.

    Args:
        module: As for `export`.
        signature: Inputs and outputs of the file.
        examples: Rows by input name, each (N, ...).
        target: The file.
        tolerance: Largest difference, relative to the largest answer.

    Raises:
        ExportError: They differ, or the file does not run on them.
    """
    inputs = tuple(torch.from_numpy(np.ascontiguousarray(examples[spec.name])) for spec in signature.inputs)
    with plain():
        _check(module, inputs, signature, target, tolerance)


def _answered(signature: Signature, tail: Tail | None) -> list[str]:
    """Return the outputs that the module itself answers: all, or those that are not made by the end of a graph."""
    return [spec.name for spec in signature.outputs if spec.is_float or tail is None]


def _traced(name: str) -> str:
    """Return the name that an output has while it is traced, so that it does not collide with a name inside."""
    return f"{name}_"


def _opset(module: nn.Module) -> int:
    """Return the operator set to write: that of the imported graph, as near as possible, when its end is put back."""
    tail: Tail | None = getattr(module, "tail", None)
    return min(max(OPSET, module.opset), _NEWEST_OPSET) if tail is not None and tail.nodes else OPSET


def _write(proto: ModelProto, target: Path) -> None:
    proto.ir_version = IR_VERSION
    try:
        onnx.checker.check_model(proto)
    except onnx.checker.ValidationError as error:
        raise ExportError(f"the network makes no valid ONNX graph: {str(error)[:_SHOWN]}") from error
    onnx.save(proto, target)


def _trace(
    module: nn.Module,
    inputs: tuple[Tensor, ...],
    signature: Signature,
    *,
    outputs: Sequence[str],
    opset: int,
    target: Path,
) -> None:
    """Write what torch's older exporter makes of the module."""
    free = {spec.name: _free_axes(spec) for spec in signature.inputs}
    batch = {name: {0: "N"} for name in outputs} if signature.batch is None else {}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch warns of this exporter, but ONNX Runtime fuses its graphs best
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
        except Exception as error:  # code of a network and of the exporter may raise anything
            raise ExportError(f"the network cannot be written as ONNX: {str(error)[:_SHOWN]}") from error


def _free_axes(spec: TensorSpec) -> dict[int, str]:
    return {axis: _AXES[axis] for axis, size in enumerate(spec.shape) if size < 0}


def _plain(proto: ModelProto) -> ModelProto:
    """Return the graph without anything that says where it was made."""
    proto.doc_string, proto.producer_name, proto.producer_version = "", "retune", ""
    del proto.metadata_props[:]
    proto.graph.name, proto.graph.doc_string = "model", ""
    del proto.graph.value_info[:]
    for node in proto.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    return proto


def _rename(proto: ModelProto, names: Mapping[str, str]) -> None:
    """Give outputs their own names; tensors inside that have such a name get another one."""
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


def _append(proto: ModelProto, tail: Tail) -> None:
    """Put the end of the imported graph back."""
    graph = proto.graph
    graph.node.extend(tail.nodes)
    present = {tensor.name for tensor in graph.initializer}
    graph.initializer.extend(tensor for tensor in tail.initializers if tensor.name not in present)
    graph.output.extend(tail.outputs)
    domains = {opset.domain for opset in proto.opset_import} | {"ai.onnx"}
    new = [opset for opset in tail.opsets if opset.domain not in domains]
    proto.opset_import.extend(helper.make_opsetid(opset.domain, opset.version) for opset in new)


def _order_outputs(proto: ModelProto, signature: Signature, tail: Tail | None) -> None:
    """Put the outputs into the order of the signature, with its types and shapes."""
    outputs, answered = {output.name: output for output in proto.graph.output}, _answered(signature, tail)
    for spec in signature.outputs:
        if spec.name in answered:
            kind = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
            shape = [_AXES[axis] if size < 0 else size for axis, size in enumerate(spec.shape)]
            outputs[spec.name] = helper.make_tensor_value_info(spec.name, kind, shape)
    del proto.graph.output[:]
    proto.graph.output.extend(outputs[spec.name] for spec in signature.outputs)


def _check(module: nn.Module, inputs: tuple[Tensor, ...], signature: Signature, target: Path, tolerance: float) -> None:
    """Compare the answers of module and file, for the examples and for fewer of them."""
    session = _opened(target)
    names = _answered(signature, getattr(module, "tail", None))
    for variant in _variants(inputs, signature):
        try:
            with torch.no_grad():
                outputs = module(*variant)
        except Exception:
            if variant is inputs:
                raise
            continue  # the network itself does not take this size, and its code may raise anything
        expected = outputs if isinstance(outputs, tuple) else (outputs,)
        for name, answer, output in zip(names, _answers(session, names, variant, signature), expected, strict=False):
            _compare(name, answer, output.numpy(), tolerance)


def _opened(target: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(str(target), options, providers=["CPUExecutionProvider"])
    except (RuntimeError, NotImplementedError) as error:
        raise ExportError(f"ONNX Runtime does not open the network's file: {str(error)[:_SHOWN]}") from error


def _answers(
    session: ort.InferenceSession, names: Sequence[str], inputs: tuple[Tensor, ...], signature: Signature
) -> list[Any]:
    """Return the outputs of the file with these names."""
    feeds = {spec.name: values.numpy() for spec, values in zip(signature.inputs, inputs, strict=True)}
    try:
        return list(session.run(list(names), feeds))
    except Exception as error:  # ONNX Runtime raises classes of its own, without a common base
        shapes = ", ".join(str(tuple(values.shape)) for values in inputs)
        raise ExportError(
            f"the network's file does not run on inputs of shape {shapes}: {str(error)[:_SHOWN]}"
        ) from error


def _variants(inputs: tuple[Tensor, ...], signature: Signature) -> Iterator[tuple[Tensor, ...]]:
    """Yield the examples, and then half of them along each free axis, where a size that the trace fixed would show."""
    yield inputs
    free = {axis for spec in signature.inputs for axis in _free_axes(spec)}
    for axis in sorted(free):
        yield tuple(
            _halved(values, axis) if axis in _free_axes(spec) else values
            for spec, values in zip(signature.inputs, inputs, strict=True)
        )


def _halved(values: Tensor, axis: int) -> Tensor:
    """Return the first half along an axis."""
    size = values.shape[axis]
    return values.narrow(axis, 0, (size + 1) // 2).contiguous() if size > 0 else values


def _compare(name: str, answer: Any, output: Any, tolerance: float) -> None:
    """Raise ExportError when an answer of the file differs from the output of the network."""
    difference = np.inf
    if answer.shape == output.shape:
        numbers = output.astype(np.float64)
        difference = float(np.abs(answer - numbers).max(initial=0.0)) / max(
            1.0, float(np.abs(numbers).max(initial=0.0))
        )
    if not difference <= tolerance:  # also true for NaN
        raise ExportError(
            f"output {name} of the file, {answer.shape}, differs from the network's, {output.shape}: {difference:.2g}"
        )
