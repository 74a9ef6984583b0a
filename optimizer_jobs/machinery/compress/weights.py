"""Quantization without calibration: ranges found while running, weights alone in blocks, and 16-bit floats.

Embedding tables become 8-bit in each of the first two: they are most of a language model's file and need no arithmetic.
Dynamic quantization never touches convolutions: the engine's kernels for it are several times slower than floats.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, helper, numpy_helper, version_converter

from optimizer_jobs.machinery.compress import codes, fallback
from optimizer_jobs.machinery.compress.calibration import quiet
from optimizer_jobs.machinery.compress.layers import is_set, tables, weighted
from optimizer_jobs.machinery.compress.schemes import CODES, DYNAMIC_OPS
from optimizer_jobs.machinery.compress.static import saturates
from optimizer_jobs.technique import Context, Params

_INT8_ARITHMETIC = 4
"""Accuracy level of MatMulNBits at which activations are rounded to 8 bits, as the fast kernels need it."""
_TABLE_BITS, _TABLE_OPSET, _TABLE_IR = 4, 21, 10
"""Bits in which the block quantizer of ONNX Runtime takes embedding tables, and the first versions that know them."""


def dynamic(prepared: Path, target: Path, params: Params, *, context: Context) -> str:
    """Write the model with 8-bit products and embedding tables; return what was done."""
    graph = onnx.load(prepared)
    layers, embeddings = weighted(graph, DYNAMIC_OPS), tables(graph)

    def write(chosen: list[NodeProto]) -> None:
        _to_int8(
            prepared,
            target,
            [*chosen, *embeddings],
            per_channel=bool(params["per_channel"]),
            reduce_range=saturates(context.cpu_flags),
        )

    write(layers)
    kept: tuple[str, ...] = ()
    if "kept" in params and context.calibration is not None:
        names = [node.name for node in layers]
        kept = fallback.worst(
            target, prepared, layers=names, count=int(params["kept"]), rows=context.calibration, context=context
        )
        write([node for node in layers if node.name not in kept])
    if params.get("kept_as") == CODES:
        codes.store(target, [*kept, *map(_made_of_gemm, kept)])
    done = _counted(len(layers) - len(kept), len(embeddings))
    return f"{done}, {fallback.named(kept)} in float" if kept else done


def weight_only(prepared: Path, target: Path, params: Params) -> str:
    """Write the model with weights of products and embedding tables in few bits; return what was done."""
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    graph = onnx.load(prepared)
    embeddings = tables(graph)
    modern = _modern(graph) if embeddings and params["bits"] == _TABLE_BITS else None
    if embeddings and modern is None:
        _to_int8(prepared, target, embeddings, per_channel=False, reduce_range=False)
        graph = onnx.load(target)
    graph = modern or graph
    _unfold(graph)
    layers = weighted(graph, ("MatMul",))
    in_blocks = [*layers, *(embeddings if modern else ())]
    with quiet():
        quantizer = MatMulNBitsQuantizer(
            graph,
            bits=int(params["bits"]),
            block_size=int(params["block_size"]),
            accuracy_level=_INT8_ARITHMETIC,
            op_types_to_quantize=(),
            nodes_to_include=[node.name for node in in_blocks],
        )
        quantizer.process()
    onnx.save(quantizer.model.model, target)
    return _counted(len(layers), len(embeddings))


def half(model: Path, target: Path) -> str:
    """Write the model with 16-bit floats inside; inputs and outputs keep their types."""
    from onnxruntime.quantization.onnx_model import ONNXModel
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with quiet():
        made = ONNXModel(convert_float_to_float16(onnx.load(model), keep_io_types=True))
        made.topological_sort()  # the converter appends the casts of inputs
    onnx.save(made.model, target)
    return f"{model.stat().st_size} to {target.stat().st_size} bytes"


def _to_int8(prepared: Path, target: Path, nodes: list[NodeProto], *, per_channel: bool, reduce_range: bool) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    types, chosen = {node.op_type for node in nodes}, {node.name for node in nodes}
    types |= {"MatMul"} if "Gemm" in types else set()
    others = [node.name for node in onnx.load(prepared).graph.node if node.op_type in types and node.name not in chosen]
    others += [*map(_made_of_gemm, others)]
    with quiet():
        quantize_dynamic(  # it makes every Gemm a MatMul first, so it is told what to leave, not what to take
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
    """Return what the dynamic quantizer calls the MatMul that it makes of a Gemm."""
    return f"{name}_MatMul"


def _modern(model: ModelProto) -> ModelProto | None:
    """Return the model in an operator set that has 4-bit numbers; None where onnx cannot convert it."""
    (version,) = [entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}]
    try:
        made = model if version >= _TABLE_OPSET else version_converter.convert_version(model, _TABLE_OPSET)
    except (RuntimeError, version_converter.ConvertError):
        return None
    made.ir_version = max(made.ir_version, _TABLE_IR)
    return made


def _unfold(model: ModelProto) -> None:
    """Make each Gemm that is a plain x W + b a MatMul and an Add, which is what the block quantizer knows."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        if node.op_type != "Gemm" or node.input[1] not in weights or not _is_plain(node):
            nodes.append(node)
            continue
        weight = node.input[1]
        if is_set(node, "transB"):
            turned = np.ascontiguousarray(numpy_helper.to_array(weights[weight]).T)
            weight = f"{weight}_{node.name}_turned"
            model.graph.initializer.append(numpy_helper.from_array(turned, weight))
        biased = len(node.input) > 2 and bool(node.input[2])
        product = f"{node.output[0]}_product" if biased else node.output[0]
        nodes.append(helper.make_node("MatMul", [node.input[0], weight], [product], name=node.name))
        if biased:
            nodes.append(helper.make_node("Add", [product, node.input[2]], [node.output[0]], name=f"{node.name}_bias"))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def _is_plain(node: NodeProto) -> bool:
    """Return whether a Gemm neither turns its input nor scales anything."""
    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    return not values.get("transA", 0) and values.get("alpha", 1.0) == 1.0 and values.get("beta", 1.0) == 1.0


def _counted(layers: int, embeddings: int) -> str:
    named = f"{layers} layer{'s' * (layers != 1)}"
    return named if not embeddings else f"{named}, {embeddings} embedding table{'s' * (embeddings != 1)}"
