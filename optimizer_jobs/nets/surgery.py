"""Which neurons, channels and attention heads of a network can be removed, how much each matters, and removing them.

A group is a set of units that can go one by one without anything else to change: what depends on what is found by
torch-pruning, and tried on a copy before it is believed. Outputs keep their size.
"""

import copy
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch_pruning
from torch import Tensor, nn

from optimizer_jobs.nets.importer import GraphModule, Step

NEURONS, CHANNELS, HEADS = "neurons", "channels", "heads"
_PASSED = {"Add", "Cast", "Clip", "Div", "Dropout", "Expand", "Identity", "Mul", "Reshape", "Softmax", "Sub",
           "Transpose", "Unsqueeze", "Where"}  # fmt: skip
"""Operators between the linear layers and the products of an attention."""


@dataclass(frozen=True)
class Group:
    """Units of one place."""

    kind: str
    units: int
    importance: Callable[[], Tensor]
    """Returns (units,) how much each matters, by weights and, where there are, their gradients."""
    remove: Callable[[Sequence[int]], None]
    """Takes units out of the module for good; groups found before are stale afterwards."""


def groups(module: GraphModule, examples: tuple[Tensor, ...]) -> list[Group]:
    """Return every group of a module, in the order of its graph. `examples` are inputs to try it on."""
    heads = list(_attentions(module, examples))
    taken = {id(layer) for each in heads for layer in each.layers}
    return [*_layer_groups(module, examples, taken), *(each.group() for each in heads)]


def _layer_groups(module: GraphModule, examples: tuple[Tensor, ...], taken: set[int]) -> Iterator[Group]:
    seen: set[int] = set()
    for name, layer in module.layers.items():
        if id(layer) in taken | seen or not isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d):
            continue
        members = _removable(module, name, examples)
        if members is not None:
            seen |= members
            yield _layer_group(module, layer, examples)


def _removable(module: GraphModule, name: str, examples: tuple[Tensor, ...]) -> set[int] | None:
    """Return the layers that lose outputs together with the layer of this name, or None when none can be lost."""
    trial = copy.deepcopy(module)
    layer = trial.layers[name]
    try:
        group = _dependencies(trial, layer, examples, [0])
        outs = [dep.target.name.split(" ")[0] for dep, _ in group if "out_channels" in str(dep.handler)]
        before = _shapes(trial, examples)
        group.prune()
        same = _shapes(trial, examples) == before
    except (RuntimeError, ValueError, IndexError, KeyError, AttributeError):
        return None
    if not same or _width(layer) < 1:
        return None
    return {id(dict(module.named_modules())[path]) for path in outs if path in dict(module.named_modules())}


def _dependencies(
    module: nn.Module, layer: nn.Module, examples: tuple[Tensor, ...], units: Sequence[int]
) -> torch_pruning.Group:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # weights outside of layers are pruned along their last axis, as they should be
        graph = torch_pruning.DependencyGraph().build_dependency(module, example_inputs=examples)
    return graph.get_pruning_group(layer, _remover(layer), idxs=list(units))


def _layer_group(module: GraphModule, layer: nn.Module, examples: tuple[Tensor, ...]) -> Group:
    units = _width(layer)

    def importance() -> Tensor:
        group = _dependencies(module, layer, examples, range(units))
        found = _measure(layer)(group)
        return _per_unit(layer) if found is None else torch.as_tensor(found)

    return Group(
        kind=NEURONS if isinstance(layer, nn.Linear) else CHANNELS, units=units, importance=importance,
        remove=lambda chosen: _dependencies(module, layer, examples, chosen).prune(),
    )  # fmt: skip


def _measure(layer: nn.Module) -> Callable[[torch_pruning.Group], Tensor | None]:
    if next(layer.parameters()).grad is None:
        return torch_pruning.importance.GroupMagnitudeImportance(p=2, normalizer=None)  # type: ignore[no-any-return]
    return torch_pruning.importance.GroupTaylorImportance(normalizer=None)  # type: ignore[no-any-return]


def _per_unit(layer: nn.Module) -> Tensor:
    weight: Tensor = layer.weight
    return weight.detach().flatten(1).norm(dim=1)


def _remover(layer: nn.Module) -> Callable[..., nn.Module]:
    linear = isinstance(layer, nn.Linear)
    return torch_pruning.prune_linear_out_channels if linear else torch_pruning.prune_conv_out_channels  # type: ignore[no-any-return]


def _width(layer: nn.Module) -> int:
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)


def _shapes(module: nn.Module, examples: tuple[Tensor, ...]) -> list[torch.Size]:
    with torch.no_grad():
        answers = module(*examples)
    return [answer.shape for answer in (answers if isinstance(answers, tuple) else (answers,))]


