"""Quantization without calibration: ranges found while the model runs, weights alone in blocks, and 16-bit floats.

The first two also quantize embedding tables, which are most of a language model's file and take part in no arithmetic.
Dynamic quantization never touches convolutions, because the engine's kernels for them are several times slower than
those for floats.
"""

import shutil
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper

from optimizer_jobs.machinery.compress import codes, fallback
from optimizer_jobs.machinery.compress import tables as table_rows
from optimizer_jobs.machinery.compress.calibration import quiet
from optimizer_jobs.machinery.compress.layers import is_set, tables, weighted
from optimizer_jobs.machinery.compress.preparing import upgraded
from optimizer_jobs.machinery.compress.schemes import CODES, DYNAMIC_OPS
from optimizer_jobs.machinery.compress.static import saturates
from optimizer_jobs.technique import Context, Params

_INT8_ARITHMETIC = 4
"""Accuracy level of MatMulNBits at which activations are rounded to 8 bits, as the fast kernels need it."""
_TABLE_BITS, _TABLE_OPSET, _TABLE_IR = 4, 21, 10
"""The only number of bits in which ONNX Runtime's block quantizer takes embedding tables, and the first versions of
operator set and file format that have such numbers."""


def dynamic(prepared: Path, target: Path, params: Params, *, context: Context) -> str:
    """Write the model with 8-bit products and embedding tables; return what was done.

    Args:
        prepared: The float file, with every node named.
        target: The new file.
        params: `per_channel`, and maybe `kept` and `kept_as` for layers that stay in float.
        context: Flags of the machine, and rows to rank layers on.
    """
    graph = onnx.load(prepared)
    layers = weighted(graph, DYNAMIC_OPS)
    per_channel, reduce_range = bool(params["per_channel"]), saturates(context.cpu_flags)
    to_int8 = partial(_to_int8, prepared, target, per_channel=per_channel, reduce_range=reduce_range)
    to_int8(layers)
    kept = _most_sensitive(target, prepared, [node.name for node in layers], params, context)
    if kept:
        to_int8([node for node in layers if node.name not in kept])
    if params.get("kept_as") == CODES:
        codes.store(target, [*kept, *map(_made_of_gemm, kept)])
    counted = _counted(len(layers) - len(kept), table_rows.store_in(target, params))
    return f"{counted}, {fallback.named(kept)} in float" if kept else counted


def _most_sensitive(
    quantized: Path, prepared: Path, layers: list[str], params: Params, context: Context
) -> tuple[str, ...]:
    """Return the layers that stay in float: as many as the parameters say of those that quantization hurts most."""
    if "kept" not in params or context.calibration is None:
        return ()
    count, rows = int(params["kept"]), context.calibration
    return fallback.worst(quantized, prepared, layers=layers, count=count, rows=rows, context=context)


def weight_only(prepared: Path, target: Path, params: Params) -> str:
    """Write the model with weights of products and embedding tables in few bits; return what was done.

    Args:
        prepared: The float file, with every node named.
        target: The new file.
        params: `bits` of a weight, and `block_size`, the number of weights that share a scale.
    """
    graph = onnx.load(prepared)
    embeddings = tables(graph)
    modern = _modern(graph) if embeddings and params["bits"] == _TABLE_BITS else None
    graph = modern or graph
    _unfold(graph)
    layers = weighted(graph, ("MatMul",))
    onnx.save(_in_blocks(graph, [*layers, *(embeddings if modern else ())], params), target)
    in_blocks = len({node.input[0] for node in embeddings})
    return _counted(len(layers), in_blocks if modern else table_rows.store_in(target, params))


def tables_alone(prepared: Path, target: Path, params: Params) -> str:
    """Write the model with nothing but its embedding tables in `table_bits` bits; return what was done."""
    shutil.copyfile(prepared, target)
    return _counted(0, table_rows.store_in(target, params))


