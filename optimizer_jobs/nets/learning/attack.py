"""Inputs changed so that a network errs, by the gradient of its loss: one step (FGSM) or several (PGD).

No number moves further than its bound, and none leaves the range that training rows have.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from optimizer_jobs.nets.learning.losses import loss_for, scores_of
from optimizer_jobs.technique import Params
from retune.api.model import Task

_STEP = 2.5
"""Total length of all steps of PGD, as a multiple of the bound: enough to reach it from anywhere inside."""


@dataclass(frozen=True)
class Attack:
    """An attack on rows of one kind; also what is done to training batches when a model is to withstand it."""

    method: Literal["FGSM", "PGD"]
    steps: int
    bounds: tuple[float, ...]
    """Largest change of each input; 0 for one that is no floating point number."""
    ranges: tuple[tuple[float, float], ...]
    judged: bool = True

    @classmethod
    def of(cls, params: Params, inputs: tuple[Tensor, ...]) -> "Attack":
        """Return the attack with these parameters on inputs like the training rows `inputs`, each (N, ...)."""
        ranges = tuple((float(values.min()), float(values.max())) for values in inputs)
        bounds = tuple(
            float(params["epsilon"]) * (high - low) if values.is_floating_point() else 0.0
            for values, (low, high) in zip(inputs, ranges, strict=True)
        )
        method: Literal["FGSM", "PGD"] = "PGD" if params["method"] == "PGD" else "FGSM"
        return cls(method=method, steps=int(params["steps"]) if method == "PGD" else 1, bounds=bounds, ranges=ranges)

    def __call__(
        self, module: nn.Module, inputs: tuple[Tensor, ...], targets: Tensor, generator: torch.Generator
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return inputs that deceive the module as it is now, with the same targets."""
        training = module.training
        module.eval()
        try:
            return self.deceive(lambda given: scores_of(module(*given)), inputs, targets, generator), targets
        finally:
            module.train(training)

    def deceive(
        self,
        ask: Callable[[tuple[Tensor, ...]], Tensor],
        inputs: tuple[Tensor, ...],
        targets: Tensor,
        generator: torch.Generator,
    ) -> tuple[Tensor, ...]:
        """Return changed inputs; targets are column numbers (N,) or shares (N, C)."""
        changed = tuple(
            self._inside(values + bound * self._start(values, generator), values, place) if bound else values
            for place, (values, bound) in enumerate(zip(inputs, self.bounds, strict=True))
        )
        loss = loss_for(Task.CLASSIFICATION)
        for _ in range(self.steps):
            asked = tuple(values.detach().requires_grad_(values.is_floating_point()) for values in changed)
            moved = [place for place, bound in enumerate(self.bounds) if bound]
            with torch.enable_grad():
                slopes = torch.autograd.grad(loss(ask(asked), targets), [asked[place] for place in moved])
            stepped = dict(zip(moved, slopes, strict=True))
            changed = tuple(
                self._inside(values.detach() + self._length(place) * stepped[place].sign(), inputs[place], place)
                if place in stepped
                else values.detach()
                for place, values in enumerate(asked)
            )
        return changed

    def _start(self, values: Tensor, generator: torch.Generator) -> Tensor:
        if self.method == "FGSM":
            return torch.zeros_like(values)
        return 2 * torch.rand(values.shape, generator=generator, dtype=values.dtype) - 1

    def _length(self, place: int) -> float:
        return self.bounds[place] * (1.0 if self.method == "FGSM" else _STEP / self.steps)

    def _inside(self, changed: Tensor, values: Tensor, place: int) -> Tensor:
        bound, (low, high) = self.bounds[place], self.ranges[place]
        near = torch.minimum(torch.maximum(changed, values - bound), values + bound)
        return near.clamp(min(low, float(values.min())), max(high, float(values.max())))
