"""Learning rate and decay of each weight of a network: the last layer may differ, and only matrices decay.

The last layer of a regression answers in the unit of its labels, so its steps are in that unit too.
"""

from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor, nn

Number: TypeAlias = "float | Tensor"


@dataclass(frozen=True)
class Part:
    """What sets the training of one weight apart from that of the others."""

    head: bool
    """Whether it belongs to the last layer."""
    unit: float
    """What its steps are multiplied by."""
    decays: bool
    """Whether weight decay applies to it."""

    def rate(self, learning_rate: Number, head_rate: Number) -> Number:
        """Return the largest learning rate of the weight."""
        return learning_rate * head_rate * self.unit if self.head else learning_rate * self.unit

    def decay(self, weight_decay: Number, head_decay: Number) -> Number:
        """Return the weight decay. Its product with the learning rate does not depend on the unit."""
        if not self.decays:
            return 0.0
        return weight_decay * head_decay / self.unit if self.head else weight_decay / self.unit


def parts(module: nn.Module, *, unit: float = 1.0) -> dict[str, Part]:
    """Return how each trainable weight is trained, by name.

    Args:
        module: The network.
        unit: Unit of the answers of the last layer.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    head = {id(weight) for weight in layers[-1].parameters()} if layers else set()
    return {
        name: _part(weight, head=id(weight) in head, unit=unit)
        for name, weight in module.named_parameters()
        if weight.requires_grad
    }


def _part(weight: Tensor, *, head: bool, unit: float) -> Part:
    return Part(head=head, unit=unit if head else 1.0, decays=weight.ndim > 1)