def _in_blocks(graph: ModelProto, nodes: list[NodeProto], params: Params) -> ModelProto:
    """Return the graph with the weights of these nodes in blocks of few bits."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    with quiet():
        quantizer = MatMulNBitsQuantizer(
            graph,
            bits=int(params["bits"]),
            block_size=int(params["block_size"]),
            accuracy_level=_INT8_ARITHMETIC,
            op_types_to_quantize=(),
            nodes_to_include=[node.name for node in nodes],
        )
        quantizer.process()
    quantized: ModelProto = quantizer.model.model
    return quantized


def half(model: Path, target: Path) -> str:
    """Write the model with 16-bit floats inside; return what was done. Inputs and outputs keep their types."""
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with quiet():
        halved = ONNXModel(convert_float_to_float16(onnx.load(model), keep_io_types=True))
        halved.topological_sort()  # the converter appends the casts of inputs
    onnx.save(halved.model, target)
    return f"{model.stat().st_size} to {target.stat().st_size} bytes"


def _to_int8(prepared: Path, target: Path, nodes: list[NodeProto], *, per_channel: bool, reduce_range: bool) -> None:
    """Write the model with the weights of these nodes in 8 bits.

    The dynamic quantizer turns every Gemm into a MatMul first. So it is told which nodes to leave, under both names,
    and not which to take.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    types, chosen = {node.op_type for node in nodes}, {node.name for node in nodes}
    types |= {"MatMul"} if "Gemm" in types else set()
    others = [node.name for node in onnx.load(prepared).graph.node if node.op_type in types and node.name not in chosen]
    others += [*map(_made_of_gemm, others)]
    with quiet():
        quantize_dynamic(
            prepared,
            target,
            op_types_to_quantize=sorted(types),
            nodes_to_exclude=others,
            per_channel=per_channel,
            reduce_range=reduce_range,
            weight_type=QuantType.QInt8,
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},  # no shapes come out of fused operators
        )


def _made_of_gemm(name: str) -> str:
    """Return the name of the MatMul that the dynamic quantizer makes of a Gemm."""
    return f"{name}_MatMul"


def _modern(model: ModelProto) -> ModelProto | None:
    """Return the model in an operator set that has 4-bit numbers; None where onnx cannot convert it."""
    converted = upgraded(model, _TABLE_OPSET)
    if converted is not None:
        converted.ir_version = max(converted.ir_version, _TABLE_IR)
    return converted


def _unfold(model: ModelProto) -> None:
    """Replace, in place, each Gemm that is a plain x W + b by MatMul and Add, which the block quantizer knows."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        if node.op_type != "Gemm" or node.input[1] not in weights or not _is_plain(node):
            nodes.append(node)
            continue
        weight = node.input[1]
        if is_set(node, "transB"):
            transposed = np.ascontiguousarray(numpy_helper.to_array(weights[weight]).T)
            weight = f"{weight}_{node.name}_turned"
            model.graph.initializer.append(numpy_helper.from_array(transposed, weight))
        biased = len(node.input) > 2 and bool(node.input[2])
        product = f"{node.output[0]}_product" if biased else node.output[0]
        nodes.append(helper.make_node("MatMul", [node.input[0], weight], [product], name=node.name))
        if biased:
            nodes.append(helper.make_node("Add", [product, node.input[2]], [node.output[0]], name=f"{node.name}_bias"))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _is_plain(node: NodeProto) -> bool:
    """Return whether a Gemm neither transposes its input nor scales anything."""
    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return not values.get("transA", 0) and values.get("alpha", 1.0) == 1.0 and values.get("beta", 1.0) == 1.0


def _counted(layers: int, embeddings: int) -> str:
    counts = {"layer": layers, "embedding table": embeddings}
    words = [f"{count} {kind}{'s' * (count != 1)}" for kind, count in counts.items() if count]
    return ", ".join(words) or "nothing"
