"""Layers that compute in float what 8-bit integers would, so that training learns weights and ranges that round well.

    rounded = round_layers(module, grid)                    # in place: weights and inputs of layers are rounded
    find_ranges(module, rounded, batches, answers, task)    # ranges to start training from
    ...                                                     # learning.loop trains weights and ranges together
    settle(module)                                          # weights are now whole multiples of their scales

Gradients pass a rounding as if it were not there (straight-through). Ranges of activations are trained with the
weights, with gradients scaled as in Esser et al., Learned Step Size Quantization (2020). Each tensor has one range, and
each output of a layer's weight one symmetric scale. Operators that only move numbers (pooling, other shapes) share the
range of their input, so that an engine can run them on the integers.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from optimizer_jobs.nets.conversion.importer import GraphModule, Step
from optimizer_jobs.nets.learning.losses import scores_of, taught
from optimizer_jobs.technique import Alive
from retune.api.model import Task

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_LAYERS = (nn.Linear, *_CONVOLUTIONS)
_MOVES = {"Flatten", "Identity", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
"""Operators whose output has only numbers of their input."""
_CUTS = {"Clip", "Relu"}
"""Operators that an integer kernel applies for free, because numbers outside of its range are cut."""
_WATCHED = 4096
"""Values of a tensor that are watched in each batch, besides the smallest and the largest."""
_SHARES = (1.0, 0.999, 0.99, 0.95)
"""Shares of values that a range may hold; values outside are cut. The best of them is chosen."""
_COMPARED = 2
"""Batches on which ranges are compared, at most, because each comparison runs the whole network."""
_SMALLEST = 1e-8
"""Smallest scale."""
_ROUNDING = "retune.Rounded"
"""Operator of the steps that round a tensor."""


@dataclass(frozen=True, kw_only=True)
class Grid:
    """The integers that numbers are rounded to."""

    weight_levels: int
    """Largest integer of a weight: 127, or 63 where products of larger ones overflow."""
    per_channel: bool
    """Whether each output of a layer has a scale of its own."""
    signed: bool
    """Whether activations are -128 to 127 around zero; else they are 0 to 255 with a zero point."""


class Rounded(nn.Module):  # type: ignore[misc] # the library has no types
    """Rounds a tensor to 8 bits within a range that is trained. It changes nothing before it has a range."""

    def __init__(self, *, signed: bool) -> None:
        super().__init__()
        self.signed = signed
        self.reach = nn.Parameter(torch.zeros(2))
        """Logarithms of the factors by which training moves the ends of the range."""
        self.register_buffer("ends", torch.zeros(2))
        self.register_buffer("has_range", torch.tensor(data=False))
        self.watching, self._watched = False, list[Tensor]()

    def forward(self, values: Tensor) -> Tensor:
        """Return the values rounded as integers are, and cut to the range."""
        if self.watching:
            self._watched.append(_subsample(values))
        if not bool(self.has_range):
            return values
        smallest, largest = (-128, 127) if self.signed else (0, 255)
        fixed, share = self.reach.detach(), (values.numel() * 255) ** -0.5
        if torch.onnx.is_in_onnx_export():
            scale, zero = (float(number) for number in self._grid(fixed))
            return torch.fake_quantize_per_tensor_affine(values, scale, round(zero), smallest, largest)
        scale, zero = self._grid(fixed + share * (self.reach - fixed))
        return ((_straight(values / scale) + zero).clamp(smallest, largest) - zero) * scale

    def set_range(self, share: float) -> None:
        """Set the range so that it holds this share, 0 to 1, of the watched values."""
        watched = torch.cat(self._watched).double()
        low, high = torch.quantile(watched, torch.tensor([1 - share, share], dtype=watched.dtype))
        self.ends.copy_(torch.stack([low.clamp_max(0), high.clamp_min(0)]))
        self.has_range.fill_(value=True)

    def forget(self) -> None:
        """Drop the watched values."""
        self._watched.clear()

    def _grid(self, reach: Tensor) -> tuple[Tensor, Tensor]:
        """Return scale and zero point of the range."""
        low, high = (self.ends * reach.exp()).unbind()
        if self.signed:
            return (torch.maximum(-low, high) / 127).clamp_min(_SMALLEST), torch.zeros(())
        scale = ((high - low) / 255).clamp_min(_SMALLEST)
        return scale, _straight(-low / scale)


class _RoundedWeights(nn.Module):  # type: ignore[misc] # the library has no types
    """Rounds weights to whole multiples of a scale, which follows from the largest of them."""

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, weight: Tensor) -> Tensor:
        sizes = weight.detach().abs()
        largest = sizes.amax(tuple(range(1, weight.ndim)), keepdim=True) if self.grid.per_channel else sizes.amax()
        scale = (largest / self.grid.weight_levels).clamp_min(_SMALLEST)
        return _straight(weight / scale) * scale


def round_layers(module: GraphModule, grid: Grid) -> list[Rounded]:
    """Round, in place, weights and inputs of every linear layer and convolution, and outputs of convolutions.

    Returns:
        What rounds activations, in the order of the graph. None of them has a range yet.
    """
    roundings = _roundings(module, grid)
    for layer in _layers(module):
        parametrize.register_parametrization(layer, "weight", _RoundedWeights(grid))
    names = {tensor: f"{tensor}/rounded" for tensor in roundings}
    steps = [_rounding_step(tensor, name) for tensor, name in names.items() if tensor in module.inputs]
    for step in module.steps:
        steps.append(dataclasses.replace(step, inputs=tuple(names.get(tensor, tensor) for tensor in step.inputs)))
        steps += [_rounding_step(tensor, names[tensor]) for tensor in step.outputs if tensor in names]
    module.steps = steps
    rounded = {step.name: roundings[step.inputs[0]] for step in steps if step.operator == _ROUNDING}
    for name, rounding in rounded.items():
        module.add_layer(name, rounding)
    return list(dict.fromkeys(rounded.values()))


def find_ranges(
    module: GraphModule,
    rounded: Sequence[Rounded],
    batches: Sequence[tuple[Tensor, ...]],
    answers: Sequence[Tensor],
    task: Task,
    *,
    scores: Callable[[Any], Tensor] = scores_of,
    alive: Alive | None = None,
) -> None:
    """Give every rounding, in order, the range with which the answers stay closest to those of the float module.

    Args:
        module: The module after `round_layers`. Its weights are rounded already; its activations become rounded one
            after the other.
        rounded: What rounds its activations.
        batches: Real inputs.
        answers: Scores of the float module for each batch.
        task: What the scores are.
        scores: Takes the scores of the module from its answers, as `answers` were taken from those of the float module.
        alive: Asked before each range that is tried; what it raises passes through.
    """

    def error() -> float:
        if alive is not None:
            alive()
        distances = [
            taught(task, scores(module(*batch)), expected, temperature=1.0)
            for batch, expected in zip(batches[:_COMPARED], answers[:_COMPARED], strict=True)
        ]
        return float(torch.stack(distances).mean())

    with torch.no_grad():
        with _watching(rounded):
            for batch in batches:
                module(*batch)
        for rounding in rounded:
            errors = dict[float, float]()
            for share in _SHARES:
                rounding.set_range(share)
                errors[share] = error()
            rounding.set_range(min(_SHARES, key=errors.__getitem__))
            rounding.forget()


def settle(module: nn.Module) -> None:
    """Replace the weights, in place, by the rounded weights."""
    for layer in module.modules():
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


@contextmanager
def _watching(rounded: Sequence[Rounded]) -> Iterator[None]:
    for rounding in rounded:
        rounding.watching = True
    try:
        yield
    finally:
        for rounding in rounded:
            rounding.watching = False


def _layers(module: GraphModule) -> dict[nn.Module, None]:
    """Return the layers that are rounded, each once, in the order of the graph."""
    layers = (module.layer_of(step) for step in module.steps)
    return dict.fromkeys(layer for layer in layers if isinstance(layer, _LAYERS))


def _roundings(module: GraphModule, grid: Grid) -> dict[str, Rounded]:
    """Return what rounds each tensor that is rounded; tensors with the same numbers share it."""
    makers = {tensor: step for step in module.steps for tensor in step.outputs}
    readers = Counter(tensor for step in module.steps for tensor in step.inputs)
    exposed = {*module.outputs, *module.tail.taps}
    roundings: dict[str, Rounded] = {}
    for step in module.steps:
        layer = module.layer_of(step)
        if not isinstance(layer, _LAYERS):
            continue
        tensor = step.inputs[0]
        source = _source(tensor, makers)
        if source in makers or source in module.inputs:
            roundings[tensor] = roundings.setdefault(source, roundings.get(tensor) or Rounded(signed=grid.signed))
        output = _cut_output(step, module.steps, exposed)
        if isinstance(layer, _CONVOLUTIONS) and readers[output]:
            roundings.setdefault(output, Rounded(signed=grid.signed))
    return roundings


def _source(tensor: str, makers: Mapping[str, Step]) -> str:
    """Return the earliest tensor that has the same numbers."""
    while tensor in makers and makers[tensor].operator in _MOVES:
        tensor = makers[tensor].inputs[0]
    return tensor


def _cut_output(step: Step, steps: Sequence[Step], exposed: Collection[str]) -> str:
    """Return the output of a layer, or that of the operator behind it when this alone reads it and only cuts it."""
    output = step.outputs[0]
    readers = [reader for reader in steps if output in reader.inputs]
    cut = len(readers) == 1 and output not in exposed and readers[0].operator in _CUTS
    return readers[0].outputs[0] if cut else output


def _rounding_step(tensor: str, name: str) -> Step:
    return Step(name=name, operator=_ROUNDING, inputs=(tensor,), outputs=(name,))


def _subsample(values: Tensor) -> Tensor:
    """Return a part of the values, with the smallest and the largest."""
    flat = values.detach().flatten()
    return torch.cat([flat[:: max(1, len(flat) // _WATCHED)], flat.amin()[None], flat.amax()[None]])


def _straight(values: Tensor) -> Tensor:
    """Return the values rounded; a gradient passes as if they were not."""
    return values + (values.round() - values).detach()
