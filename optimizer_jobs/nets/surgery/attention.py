"""Finding the attentions of an imported graph: linear layers around a product of shares (a softmax) with values."""

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
"""Operators between the linear layers and the products."""


@dataclass(frozen=True)
class Attention:
    """The four linear layers around one attention; a head is a block of `size` channels of each."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    joined: nn.Linear
    size: int

    @property
    def split(self) -> tuple[nn.Linear, ...]:
        """Those whose outputs are blocks of heads."""
        return (self.query, self.key, self.value)

    @property
    def heads(self) -> int:
        """How many there are now."""
        return int(self.joined.in_features) // self.size

    def importance(self) -> Tensor:
        """Return (heads,) how much each matters."""
        rows = [_weighed(layer).sum(1) for layer in self.split]
        each = torch.stack([*rows, _weighed(self.joined).sum(0)]).sum(0)
        return each.reshape(-1, self.size).sum(1)

    def remove(self, heads: Sequence[int]) -> None:
        """Take heads out for good."""
        channels = [head * self.size + channel for head in sorted(heads) for channel in range(self.size)]
        for layer in self.split:
            torch_pruning.prune_linear_out_channels(layer, channels)
        torch_pruning.prune_linear_in_channels(self.joined, channels)


def _weighed(layer: nn.Linear) -> Tensor:
    """Return how much each weight matters: its change of the loss where there is a gradient, else its size."""
    weight: Tensor = layer.weight.detach()
    return (weight * layer.weight.grad).abs() if layer.weight.grad is not None else weight.square()


def attentions(module: GraphModule, given: tuple[Tensor, ...]) -> Iterator[Attention]:
    """Yield every attention whose layers have blocks of one size. `given` are rows to run the module on."""
    maker = {output: step for step in module.steps for output in step.outputs}
    sizes = module.shapes(given)
    for step in module.steps:
        found = _around(module, step, maker) if step.operator == "MatMul" and not step.layer else None
        if found is None:
            continue
        query, key, value, joined = found
        size = int(sizes[step.outputs[0]][-1])
        whole = {layer.out_features for layer in (query, key, value)} == {joined.in_features}
        if whole and len({id(layer) for layer in found}) == len(found) and joined.in_features % size == 0:
            yield Attention(query, key, value, joined, size)


def _around(module: GraphModule, mix: Step, maker: Mapping[str, Step]) -> tuple[nn.Linear, ...] | None:
    """Return query, key, value and joining layer around the product `mix` of shares and values, or None."""
    shares = _back(mix.inputs[0], maker, until="Softmax")
    product = _back(shares.inputs[0], maker, until="MatMul") if shares is not None else None
    if product is None or product.layer:
        return None
    linear = [_linear_before(module, name, maker) for name in (*product.inputs, mix.inputs[1])]
    found = [*linear, _linear_after(module, mix.outputs[0])]
    return tuple(layer for layer in found if layer is not None) if None not in found else None


def _back(name: str, maker: Mapping[str, Step], *, until: str) -> Step | None:
    """Return the nearest step of an operator that a tensor comes from by steps that are passed."""
    step = maker.get(name)
    if step is None or step.operator == until:
        return step
    if step.layer or step.operator not in _PASSED:
        return None
    found = (_back(given, maker, until=until) for given in step.inputs)
    return next((each for each in found if each is not None), None)


def _linear_before(module: GraphModule, name: str, maker: Mapping[str, Step]) -> nn.Linear | None:
    """Return the nearest linear layer that a tensor comes from by steps that are passed."""
    step = maker.get(name)
    if step is None or (not step.layer and step.operator not in _PASSED):
        return None
    layer = module.layer_of(step)
    if layer is not None:
        return layer if isinstance(layer, nn.Linear) else None
    found = (_linear_before(module, given, maker) for given in step.inputs)
    return next((each for each in found if each is not None), None)


def _linear_after(module: GraphModule, name: str) -> nn.Linear | None:
    while True:
        readers = [step for step in module.steps if name in step.inputs and step.operator != "Shape"]
        if len(readers) != 1:
            return None
        layer = module.layer_of(readers[0])
        if layer is not None or readers[0].operator not in _PASSED:
            return layer if isinstance(layer, nn.Linear) else None
        name = readers[0].outputs[0]