@dataclass(frozen=True)
class _Attention:
    """The four linear layers around one attention; a head is a block of `size` channels of each."""

    query: nn.Linear
    key: nn.Linear
    value: nn.Linear
    joined: nn.Linear
    size: int

    @property
    def layers(self) -> tuple[nn.Linear, ...]:
        return (self.query, self.key, self.value, self.joined)

    def group(self) -> Group:
        return Group(
            kind=HEADS, units=self.joined.in_features // self.size, importance=self._importance, remove=self._remove
        )

    def _importance(self) -> Tensor:
        rows = [_weighed(layer).sum(1) for layer in (self.query, self.key, self.value)]
        each = torch.stack([*rows, _weighed(self.joined).sum(0)]).sum(0)
        return each.reshape(-1, self.size).sum(1)

    def _remove(self, heads: Sequence[int]) -> None:
        channels = [head * self.size + channel for head in sorted(heads) for channel in range(self.size)]
        for layer in (self.query, self.key, self.value):
            torch_pruning.prune_linear_out_channels(layer, channels)
        torch_pruning.prune_linear_in_channels(self.joined, channels)


def _weighed(layer: nn.Linear) -> Tensor:
    """Return how much each weight matters: its change of the loss where there is a gradient, else its size."""
    weight: Tensor = layer.weight.detach()
    return (weight * layer.weight.grad).abs() if layer.weight.grad is not None else weight.square()


def _attentions(module: GraphModule, examples: tuple[Tensor, ...]) -> Iterator[_Attention]:
    """Yield every attention whose heads can go: a product of a softmax with values, between linear layers."""
    maker = {output: step for step in module.steps for output in step.outputs}
    sizes = module.shapes(examples)
    for step in module.steps:
        if step.operator != "MatMul" or step.layer:
            continue
        found = _attention(module, step, maker)
        if found is None:
            continue
        query, key, value, joined = found
        size = int(sizes[step.outputs[0]][-1])
        whole = {layer.out_features for layer in (query, key, value)} == {joined.in_features}
        if whole and joined.in_features % size == 0 and joined.in_features > size:
            attention = _Attention(query, key, value, joined, size)
            if _heads_are_blocks(module, attention, examples):
                yield attention


def _attention(module: GraphModule, mix: Step, maker: dict[str, Step]) -> tuple[nn.Linear, ...] | None:
    """Return query, key, value and joining layer around the product `mix` of shares and values, or None."""
    shares = _back(mix.inputs[0], maker, until="Softmax")
    product = _back(shares.inputs[0], maker, until="MatMul") if shares is not None else None
    if product is None or product.layer:
        return None
    linear = [_linear_before(module, name, maker) for name in (*product.inputs, mix.inputs[1])]
    joined = _linear_after(module, mix.outputs[0])
    found = [*linear, joined]
    return tuple(layer for layer in found if layer is not None) if None not in found else None


def _back(name: str, maker: dict[str, Step], *, until: str) -> Step | None:
    """Return the first step of an operator that a tensor comes from by steps that are passed."""
    step = maker.get(name)
    while step is not None and step.operator != until:
        if step.layer or step.operator not in _PASSED:
            return None
        step = next((maker[given] for given in step.inputs if given in maker), None)
    return step


def _linear_before(module: GraphModule, name: str, maker: dict[str, Step]) -> nn.Linear | None:
    step = maker.get(name)
    while step is not None and not step.layer:
        if step.operator not in _PASSED:
            return None
        step = maker.get(step.inputs[0])
    layer = module.layer_of(step) if step is not None else None
    return layer if isinstance(layer, nn.Linear) else None


def _linear_after(module: GraphModule, name: str) -> nn.Linear | None:
    while True:
        readers = [step for step in module.steps if name in step.inputs and step.operator != "Shape"]
        if len(readers) != 1:
            return None
        layer = module.layer_of(readers[0])
        if layer is not None or readers[0].operator not in _PASSED:
            return layer if isinstance(layer, nn.Linear) else None
        name = readers[0].outputs[0]


def _heads_are_blocks(module: GraphModule, attention: _Attention, examples: tuple[Tensor, ...]) -> bool:
    """Return whether removing the first block of channels is the same as joining nothing of it."""
    silenced = copy.deepcopy((module, attention))
    removed = copy.deepcopy((module, attention))
    with torch.no_grad():
        silenced[1].joined.weight[:, : attention.size] = 0
        removed[1].group().remove([0])
        try:
            one, other = silenced[0](*examples), removed[0](*examples)
        except RuntimeError:
            return False
    pairs = zip(*(each if isinstance(each, tuple) else (each,) for each in (one, other)), strict=True)
    return all(left.shape == right.shape and torch.allclose(left, right, atol=1e-4) for left, right in pairs)
