"""Find the neurons, channels and attention heads of a network that can be removed, rank them, and remove them.

A group is a set of units that can be removed one by one without changing anything else. torch-pruning finds what
depends on what, and its answer is tried on a copy before it counts. Outputs keep their size.
"""

import copy
import itertools
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
import torch_pruning
from torch import Tensor, nn

from optimizer_jobs.nets.conversion.importer import GraphModule
from optimizer_jobs.nets.surgery.attention import Attention, attentions

NEURONS, CHANNELS, HEADS = "neurons", "channels", "heads"
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_WRONG = (RuntimeError, ValueError, IndexError, KeyError, AttributeError, TypeError, AssertionError)
"""What torch-pruning and torch raise when a layer cannot lose units."""
_ROWS = 2
"""Rows to run the module on."""
_USUAL_LOOKS, _PATIENCE = 2, 3.0
"""How often torch-pruning looks at each dependency of a large network, on average, to find a group; and the seconds
after which more looks are too many. Where units meet in dot products it never ends: each look has more of them.
"""


class EndlessError(RuntimeError):
    """What goes with the units of a layer cannot be found in bounded time; the message says so."""


class Group(Protocol):
    """Units of one place in a network. It stays valid when units of other places are removed."""

    @property
    def kind(self) -> str:
        """What the units are: NEURONS, CHANNELS or HEADS."""
        ...

    @property
    def units(self) -> int:
        """How many units there are now."""
        ...

    def shrink(self, keep: int) -> None:
        """Remove the units that matter least, by their weights and the gradients of these where there are some."""
        ...


def groups(module: GraphModule, examples: tuple[Tensor, ...]) -> list[Group]:
    """Return every group of a module, in the order of its graph.

    Args:
        module: The imported graph; its reshapes are changed so that layers before them can lose channels.
        examples: Rows to try it on, each input (N, ...).
    """
    rows = tuple(values[:_ROWS] for values in examples)
    module.keep_batch(rows)
    blocks = (attention for attention in attentions(module, rows) if _heads_are_blocks(module, attention, rows))
    heads = [_Heads(attention) for attention in blocks]
    attended = {id(layer) for group in heads for layer in group.attention.split}
    return [*_layer_groups(module, rows, attended), *heads]


def runs(module: nn.Module, examples: tuple[Tensor, ...], shapes: Sequence[torch.Size]) -> bool:
    """Return whether a module runs on the examples, with outputs of these shapes."""
    try:
        return shapes_of(module, examples) == list(shapes)
    except _WRONG:
        return False


def shapes_of(module: nn.Module, examples: tuple[Tensor, ...]) -> list[torch.Size]:
    """Return the shapes of the outputs of a module for the examples."""
    with torch.no_grad():
        answers = module(*examples)
    return [answer.shape for answer in (answers if isinstance(answers, tuple) else (answers,))]


def _layer_groups(module: GraphModule, rows: tuple[Tensor, ...], attended: set[int]) -> Iterator["_Units"]:
    """Yield the groups of layers; `attended` are the ids of layers around attentions, which have heads instead."""
    seen = set(attended)
    for path, layer in module.named_modules():
        if id(layer) in seen or not isinstance(layer, _LAYERS):
            continue
        members, removable = _tried(module, path, rows)
        seen |= members
        if removable and not members & attended:
            yield _Units(module, layer, rows)


def _tried(module: GraphModule, path: str, rows: tuple[Tensor, ...]) -> tuple[set[int], bool]:
    """Remove one output of the layer at this path from a copy of the module.

    Returns:
        The ids of the layers that lose outputs together with it, and whether the copy still runs.
    """
    trial = copy.deepcopy(module)
    layer = trial.get_submodule(path)
    originals = dict(zip(map(id, trial.modules()), module.modules(), strict=True))
    members = {id(module.get_submodule(path))}
    try:
        shapes = shapes_of(trial, rows)
        group = _removal(trial, layer, rows, [0])
        losing = [id(dep.target.module) for dep, _ in group if "out_channels" in str(dep.handler)]
        members |= {id(originals[number]) for number in losing if number in originals}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that units no longer divide into groups: whether it runs is seen below
            group.prune()
    except _WRONG:
        return members, False
    return members, runs(trial, rows, shapes)


