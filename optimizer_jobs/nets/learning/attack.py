"""Inputs changed by the gradient of the loss so that a network errs: in one step (FGSM) or in several (PGD).

No number moves further than its bound, and none leaves the range of the training rows.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from optimizer_jobs.nets.learning.losses import loss_for, scores_of
from optimizer_jobs.technique import Params
from retune.api.model import Task

_STEP = 2.5
"""Length of all steps of PGD together, as a multiple of the bound: enough to reach it from anywhere inside."""


@dataclass(frozen=True)
class Attack:
    """An attack on rows of one model. As a transform, it changes training batches so that the model withstands it."""

    method: Literal["FGSM", "PGD"]
    steps: int
    bounds: tuple[float, ...]
    """Largest change of a number of each input; 0 for inputs that are not floating point."""
    ranges: tuple[tuple[float, float], ...]
    """Smallest and largest number of each input in the training rows."""
    score: int | None = None
    """Place of the scores among the network's floating point outputs, where it is known."""
    judged: bool = True

    @classmethod
    def of(cls, params: Params, inputs: tuple[Tensor, ...], *, score: int | None = None) -> "Attack":
        """Return the attack on rows like these.

        Args:
            params: `method` (PGD or FGSM), `epsilon` (the bound as a share of an input's range), `steps` of PGD.
            inputs: Training rows by input, each (N, ...).
            score: Place of the scores among the network's floating point outputs.
        """
        ranges = tuple((float(values.min()), float(values.max())) for values in inputs)
        bounds = tuple(
            float(params["epsilon"]) * (high - low) if values.is_floating_point() else 0.0
            for values, (low, high) in zip(inputs, ranges, strict=True)
        )
        method: Literal["FGSM", "PGD"] = "PGD" if params["method"] == "PGD" else "FGSM"
        steps = int(params["steps"]) if method == "PGD" else 1
        return cls(method=method, steps=steps, bounds=bounds, ranges=ranges, score=score)

    def __call__(
        self, module: nn.Module, inputs: tuple[Tensor, ...], targets: Tensor, generator: torch.Generator
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return inputs that deceive the module as it is now, with the same targets: (N,), or shares (N, C)."""
        training = module.training
        module.eval()
        try:
            return self._deceive(module, inputs, targets, generator), targets
        finally:
            module.train(training)

    def _deceive(
        self, module: nn.Module, inputs: tuple[Tensor, ...], targets: Tensor, generator: torch.Generator
    ) -> tuple[Tensor, ...]:
        changed = tuple(
            self._inside(number, values + bound * self._start(values, generator), values) if bound else values
            for number, (values, bound) in enumerate(zip(inputs, self.bounds, strict=True))
        )
        for _ in range(self.steps):
            slopes = self._slopes(module, changed, targets)
            changed = tuple(
                self._stepped(number, values.detach(), slopes[number], inputs[number])
                if number in slopes
                else values.detach()
                for number, values in enumerate(changed)
            )
        return changed

    def _slopes(self, module: nn.Module, inputs: tuple[Tensor, ...], targets: Tensor) -> dict[int, Tensor]:
        """Return the gradient of the loss by each input that may change, by the number of the input."""
        leaves = tuple(values.detach().requires_grad_(values.is_floating_point()) for values in inputs)
        numbers = [number for number, bound in enumerate(self.bounds) if bound]
        with torch.enable_grad():
            loss = loss_for(Task.CLASSIFICATION)(scores_of(module(*leaves), self.score), targets)
            slopes = torch.autograd.grad(loss, [leaves[number] for number in numbers])
        return dict(zip(numbers, slopes, strict=True))

    def _start(self, values: Tensor, generator: torch.Generator) -> Tensor:
        """Return where an attack starts, as shares of the bound."""
        if self.method == "FGSM":
            return torch.zeros_like(values)
        return 2 * torch.rand(values.shape, generator=generator, dtype=values.dtype) - 1

    def _stepped(self, number: int, changed: Tensor, slope: Tensor, values: Tensor) -> Tensor:
        length = self.bounds[number] * (1.0 if self.method == "FGSM" else _STEP / self.steps)
        return self._inside(number, changed + length * slope.sign(), values)

    def _inside(self, number: int, changed: Tensor, values: Tensor) -> Tensor:
        """Return the changed numbers of an input, cut to the bound around its values and to its range."""
        bound, (low, high) = self.bounds[number], self.ranges[number]
        near = torch.minimum(torch.maximum(changed, values - bound), values + bound)
        return near.clamp(min(low, float(values.min())), max(high, float(values.max())))
