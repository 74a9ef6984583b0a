"""Which neurons, channels and attention heads of a network can be removed, how much each matters, and removing them.

A group is a set of units that can go one by one without anything else to change: what depends on what is found by
torch-pruning, and tried on a copy before it is believed. Outputs keep their size.
"""

import copy
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch_pruning
from torch import Tensor, nn

from optimizer_jobs.nets.conversion.importer import GraphModule
from optimizer_jobs.nets.surgery.attention import Attention, attentions

NEURONS, CHANNELS, HEADS = "neurons", "channels", "heads"
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_WRONG = (RuntimeError, ValueError, IndexError, KeyError, AttributeError, TypeError, AssertionError)
"""What torch-pruning and torch raise where a layer cannot lose any units."""
_ROWS = 2


class Group(Protocol):
    """Units of one place in a network; stays valid while units of other places go."""

    @property
    def kind(self) -> str:
        """What the units are."""
        ...

    @property
    def units(self) -> int:
        """How many there are now."""
        ...

    def shrink(self, keep: int) -> None:
        """Remove the units that matter least, by weights and, where there are, their gradients."""
        ...


def groups(module: GraphModule, examples: tuple[Tensor, ...]) -> list[Group]:
    """Return every group of a module, in the order of its graph. `examples` are rows to try it on."""
    given = tuple(values[:_ROWS] for values in examples)
    module.keep_batch(given)
    heads = [_Heads(each) for each in attentions(module, given) if _heads_are_blocks(module, each, given)]
    taken = {id(layer) for each in heads for layer in each.attention.split}
    return [*_layer_groups(module, given, taken), *heads]


def runs(module: nn.Module, examples: tuple[Tensor, ...], shapes: Sequence[torch.Size]) -> bool:
    """Return whether a module still runs, with outputs of these shapes."""
    try:
        return shapes_of(module, examples) == list(shapes)
    except _WRONG:
        return False


def shapes_of(module: nn.Module, examples: tuple[Tensor, ...]) -> list[torch.Size]:
    """Return the shapes of a module's outputs."""
    with torch.no_grad():
        answers = module(*examples)
    return [answer.shape for answer in (answers if isinstance(answers, tuple) else (answers,))]


def _layer_groups(module: GraphModule, given: tuple[Tensor, ...], taken: set[int]) -> Iterator["_Units"]:
    seen = set(taken)
    for path, layer in module.named_modules():
        if id(layer) in seen or not isinstance(layer, _LAYERS):
            continue
        members, removable = _tried(module, path, given)
        seen |= members
        if removable and not members & taken:
            yield _Units(module, layer, given)


def _tried(module: GraphModule, path: str, given: tuple[Tensor, ...]) -> tuple[set[int], bool]:
    """Return the layers that lose outputs together with the layer at this path, and whether they can at all."""
    trial = copy.deepcopy(module)
    layer = trial.get_submodule(path)
    own = dict(zip(map(id, trial.modules()), module.modules(), strict=True))
    members = {id(module.get_submodule(path))}
    try:
        shapes = shapes_of(trial, given)
        group = _dependencies(trial, given).get_pruning_group(layer, _remover(layer), idxs=[0])
        members |= {
            id(own[id(dep.target.module)])
            for dep, _ in group
            if "out_channels" in str(dep.handler) and id(dep.target.module) in own
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of units that no longer divide; what counts is what then comes out
            group.prune()
    except _WRONG:
        return members, False
    return members, runs(trial, given, shapes)


def _dependencies(module: nn.Module, given: tuple[Tensor, ...]) -> torch_pruning.DependencyGraph:
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")  # of weights that stand alone, which is known
        return torch_pruning.DependencyGraph().build_dependency(
            module, example_inputs=given, output_transform=_differentiable
        )


def _differentiable(answers: Tensor | tuple[Tensor, ...]) -> list[Tensor]:
    """Return the outputs that a gradient goes through."""
    return [answer for answer in (answers if isinstance(answers, tuple) else (answers,)) if answer.requires_grad]


def _remover(layer: nn.Module) -> object:
    if isinstance(layer, nn.Linear):
        return torch_pruning.prune_linear_out_channels
    depthwise = layer.groups > 1 and layer.groups == layer.out_channels
    return torch_pruning.prune_depthwise_conv_out_channels if depthwise else torch_pruning.prune_conv_out_channels


@dataclass(frozen=True)
class _Units:
    """Outputs of one layer, and whatever goes with them."""

    module: GraphModule
    layer: nn.Module
    given: tuple[Tensor, ...]

    @property
    def kind(self) -> str:
        return NEURONS if isinstance(self.layer, nn.Linear) else CHANNELS

    @property
    def units(self) -> int:
        return int(self.layer.out_features if isinstance(self.layer, nn.Linear) else self.layer.out_channels)

    def shrink(self, keep: int) -> None:
        graph, remover, units = _dependencies(self.module, self.given), _remover(self.layer), self.units
        matters = _importance(graph.get_pruning_group(self.layer, remover, idxs=list(range(units))), self.layer)
        least = matters.argsort(stable=True)[: units - keep].tolist()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph.get_pruning_group(self.layer, remover, idxs=least).prune()


def _importance(group: torch_pruning.Group, layer: nn.Module) -> Tensor:
    """Return (units,) how much the loss would change without each, where gradients are; else how large it is."""
    measures = [torch_pruning.importance.GroupMagnitudeImportance(p=2, normalizer=None)]
    if layer.weight.grad is not None:
        measures.insert(0, torch_pruning.importance.GroupTaylorImportance(normalizer=None))
    for measure in measures:
        try:
            found = measure(group)
        except _WRONG:
            continue  # something of the group has no gradient
        if found is not None:
            return torch.as_tensor(found)
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


def _heads_are_blocks(module: GraphModule, attention: Attention, given: tuple[Tensor, ...]) -> bool:
    """Return whether removing the first block of channels is the same as joining nothing of it."""
    silenced, silent = copy.deepcopy((module, attention))
    removed, cut = copy.deepcopy((module, attention))
    with torch.no_grad():
        silent.joined.weight[:, : attention.size] = 0
        cut.remove([0])
        try:
            one, other = silenced(*given), removed(*given)
        except _WRONG:
            return False
    pairs = zip(*(each if isinstance(each, tuple) else (each,) for each in (one, other)), strict=True)
    return all(left.shape == right.shape and torch.allclose(left, right, atol=1e-4) for left, right in pairs)
