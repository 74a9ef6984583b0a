"""What a version of an engine can run: operator sets, file formats, and operators and forms that earlier ones lack.

The numbers were found by asking ONNX Runtime 1.15 to 1.32 and OpenVINO 2023.3 to 2026.4 themselves, on a CPU. OpenVINO
heeds no number of an operator set or format. A model that passes may still hold an operator of the standard that an old
version has no kernel for.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from onnx import ModelProto, NodeProto, TensorProto

from optimizer_jobs.models.external import parts_of

Version = tuple[int, int]
"""Major and minor number."""

_STANDARD, _ML, _MICROSOFT = "", "ai.onnx.ml", "com.microsoft"
_OPENVINO = "openvino"


@dataclass(frozen=True)
class _Newest:
    """The newest of each that an ONNX Runtime opens."""

    opset: int
    """Operator set of the ONNX standard."""
    ml: int
    """Operator set ai.onnx.ml."""
    ir: int
    """Version of the file format."""


_NEWEST: Mapping[Version, _Newest] = {
    (1, 15): _Newest(opset=18, ml=3, ir=9),
    (1, 16): _Newest(opset=19, ml=3, ir=9),
    (1, 17): _Newest(opset=20, ml=4, ir=9),
    (1, 18): _Newest(opset=21, ml=5, ir=10),
    (1, 21): _Newest(opset=22, ml=5, ir=10),
    (1, 23): _Newest(opset=23, ml=5, ir=11),
    (1, 24): _Newest(opset=25, ml=5, ir=13),
    (1, 25): _Newest(opset=26, ml=5, ir=13),
    (1, 32): _Newest(opset=28, ml=5, ir=14),
}
"""By the first ONNX Runtime that has them."""

_ADDED: Mapping[Version, str] = {
    (1, 16): "GroupQueryAttention MatMulBnb4 MatMulFpQ4 PackedMultiHeadAttention RotaryEmbedding SkipGroupNorm",
    (1, 17): "DynamicTimeWarping EPContext GemmFloat8 MatMulNBits MoE UnfoldTensor WhisperBeamSearch",
    (1, 18): "GemmaRotaryEmbedding QMoE SparseAttention",
    (1, 20): "GatherBlockQuantized",
    (1, 23): "PagedAttention",
    (1, 25): "CausalConvWithState LinearAttention",
    (1, 27): "MatMulNBitsMlp MatMulNBitsQkv",
    (1, 29): "GatedAdd GatedRMSNorm LinearAttentionGate MRotaryEmbedding MatMulBlockQuantizedFp4Weight "
    "MatMulBlockQuantizedFp8Weight",
    (1, 30): "EngramGate GatedDeltaNet NGramHashMapping VarlenCausalConvWithState",
    (1, 31): "BranchwiseRMSNorm DynamicSparseAttention HyperConnectionPostMix HyperConnectionPreMix "
    "PackedSparseAttentionIndexer ScaledSiLU SparseAttentionIndexer SparsePagedAttention VarlenNGramHashMapping",
    (1, 32): "ConvStateReplay GatedDeltaNetStateReplay GatherPacked HyperConnectionLowRankMix Mamba2Verify "
    "MatMulNBitsQLoRA MatMulPacked MoEGroupRouter MoEPacked PackedSparseAttentionIndexerMerge RMSNormRotary "
    "RouterGateUpProj SpeculativePrefixCommit SwiGLU",
}
"""Operators of domain com.microsoft by the first ONNX Runtime that has them as they are now."""
_SINCE = {name: version for version, names in _ADDED.items() for name in names.split()}

_BLOCKS_OF_8_BITS: Version = (1, 22)
_CONVOLUTIONS_OF_INT8: Version = (1, 24)
_OPENVINO_BLOCKS: Mapping[int, Version] = {8: (2025, 2), 4: (2025, 4)}
"""First OpenVINO that computes MatMulNBits, by the bits of a weight."""
_OPENVINO_TABLES: Version = (2026, 4)
"""First OpenVINO in which embedding tables in blocks were seen to run; 2025.4 did not."""


def version_of(text: str) -> Version:
    """Return major and minor number of a version such as `1.20` or `2025.4.1`."""
    major, minor, *_ = text.split(".")
    return int(major), int(minor)


def too_new(model: ModelProto, *, engine: str, version: Version) -> str | None:
    """Return what in a model a version of an engine cannot run, in words without a full stop, or None.

    Args:
        model: The model; its external data are not read.
        engine: Name of the engine, as in EngineOptions. TensorRT is that of ONNX Runtime.
        version: Version of OpenVINO, or else of ONNX Runtime.
    """
    if engine == _OPENVINO:
        return next(_lacking(model, version, _since_in_openvino), None)
    return next(_unreadable(model, version), None) or next(_lacking(model, version, _since), None)


def runs_blocks(bits: int, *, engine: str, version: Version) -> bool:
    """Return whether a version of an engine runs weights of so many bits in blocks."""
    if engine == _OPENVINO:
        return version >= _OPENVINO_BLOCKS[bits]
    return version >= (_BLOCKS_OF_8_BITS if bits == max(_OPENVINO_BLOCKS) else _SINCE["MatMulNBits"])


def _unreadable(model: ModelProto, version: Version) -> Iterator[str]:
    """Yield what keeps a version of ONNX Runtime from reading the file at all."""
    newest = _newest(version)
    if newest is None:
        return
    if model.ir_version > newest.ir:
        yield f"it has format version (IR) {model.ir_version}, and this version reads up to {newest.ir}"
    limits = {_STANDARD: newest.opset, "ai.onnx": newest.opset, _ML: newest.ml}
    for opset in model.opset_import:
        if opset.version > limits.get(opset.domain, opset.version):
            name = opset.domain or "ai.onnx"
            most = limits[opset.domain]
            yield f"it is of operator set {name} {opset.version}, and this version has up to {most}"


def _newest(version: Version) -> _Newest | None:
    """Return the newest that a version has; None for one that is newer than all that were asked."""
    if version > max(_NEWEST):
        return None
    return _NEWEST[max(known for known in _NEWEST if known <= version)]


def _lacking(model: ModelProto, version: Version, since: "_Since") -> Iterator[str]:
    """Yield the operators that a version lacks, in words."""
    constants = {part.name: part for part in parts_of(model) if isinstance(part, TensorProto) and part.name}
    own = {(function.domain, function.name) for function in model.functions}
    for node in parts_of(model):
        if not isinstance(node, NodeProto) or (node.domain, node.op_type) in own:
            continue
        first, words = since(node, constants)
        if version < first:
            yield f"node {node.name!r} is {words}, which is there from {first[0]}.{first[1]} on"


_Since = Callable[[NodeProto, Mapping[str, TensorProto]], tuple[Version, str]]
_ALWAYS: Version = (0, 0)


def _since(node: NodeProto, constants: Mapping[str, TensorProto]) -> tuple[Version, str]:
    """Return the first ONNX Runtime that runs a node, and what the node is in words."""
    if node.domain == _MICROSOFT:
        if node.op_type == "MatMulNBits" and _bits(node) == max(_OPENVINO_BLOCKS):
            return _BLOCKS_OF_8_BITS, "MatMulNBits with 8 bits"
        return _SINCE.get(node.op_type, _ALWAYS), f"{_MICROSOFT}:{node.op_type}"
    if node.op_type == "ConvInteger" and not node.domain:
        weight = constants.get(node.input[1])
        if weight is not None and weight.data_type == TensorProto.INT8:
            return _CONVOLUTIONS_OF_INT8, "ConvInteger with signed weights"
    return _ALWAYS, node.op_type


def _since_in_openvino(node: NodeProto, _: Mapping[str, TensorProto]) -> tuple[Version, str]:
    """Return the first OpenVINO that runs a node, and what the node is in words; most are not known."""
    if node.domain == _MICROSOFT and node.op_type == "MatMulNBits":
        bits = _bits(node)
        return _OPENVINO_BLOCKS.get(bits, max(_OPENVINO_BLOCKS.values())), f"MatMulNBits with {bits} bits"
    if node.domain == _MICROSOFT and node.op_type == "GatherBlockQuantized":
        return _OPENVINO_TABLES, f"{_MICROSOFT}:{node.op_type}"
    return _ALWAYS, node.op_type


def _bits(node: NodeProto) -> int:
    return next((int(attribute.i) for attribute in node.attribute if attribute.name == "bits"), 4)