def _removal(
    module: nn.Module, layer: nn.Module, rows: tuple[Tensor, ...], units: Sequence[int]
) -> torch_pruning.Group:
    """Return the removal of these outputs of a layer, with all that goes with them; raises one of _WRONG."""
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")  # that some weights belong to no layer, which is known
        graph = torch_pruning.DependencyGraph().build_dependency(
            module, example_inputs=rows, output_transform=_differentiable
        )
    _bound(graph)
    return graph.get_pruning_group(layer, _remover(layer), idxs=list(units))


def _bound(graph: torch_pruning.DependencyGraph) -> None:
    """Let a graph raise EndlessError instead of looking for a group for ever."""
    dependencies = [dependency for node in graph.module2node.values() for dependency in node.dependencies]
    looks, began = itertools.count(1), time.monotonic()

    def look(triggered: Callable[[object], bool], remover: object) -> bool:
        if next(looks) > _USUAL_LOOKS * len(dependencies) and time.monotonic() - began > _PATIENCE:
            raise EndlessError("units of a layer meet those of other layers again and again")
        return triggered(remover)

    for dependency in dependencies:
        dependency.is_triggered_by = partial(look, dependency.is_triggered_by)


def _differentiable(answers: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    """Return the outputs that a gradient goes through."""
    return [answer for answer in (answers if isinstance(answers, tuple) else (answers,)) if answer.requires_grad]


def _remover(layer: nn.Module) -> object:
    """Return torch-pruning's function that removes outputs of a layer."""
    if isinstance(layer, nn.Linear):
        return torch_pruning.prune_linear_out_channels
    depthwise = layer.groups > 1 and layer.groups == layer.out_channels
    return torch_pruning.prune_depthwise_conv_out_channels if depthwise else torch_pruning.prune_conv_out_channels


@dataclass(frozen=True)
class _Units:
    """Outputs of one layer, with everything that is removed together with them."""

    module: GraphModule
    layer: nn.Module
    rows: tuple[Tensor, ...]

    @property
    def kind(self) -> str:
        return NEURONS if isinstance(self.layer, nn.Linear) else CHANNELS

    @property
    def units(self) -> int:
        return int(self.layer.out_features if isinstance(self.layer, nn.Linear) else self.layer.out_channels)

    def shrink(self, keep: int) -> None:
        importance = _importance(_removal(self.module, self.layer, self.rows, range(self.units)), self.layer)
        least = importance.argsort(stable=True)[: self.units - keep].tolist()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _removal(self.module, self.layer, self.rows, least).prune()


def _importance(group: torch_pruning.Group, layer: nn.Module) -> Tensor:
    """Return how much each unit matters, (units,): what it changes in the loss, or its size without gradients."""
    measures = [torch_pruning.importance.GroupMagnitudeImportance(p=2, normalizer=None)]
    if layer.weight.grad is not None:
        measures.insert(0, torch_pruning.importance.GroupTaylorImportance(normalizer=None))
    for measure in measures:
        try:
            importance = measure(group)
        except _WRONG:
            continue  # a weight of the group has no gradient
        if importance is not None:
            return torch.as_tensor(importance)
    return torch.as_tensor(layer.weight.detach().flatten(1).norm(dim=1))


@dataclass(frozen=True)
class _Heads:
    """Heads of one attention."""

    attention: Attention

    @property
    def kind(self) -> str:
        return HEADS

    @property
    def units(self) -> int:
        return self.attention.heads

    def shrink(self, keep: int) -> None:
        order = self.attention.importance().argsort(stable=True)
        self.attention.remove(order[: self.units - keep].tolist())


def _heads_are_blocks(module: GraphModule, attention: Attention, rows: tuple[Tensor, ...]) -> bool:
    """Return whether the model answers the same without its first head as with weights of 0 for it."""
    zeroed, zeroed_attention = copy.deepcopy((module, attention))
    removed, removed_attention = copy.deepcopy((module, attention))
    with torch.no_grad():
        zeroed_attention.joined.weight[:, : attention.size] = 0
        removed_attention.remove([0])
        try:
            answers = zeroed(*rows), removed(*rows)
        except _WRONG:
            return False
    pairs = zip(*(outputs if isinstance(outputs, tuple) else (outputs,) for outputs in answers), strict=True)
    return all(left.shape == right.shape and torch.allclose(left, right, atol=1e-4) for left, right in pairs)
