"""Turn nodes with constant weights into torch's own layers: linear, convolution, batch and layer norm, embedding.

A product and the sum with a bias behind it become one linear layer. Nodes that fit no layer stay operators.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import torch
from onnx import NodeProto
from torch import Tensor, nn

from optimizer_jobs.nets.conversion.graph import STANDARD
from optimizer_jobs.nets.conversion.padding import padded, pads_of
from optimizer_jobs.nets.conversion.values import as_tensor

Constants = Mapping[str, np.ndarray[Any, Any]]
_VECTOR_AXES = 2
_FLOATS = {np.dtype(np.float32), np.dtype(np.float64)}
_SHARED = {"Conv", "Gather", "Gemm", "MatMul"}
"""Operators whose nodes share a layer when they share weights. For others, exporters merge equal weights by chance."""


@dataclass
class Built:
    """The layers of a graph."""

    layers: dict[str, nn.Module] = field(default_factory=dict)
    """Layer by the name of its node; nodes with the same weights have the same layer."""
    absorbed: set[str] = field(default_factory=set)
    """Names of nodes that the layer of the node before computes too."""
    renamed: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Outputs of nodes whose layers also compute the next node, by name of the node."""

    @staticmethod
    def argument(node: NodeProto) -> int:
        """Return the index of the input that a node's layer takes: 1 for an embedding, 0 for all others."""
        return 1 if node.op_type == "Gather" else 0


def build(nodes: Sequence[NodeProto], constants: Constants, *, read_by_others: Collection[str] = ()) -> Built:
    """Return the layers of a graph.

    Args:
        nodes: Its nodes, in order.
        constants: Its weights by name.
        read_by_others: Tensors that are needed outside of these nodes, too.
    """
    built, shared = Built(), dict[tuple[Any, ...], nn.Module]()
    readers = _readers(nodes)
    for node in nodes:
        alone = node.output[0] not in read_by_others
        add = _bias_after(node, constants, readers.get(node.output[0], ())) if alone else None
        key = _key(node, add, constants)
        layer = shared.get(key) or _layer(node, add, constants)
        if layer is None:
            continue
        if add is not None:
            built.absorbed.add(add.name)
            built.renamed[node.name] = tuple(add.output)
        built.layers[node.name] = layer
        if node.op_type in _SHARED:
            shared[key] = layer
    return built


