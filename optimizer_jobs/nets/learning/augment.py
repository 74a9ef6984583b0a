"""Changed copies of training rows, which a network should answer like the originals, or in between two of them.

Only floating point inputs are changed, and all randomness comes from a generator, so that the same seed gives the same
copies.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from optimizer_jobs.technique import Params
from retune.api.techniques import AugmentationKind

Batch = tuple[tuple[Tensor, ...], Tensor]
"""Inputs, each (N, ...), and targets, (N,) or (N, C)."""


@dataclass(frozen=True)
class Augment:
    """All changes of one plan."""

    strengths: Mapping[AugmentationKind, float]
    """Strength of each change, 0 to 1, in the order in which they are made."""
    spreads: tuple[Tensor, ...]
    """Standard deviation of each number of each input over the training rows."""
    classes: int
    """Number of score columns, for targets that are mixed; 0 for a regression."""
    judged: bool = False

    def __call__(
        self, module: nn.Module, inputs: tuple[Tensor, ...], targets: Tensor, generator: torch.Generator
    ) -> Batch:
        """Return changed inputs and their targets; mixed classes become shares (N, C)."""
        for kind, strength in self.strengths.items():
            if kind is AugmentationKind.MIXUP:
                inputs, targets = self._mixed(inputs, targets, strength, generator)
            else:
                inputs = self._changed(_CHANGES[kind], inputs, strength, generator)
        return inputs, targets

    def _changed(
        self, change: "Change", inputs: tuple[Tensor, ...], strength: float, generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        return tuple(
            change(values, strength, spread, generator) if values.is_floating_point() else values
            for values, spread in zip(inputs, self.spreads, strict=True)
        )

    def _mixed(self, inputs: tuple[Tensor, ...], targets: Tensor, strength: float, generator: torch.Generator) -> Batch:
        """Mix every row with another one, which makes up at most half of the result at full strength."""
        share = 0.5 * strength * float(torch.rand((), generator=generator))
        partners = torch.randperm(len(targets), generator=generator)
        mixed = self._changed(lambda rows, *_: torch.lerp(rows, rows[partners], share), inputs, strength, generator)
        if not targets.is_floating_point():
            targets = functional.one_hot(targets.clamp_min(0), self.classes).float()
        return mixed, torch.lerp(targets, targets[partners], share)


Change = Callable[[Tensor, float, Tensor, torch.Generator], Tensor]
"""Takes values (N, ...), strength, standard deviation of the values, and a generator; returns changed values."""


def augment(params: Params, inputs: tuple[Tensor, ...], *, classes: int) -> Augment:
    """Return the transform that makes the changes of a plan.

    Args:
        params: Strength by kind, 0 to 1, such as {"Noise": 0.1}.
        inputs: Training rows by input, each (N, ...).
        classes: Number of score columns; 0 for a regression.
    """
    strengths = {kind: float(params[kind]) for kind in AugmentationKind if params.get(kind)}
    spreads = tuple(_spread(values) for values in inputs)
    return Augment(strengths=strengths, spreads=spreads, classes=classes)


def _spread(values: Tensor) -> Tensor:
    return values.std(0, correction=0) if values.is_floating_point() else torch.zeros(())


def _noise(values: Tensor, strength: float, spread: Tensor, generator: torch.Generator) -> Tensor:
    return values + strength * spread * torch.randn(values.shape, generator=generator, dtype=values.dtype)


def _shift(values: Tensor, strength: float, _: Tensor, generator: torch.Generator) -> Tensor:
    """Move images or sequences by up to a quarter along every axis but batch and channel, and fill with zeros."""
    axes = range(2, values.ndim) if values.ndim > 3 else range(1, values.ndim - 1)
    for axis in axes:
        most = max(1, round(0.25 * strength * values.shape[axis]))
        by = int(torch.randint(-most, most + 1, (), generator=generator))
        values = values.roll(by, axis)
        edge = slice(0, by) if by > 0 else slice(values.shape[axis] + by, None)
        values[(slice(None),) * axis + (edge,)] = 0
    return values


def _erase(values: Tensor, strength: float, _: Tensor, generator: torch.Generator) -> Tensor:
    """Set a block of up to half of every axis but batch and channel to zero, another block in each row."""
    values = values.clone()
    axes = list(range(2, values.ndim) if values.ndim > 3 else range(1, values.ndim - 1))
    for row in range(len(values)):
        block = [slice(None)] * (values.ndim - 1)
        for axis in axes:
            size = max(1, round(0.5 * strength * values.shape[axis]))
            start = int(torch.randint(0, values.shape[axis] - size + 1, (), generator=generator))
            block[axis - 1] = slice(start, start + size)
        values[(row, *block)] = 0  # not through a view of the row, which gradients could not follow
    return values


def _corrupt(values: Tensor, strength: float, _: Tensor, generator: torch.Generator) -> Tensor:
    """Replace numbers by those of another row, each with a probability of up to one half."""
    partners = values[torch.randperm(len(values), generator=generator)]
    replaced = torch.rand(values.shape, generator=generator) < 0.5 * strength
    return torch.where(replaced, partners, values)


_CHANGES: Mapping[AugmentationKind, Change] = {
    AugmentationKind.NOISE: _noise,
    AugmentationKind.SHIFT: _shift,
    AugmentationKind.ERASE: _erase,
    AugmentationKind.CORRUPTION: _corrupt,
}
