"""Layers that compute in float what 8-bit integers would, so that training learns weights and ranges that round well.

    rounded = round_layers(module, grid)                # weights and inputs of linear layers and convolutions, in place
    find_ranges(module, rounded, batches, answers, task)    # where training starts from
    ...                                                 # nets.loop trains weights and ranges together
    settle(module)                                      # weights are now numbers of the grid

Gradients pass a rounding as if it were not there (straight-through). Ranges of activations are trained with the
weights, with gradients scaled as in Esser et al., Learned Step Size Quantization (2020); one range a tensor, and one
symmetric scale for each output of a layer's weight. What only moves numbers about (pooling, other shapes) shares the
range of what it moves, so that an engine can do it on the integers.
"""

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from optimizer_jobs.nets.conversion.importer import GraphModule, Step
from optimizer_jobs.nets.learning.losses import scores_of, taught
from retune.api.model import Task

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_LAYERS = (nn.Linear, *_CONVOLUTIONS)
_MOVES = {"Flatten", "Identity", "MaxPool", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
"""Operators whose output has no other numbers than their input."""
_CUTS = {"Clip", "Relu"}
"""Operators that an integer kernel does by the end of its range."""
_SEEN = 4096
"""Values of a tensor that are kept of each batch to find its range by, besides smallest and largest."""
_SHARES = (1.0, 0.999, 0.99, 0.95)
"""Shares of values that a range may hold, to choose from: what lies outside is cut."""
_COMPARED = 2
"""Batches on which ranges are compared, at most: each comparison runs the whole network."""
_SMALLEST = 1e-8


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Which integers there are."""

    weight_levels: int
    """Largest weight: 127, or 63 where products of larger ones overflow."""
    per_channel: bool
    """Whether each output of a layer has a scale of its own."""
    signed: bool
    """Whether activations are symmetric integers from -127 to 127; else they are 0 to 255 with a zero point."""


class Rounded(nn.Module):  # type: ignore[misc] # the library has no types
    """A tensor rounded to 8 bits within a range that is trained; before it has one, the tensor as it is."""

    def __init__(self, *, signed: bool) -> None:
        super().__init__()
        self.signed = signed
        self.reach = nn.Parameter(torch.zeros(2))
        """Logarithms of what the ends of the range are multiplied by."""
        self.register_buffer("ends", torch.zeros(2))
        self.register_buffer("found", torch.tensor(data=False))
        self.watching, self._watched = False, list[Tensor]()

    def forward(self, values: Tensor) -> Tensor:
        """Return the values as integers have them, cut to the range."""
        if self.watching:
            self._watched.append(_some(values))
        if not bool(self.found):
            return values
        smallest, largest = (-128, 127) if self.signed else (0, 255)
        fixed, share = self.reach.detach(), (values.numel() * 255) ** -0.5
        if torch.onnx.is_in_onnx_export():
            scale, zero = (float(one) for one in self._grid(fixed))
            return torch.fake_quantize_per_tensor_affine(values, scale, round(zero), smallest, largest)
        scale, zero = self._grid(fixed + share * (self.reach - fixed))
        return ((_straight(values / scale) + zero).clamp(smallest, largest) - zero) * scale

    def spread(self, share: float) -> None:
        """Let the range hold this share of the watched values."""
        seen = torch.cat(self._watched).double()
        low, high = torch.quantile(seen, torch.tensor([1 - share, share], dtype=seen.dtype))
        self.ends.copy_(torch.stack([low.clamp_max(0), high.clamp_min(0)]))
        self.found.fill_(value=True)

    def forget(self) -> None:
        """Drop what was watched."""
        self._watched.clear()

    def _grid(self, reach: Tensor) -> tuple[Tensor, Tensor]:
        """Return scale and zero point."""
        low, high = (self.ends * reach.exp()).unbind()
        if self.signed:
            return (torch.maximum(-low, high) / 127).clamp_min(_SMALLEST), torch.zeros(())
        scale = ((high - low) / 255).clamp_min(_SMALLEST)
        return scale, _straight(-low / scale)


class _RoundedWeights(nn.Module):  # type: ignore[misc] # the library has no types
    """Weights as multiples of a scale, which is what the largest of them needs."""

    def __init__(self, grid: Grid) -> None:
        super().__init__()
        self.grid = grid

    def forward(self, weight: Tensor) -> Tensor:
        sizes = weight.detach().abs()
        largest = sizes.amax(tuple(range(1, weight.ndim)), keepdim=True) if self.grid.per_channel else sizes.amax()
        scale = (largest / self.grid.weight_levels).clamp_min(_SMALLEST)
        return _straight(weight / scale) * scale


def round_layers(module: GraphModule, grid: Grid) -> list[Rounded]:
    """Round weights and inputs of every linear layer and convolution, and what convolutions answer, in place.

    Returns what rounds activations, in the order of the graph; none has a range yet.
    """
    places = _places(module, grid)
    for layer in _layers(module):
        parametrize.register_parametrization(layer, "weight", _RoundedWeights(grid))
    names = {tensor: f"{tensor}/rounded" for tensor in places}
    steps = [_rounding(tensor, name) for tensor, name in names.items() if tensor in module.inputs]
    for step in module.steps:
        steps.append(dataclasses.replace(step, inputs=tuple(names.get(one, one) for one in step.inputs)))
        steps += [_rounding(tensor, names[tensor]) for tensor in step.outputs if tensor in names]
    module.steps = steps
    for step in steps:
        if step.operator == _ROUNDING:
            module.add_layer(step.name, places[step.inputs[0]])
    return list(dict.fromkeys(places[step.inputs[0]] for step in steps if step.operator == _ROUNDING))


_ROUNDING = "retune.Rounded"


def find_ranges(
    module: GraphModule,
    rounded: Sequence[Rounded],
    batches: Sequence[tuple[Tensor, ...]],
    answers: Sequence[Tensor],
    task: Task,
) -> None:
    """Give every rounding, in order, the range with which the answers stay closest to those of the float module.

    `batches` are real inputs and `answers` what the module said to each before it was rounded. Weights are rounded
    already; what comes later in the graph is not yet.
    """

    def missed(one: Rounded, share: float) -> float:
        one.spread(share)
        far = [
            taught(task, scores_of(module(*batch)), wanted, temperature=1.0)
            for batch, wanted in zip(batches[:_COMPARED], answers[:_COMPARED], strict=True)
        ]
        return float(torch.stack(far).mean())

    with torch.no_grad():
        with _watched(rounded):
            for batch in batches:
                module(*batch)
        for one in rounded:
            errors = {share: missed(one, share) for share in _SHARES}
            one.spread(min(errors, key=lambda share: errors[share]))
            one.forget()


def settle(module: nn.Module) -> None:
    """Make the rounded weights the weights."""
    for layer in module.modules():
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)


@contextmanager
def _watched(rounded: Sequence[Rounded]) -> Iterator[None]:
    for one in rounded:
        one.watching = True
    try:
        yield
    finally:
        for one in rounded:
            one.watching = False


def _layers(module: GraphModule) -> dict[nn.Module, None]:
    """Return the layers that are rounded, each once, in the order of the graph."""
    found = (module.layer_of(step) for step in module.steps)
    return dict.fromkeys(layer for layer in found if isinstance(layer, _LAYERS))


def _places(module: GraphModule, grid: Grid) -> dict[str, Rounded]:
    """Return what rounds each tensor that is rounded; tensors of the same numbers share it."""
    makers = {tensor: step for step in module.steps for tensor in step.outputs}
    readers = Counter(tensor for step in module.steps for tensor in step.inputs)
    shown = {*module.outputs, *module.tail.taps}
    places: dict[str, Rounded] = {}
    for step in module.steps:
        layer = module.layer_of(step)
        if not isinstance(layer, _LAYERS):
            continue
        taken = step.inputs[0]
        source = _source(taken, makers)
        if source in makers or source in module.inputs:
            places[taken] = places.setdefault(source, places.get(taken) or Rounded(signed=grid.signed))
        made = _cut(step, module.steps, shown)
        if isinstance(layer, _CONVOLUTIONS) and readers[made]:
            places.setdefault(made, Rounded(signed=grid.signed))
    return places


def _source(tensor: str, makers: Mapping[str, Step]) -> str:
    """Return the tensor that has the same numbers, as far up as there is one."""
    while tensor in makers and makers[tensor].operator in _MOVES:
        tensor = makers[tensor].inputs[0]
    return tensor


def _cut(step: Step, steps: Sequence[Step], shown: Collection[str]) -> str:
    """Return what a layer answers, after the only operator that reads it where that cuts a range."""
    made = step.outputs[0]
    readers = [one for one in steps if made in one.inputs]
    alone = len(readers) == 1 and made not in shown and readers[0].operator in _CUTS
    return readers[0].outputs[0] if alone else made


def _rounding(tensor: str, name: str) -> Step:
    return Step(name=name, operator=_ROUNDING, inputs=(tensor,), outputs=(name,))


def _some(values: Tensor) -> Tensor:
    """Return some of the values, with the smallest and the largest."""
    flat = values.detach().flatten()
    return torch.cat([flat[:: max(1, len(flat) // _SEEN)], flat.amin()[None], flat.amax()[None]])


def _straight(values: Tensor) -> Tensor:
    """Round; a gradient passes as if nothing were done."""
    return values + (values.round() - values).detach()
