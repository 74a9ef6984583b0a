"""Split linear layers and convolutions into two thinner ones by their singular values."""

import torch
from torch import nn

from optimizer_jobs.nets.conversion.importer import GraphModule

_LEAST_SIDE = 24
"""Inputs or outputs below which a layer is not split."""
_LEAST_RANK = 2
"""Smallest rank that is kept."""


def split_layers(module: GraphModule, share: float) -> tuple[int, int]:
    """Split, in place, every layer of a module that gets smaller by it.

    Args:
        module: The imported graph.
        share: Rank that is kept, as a share of the full rank, 0 to 1.

    Returns:
        How many layers were split, and how many could be.
    """
    layers = [layer for layer in dict.fromkeys(module.layers.values()) if _can_be_split(layer)]
    pairs = {layer: pair for layer in layers if (pair := _split(layer, share)) is not None}
    for name, layer in module.layers.items():
        module.layers[name] = pairs.get(layer, layer)  # nodes that share a layer then share its pair
    return len(pairs), len(layers)


def _can_be_split(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)


def _split(layer: nn.Module, share: float) -> nn.Module | None:
    """Return two layers in place of one, or None when they would not be smaller."""
    weight = layer.weight.detach()
    matrix = weight.flatten(1)
    rank = max(_LEAST_RANK, round(share * min(matrix.shape)))
    if min(matrix.shape) < _LEAST_SIDE or rank * sum(matrix.shape) >= matrix.numel():
        return None
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    roots = values[:rank].sqrt()
    inner, outer = roots[:, None] * right[:rank], left[:, :rank] * roots
    if isinstance(layer, nn.Linear):
        return _linear(layer, inner, outer)
    return _conv(layer, inner.reshape(rank, *weight.shape[1:]), outer[:, :, None, None])


def _linear(layer: nn.Linear, inner: torch.Tensor, outer: torch.Tensor) -> nn.Sequential:
    first = nn.Linear(layer.in_features, len(inner), bias=False)
    second = nn.Linear(len(inner), layer.out_features, bias=layer.bias is not None)
    return _filled(layer, first, second, inner, outer)


def _conv(layer: nn.Conv2d, inner: torch.Tensor, outer: torch.Tensor) -> nn.Sequential:
    """Return a convolution into few channels, then one of single pixels into all channels."""
    first = nn.Conv2d(
        layer.in_channels,
        len(inner),
        layer.kernel_size,
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        bias=False,
    )
    second = nn.Conv2d(len(inner), layer.out_channels, 1, bias=layer.bias is not None)
    return _filled(layer, first, second, inner, outer)


def _filled(
    layer: nn.Module, first: nn.Module, second: nn.Module, inner: torch.Tensor, outer: torch.Tensor
) -> nn.Sequential:
    """Return the pair with its weights, and the bias of the layer that it replaces."""
    with torch.no_grad():
        first.weight.copy_(inner)
        second.weight.copy_(outer)
        if layer.bias is not None:
            second.bias.copy_(layer.bias)
    return nn.Sequential(first, second).train(layer.training)