def _readers(nodes: Sequence[NodeProto]) -> dict[str, list[NodeProto]]:
    """Return the nodes that read each tensor."""
    readers: dict[str, list[NodeProto]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def _layer(node: NodeProto, add: NodeProto | None, constants: Constants) -> nn.Module | None:
    """Return a new layer for a node, with the bias that `add` adds, or None when it fits no layer."""
    maker = _MAKERS.get(node.op_type) if node.domain in STANDARD else None
    layer = maker(node, constants) if maker is not None else None
    if layer is not None and add is not None:
        layer.bias = nn.Parameter(torch.from_numpy(constants[_other_input(add, node.output[0])].copy()))
    return layer


def _key(node: NodeProto, add: NodeProto | None, constants: Constants) -> tuple[Any, ...]:
    """Return what nodes that share a layer have in common: operator, weights, bias and attributes."""
    weights = tuple(name if name in constants else "" for name in node.input)
    bias = _other_input(add, node.output[0]) if add is not None else ""
    return (node.op_type, weights, bias, *sorted(attribute.SerializeToString() for attribute in node.attribute))


def _bias_after(node: NodeProto, constants: Constants, readers: Sequence[NodeProto]) -> NodeProto | None:
    """Return the only reader of a product, when it adds a constant vector."""
    if node.op_type != "MatMul" or len(readers) != 1 or readers[0].op_type != "Add":
        return None
    weight, bias = constants.get(node.input[1]), constants.get(_other_input(readers[0], node.output[0]))
    fits = weight is not None and weight.ndim == _VECTOR_AXES and bias is not None and weight.dtype == bias.dtype
    return readers[0] if fits and bias is not None and weight is not None and bias.shape == weight.shape[1:] else None


def _other_input(add: NodeProto, name: str) -> str:
    """Return the other input of a sum."""
    return next((tensor for tensor in add.input if tensor != name), "")


def _linear(weight: np.ndarray[Any, Any], bias: np.ndarray[Any, Any] | None) -> nn.Linear:
    """Return the layer for a weight (inputs, outputs)."""
    layer = nn.Linear(weight.shape[0], weight.shape[1], bias=bias is not None, device="meta")
    layer.weight = nn.Parameter(torch.from_numpy(weight.T.copy(order="C")))
    if bias is not None:
        layer.bias = nn.Parameter(torch.from_numpy(bias.reshape(-1).copy()))
    return layer


def _matmul(node: NodeProto, constants: Constants) -> nn.Module | None:
    weight = constants.get(node.input[1])
    if weight is None or weight.ndim != _VECTOR_AXES or weight.dtype not in _FLOATS:
        return None
    return _linear(weight, None)


def _gemm(node: NodeProto, constants: Constants) -> nn.Module | None:
    attributes = _attributes(node)
    weight = constants.get(node.input[1])
    if weight is None or weight.dtype not in _FLOATS or attributes.get("transA", 0):
        return None
    if attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0:
        return None
    weight = weight.T if attributes.get("transB", 0) else weight
    bias = constants.get(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if len(node.input) > 2 and node.input[2] and (bias is None or bias.size != weight.shape[1]):
        return None
    return _linear(weight, bias)


class _Padded(nn.Module):  # type: ignore[misc] # the library has no types
    """A convolution behind a padding that differs between the ends of an axis, or depends on the size."""

    def __init__(self, conv: nn.Module, attributes: Mapping[str, Any]) -> None:
        super().__init__()
        self.conv, self.attributes = conv, dict(attributes)

    def forward(self, tensor: Tensor) -> Tensor:
        """Return the convolution of the padded tensor."""
        return torch.as_tensor(self.conv(padded(tensor, pads_of(self.attributes, tensor, self.conv.kernel_size))))


def _conv(node: NodeProto, constants: Constants) -> nn.Module | None:
    weight = constants.get(node.input[1])
    bias = constants.get(node.input[2]) if len(node.input) > 2 else None
    if weight is None or weight.dtype not in _FLOATS or (len(node.input) > 2 and bias is None):
        return None
    attributes, axes = _attributes(node), weight.ndim - 2
    if axes not in _CONVOLUTIONS:
        return None
    pads = list(attributes.get("pads") or [0] * 2 * axes)
    fixed = attributes.get("auto_pad", b"NOTSET") in {b"NOTSET", b"VALID"}
    even = fixed and pads[:axes] == pads[axes:]
    conv = _convolution(weight, attributes, padding=tuple(pads[:axes]) if even else 0, bias=bias is not None)
    conv.weight = nn.Parameter(torch.from_numpy(weight.copy()))
    if bias is not None:
        conv.bias = nn.Parameter(torch.from_numpy(bias.copy()))
    return conv if even else _Padded(conv, attributes)


_CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
"""Layer by number of axes."""


def _convolution(
    weight: np.ndarray[Any, Any], attributes: Mapping[str, Any], *, padding: tuple[int, ...] | int, bias: bool
) -> nn.Module:
    """Return the layer for a weight (outputs, inputs of a group, ...), which it does not have yet."""
    groups, ones = attributes.get("group", 1), [1] * (weight.ndim - 2)
    return _CONVOLUTIONS[weight.ndim - 2](
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),
        stride=tuple(attributes.get("strides") or ones),
        dilation=tuple(attributes.get("dilations") or ones),
        padding=padding,
        groups=groups,
        bias=bias,
    )


def _batch_norm(node: NodeProto, constants: Constants) -> nn.Module | None:
    values = [constants.get(name) for name in node.input[1:5]]
    if any(value is None for value in values):
        return None
    scale, bias, mean, variance = (torch.from_numpy(np.array(value)) for value in values)
    layer = _BatchNorm(len(scale), eps=_attributes(node).get("epsilon", 1e-5))
    layer.load_state_dict(
        {
            "weight": scale,
            "bias": bias,
            "running_mean": mean,
            "running_var": variance,
            "num_batches_tracked": torch.tensor(0),
        }
    )
    return layer


class _BatchNorm(nn.BatchNorm2d):  # type: ignore[misc] # the library has no types
    """A batch norm for any number of axes."""

    def _check_input_dim(self, tensor: Tensor) -> None:
        """Accept any input, because the graph has been checked."""


def _layer_norm(node: NodeProto, constants: Constants) -> nn.Module | None:
    scale = constants.get(node.input[1])
    bias = constants.get(node.input[2]) if len(node.input) > 2 else None
    attributes = _attributes(node)
    if scale is None or bias is None or scale.ndim != 1 or attributes.get("axis", -1) != -1:
        return None
    layer = nn.LayerNorm(len(scale), eps=attributes.get("epsilon", 1e-5))
    layer.load_state_dict({"weight": torch.from_numpy(scale.copy()), "bias": torch.from_numpy(bias.copy())})
    return layer


class _Embedding(nn.Embedding):  # type: ignore[misc] # the library has no types
    """Rows of a table by number."""

    def forward(self, places: Any) -> Tensor:
        """Return the rows; numbers may be sizes, too."""
        return torch.as_tensor(super().forward(as_tensor(places)))


def _embedding(node: NodeProto, constants: Constants) -> nn.Module | None:
    table = constants.get(node.input[0])
    if table is None or table.ndim != _VECTOR_AXES or table.dtype not in _FLOATS or _attributes(node).get("axis", 0):
        return None
    if node.input[1] in constants:
        return None
    layer = _Embedding(*table.shape, device="meta")
    layer.weight = nn.Parameter(torch.from_numpy(table.copy()))
    return layer


_MAKERS = {
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Conv": _conv,
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "Gather": _embedding,
}


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
