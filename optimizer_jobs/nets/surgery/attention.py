"""Find the attentions of an imported graph: linear layers around a product of shares (from a Softmax) and values."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch_pruning
from torch import Tensor, nn

from optimizer_jobs.nets.conversion.importer import GraphModule, Step

_PASSED = {
    "Add",
    "Cast",
    "Clip",
    "Div",
    "Dropout",
    "Expand",
    "Identity",
    "Mul",
    "Reshape",
    "Softmax",
    "Sub",
    "Transpose",
    "Unsqueeze",
    "Where",
}
"""Operators that may lie between the linear layers and the products."""


@dataclass(frozen=True)
class Attention:
    """The four linear layers around one attention. Each head is a block of `size` channels of all four."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    joined: nn.Linear
    """The layer that joins the heads."""
    size: int
    """Channels of a head."""

    @property
    def split(self) -> tuple[nn.Linear, ...]:
        """The layers whose outputs are blocks of heads."""
        return (self.query, self.key, self.value)

    @property
    def heads(self) -> int:
        """How many heads there are now."""
        return int(self.joined.in_features) // self.size

    def importance(self) -> Tensor:
        """Return how much each head matters, (heads,)."""
        outputs = [_importance(layer).sum(1) for layer in self.split]
        channels = torch.stack([*outputs, _importance(self.joined).sum(0)]).sum(0)
        return channels.reshape(-1, self.size).sum(1)

    def remove(self, heads: Sequence[int]) -> None:
        """Remove the channels of these heads from all layers."""
        channels = [head * self.size + channel for head in sorted(heads) for channel in range(self.size)]
        for layer in self.split:
            torch_pruning.prune_linear_out_channels(layer, channels)
        torch_pruning.prune_linear_in_channels(self.joined, channels)


def _importance(layer: nn.Linear) -> Tensor:
    """Return how much each weight matters: what it changes in the loss where it has a gradient, else its square."""
    weight: Tensor = layer.weight.detach()
    return (weight * layer.weight.grad).abs() if layer.weight.grad is not None else weight.square()


def attentions(module: GraphModule, examples: tuple[Tensor, ...]) -> Iterator[Attention]:
    """Yield every attention whose layers consist of blocks of one size.

    Args:
        module: The imported graph.
        examples: Rows to run it on, each input (N, ...).
    """
    makers = {output: step for step in module.steps for output in step.outputs}
    shapes = module.shapes(examples)
    for step in module.steps:
        layers = _layers_around(module, step, makers) if step.operator == "MatMul" and not step.layer else None
        if layers is None:
            continue
        query, key, value, joined = layers
        size = int(shapes[step.outputs[0]][-1])
        whole = {layer.out_features for layer in (query, key, value)} == {joined.in_features}
        distinct = len({id(layer) for layer in layers}) == len(layers)
        if whole and distinct and joined.in_features % size == 0:
            yield Attention(query, key, value, joined, size)


def _layers_around(module: GraphModule, mix: Step, makers: Mapping[str, Step]) -> tuple[nn.Linear, ...] | None:
    """Return the query, key, value and joining layers around `mix`, the product of shares and values, or None."""
    shares = _step_before(mix.inputs[0], makers, operator="Softmax")
    product = _step_before(shares.inputs[0], makers, operator="MatMul") if shares is not None else None
    if product is None or product.layer:
        return None
    before = [_linear_before(module, name, makers) for name in (*product.inputs, mix.inputs[1])]
    layers = [*before, _linear_after(module, mix.outputs[0])]
    return tuple(layer for layer in layers if layer is not None) if None not in layers else None


def _step_before(name: str, makers: Mapping[str, Step], *, operator: str) -> Step | None:
    """Return the nearest step with this operator from which a tensor comes, through operators that may lie between."""
    step = makers.get(name)
    if step is None or step.operator == operator:
        return step
    if step.layer or step.operator not in _PASSED:
        return None
    steps = (_step_before(tensor, makers, operator=operator) for tensor in step.inputs)
    return next((before for before in steps if before is not None), None)


def _linear_before(module: GraphModule, name: str, makers: Mapping[str, Step]) -> nn.Linear | None:
    """Return the nearest linear layer from which a tensor comes, through operators that may lie between."""
    step = makers.get(name)
    if step is None or (not step.layer and step.operator not in _PASSED):
        return None
    layer = module.layer_of(step)
    if layer is not None:
        return layer if isinstance(layer, nn.Linear) else None
    layers = (_linear_before(module, tensor, makers) for tensor in step.inputs)
    return next((before for before in layers if before is not None), None)


def _linear_after(module: GraphModule, name: str) -> nn.Linear | None:
    """Return the linear layer that alone reads a tensor, through operators that may lie between, or None."""
    while True:
        readers = [step for step in module.steps if name in step.inputs and step.operator != "Shape"]
        if len(readers) != 1:
            return None
        layer = module.layer_of(readers[0])
        if layer is not None or readers[0].operator not in _PASSED:
            return layer if isinstance(layer, nn.Linear) else None
        name = readers[0].outputs[0]
