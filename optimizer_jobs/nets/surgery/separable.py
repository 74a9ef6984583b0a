"""Split dense convolutions into a depthwise one, which filters each channel, and a pointwise one, which mixes channels.

A dense convolution has a filter for each pair of channels. Here every input channel has one filter that all outputs
share (Howard et al., MobileNets, 2017), which is about k * k times less work. The shared filter is the first singular
vector of all filters of its channel, so the pair starts as the closest approximation, and training goes on from there.
"""

from math import prod

import torch
from torch import Tensor, nn

from optimizer_jobs.nets.conversion.importer import GraphModule
from optimizer_jobs.nets.dense import is_dense


def separate_layers(module: GraphModule, share: float, examples: tuple[Tensor, ...]) -> tuple[int, int]:
    """Replace, in place, the heaviest dense convolutions of a module.

    Args:
        module: The imported graph.
        share: Share of the dense convolutions that is replaced, 0 to 1; at least one is. Those with the most
            multiplications come first, and among equals those with the most weights.
        examples: Rows to run it on, each input (N, ...).

    Returns:
        How many convolutions were replaced, and how many dense ones there were.
    """
    work = _work(module, examples)
    heaviest = sorted(work, key=lambda layer: (work[layer], layer.weight.numel()), reverse=True)
    pairs = {layer: _pair(layer) for layer in heaviest[: max(1, round(share * len(heaviest)))]}
    for name, layer in module.layers.items():
        module.layers[name] = pairs.get(layer, layer)  # nodes that share a layer then share its pair
    return len(pairs), len(work)


def _work(module: GraphModule, examples: tuple[Tensor, ...]) -> dict[nn.Module, int]:
    """Return the multiplications of each dense convolution, in the order of the graph."""
    shapes = module.shapes(examples)
    work: dict[nn.Module, int] = {}
    for step in module.steps:
        layer = module.layer_of(step)
        if isinstance(layer, nn.Conv2d) and _dense(layer):
            work[layer] = work.get(layer, 0) + layer.weight.numel() * prod(shapes[step.outputs[0]][2:])
    return work


def _dense(layer: nn.Conv2d) -> bool:
    return bool(layer.groups == 1 and is_dense(channels=layer.in_channels, kernel=layer.kernel_size))


def _pair(layer: nn.Conv2d) -> nn.Sequential:
    """Return the depthwise and the pointwise convolution whose product is closest to a dense one."""
    outputs, inputs = layer.weight.shape[:2]
    filters = layer.weight.detach().transpose(0, 1).reshape(inputs, outputs, -1)
    left, values, right = torch.linalg.svd(filters, full_matrices=False)
    roots = values[:, :1].sqrt()
    depthwise = nn.Conv2d(
        inputs,
        inputs,
        layer.kernel_size,
        stride=layer.stride,
        padding=layer.padding,
        dilation=layer.dilation,
        groups=inputs,
        bias=False,
    )
    pointwise = nn.Conv2d(inputs, outputs, 1, bias=layer.bias is not None)
    with torch.no_grad():
        depthwise.weight.copy_((roots * right[:, 0]).reshape(depthwise.weight.shape))
        pointwise.weight.copy_((roots * left[:, :, 0]).T.reshape(pointwise.weight.shape))
        if layer.bias is not None:
            pointwise.bias.copy_(layer.bias)
    return nn.Sequential(depthwise, pointwise).train(layer.training)
