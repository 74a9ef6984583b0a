"""What one training works with: rows, loss, transforms and teacher, and how batches and epochs are judged.

The loop that trains and the gradients that find hyperparameters share it, so that both see the same training.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from optimizer_jobs.nets.learning.features import Features, Watch, unlike
from optimizer_jobs.nets.learning.losses import Loss, loss_for, quality, task_scores, taught
from optimizer_jobs.nets.learning.rows import Predict, Samples, filled, scores_for
from optimizer_jobs.nets.learning.settings import Settings
from optimizer_jobs.signature import Scale
from optimizer_jobs.technique import Alive
from retune.api.model import Task

Teacher = Predict
"""Returns, for a batch of inputs, the scores that a student should give, of several labels a row their logits. The
inputs may be changed by transforms."""
Hidden = tuple[Watch, Features]
"""Hidden features of a student, watched while it runs, and those of its teacher."""


class BatchTransform(Protocol):
    """Changes a batch before the network learns from it: augmentation, or an attack."""

    @property
    def judged(self) -> bool:
        """Whether an epoch is judged on changed validation rows as well, half and half.

        Adversarial training needs it: otherwise the best epoch would be the one before it began.
        """

    def __call__(
        self, module: nn.Module, inputs: tuple[Tensor, ...], targets: Tensor, generator: torch.Generator
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return changed inputs and their targets.

        Args:
            module: The network as it is now.
            inputs: Inputs of the network, each (N, ...).
            targets: Column numbers or numbers to predict, (N,), or shares of classes (N, C).
            generator: Source of everything random.

        Returns:
            Inputs and targets. Column numbers may have become shares of classes, (N, C).
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """Everything that one training works with."""

    module: nn.Module
    training: Samples
    """Rows to learn from."""
    validation: Samples
    """Rows that an epoch is judged on."""
    task: Task
    settings: Settings
    transforms: tuple[BatchTransform, ...] = ()
    teacher: Teacher | None = None
    hidden: Hidden | None = None
    """Features of student and teacher that are to become alike."""
    noise: tuple[Tensor, ...] | None = None
    """Noise for each number of each input, where it was learned. None: one noise for all, from the settings."""
    score: int | None = None
    """Place of the scores among the module's floating point outputs, where it is known."""
    scale: Scale | None = None
    """What the module's scores of several labels a row are; None: logits."""
    seed: int
    alive: Alive | None = None
    """Says how long the training may still take."""
    unlearned: str | None = None
    """Why hyperparameters were not learned, where they should have been; words without a full stop."""

    def prepared(self, batch: Samples, generator: torch.Generator) -> Samples:
        """Return a batch of training rows as the network sees it, after noise and transforms."""
        inputs = batch.inputs
        if self.noise is not None or self.settings.input_noise:
            levels = self.noise or (self.settings.input_noise,) * len(inputs)
            inputs = tuple(
                _noisy(values, level * spread, generator) if values.is_floating_point() else values
                for values, level, spread in zip(inputs, levels, self._spreads, strict=True)
            )
        return self._changed(Samples(inputs, batch.targets), self.transforms, generator)

    def batch_loss(
        self, batch: Samples, *, predict: Predict | None = None, smoothing: float | Tensor | None = None
    ) -> Tensor:
        """Return the loss of one batch: distance to the labels, to the teacher's answers, or to both.

        Args:
            batch: Rows after `prepared`.
            predict: Returns scores in place of the module.
            smoothing: Label smoothing in place of that in the settings.
        """
        scores = (predict or self.predict)(batch.inputs)
        level = self.settings.label_smoothing if smoothing is None else smoothing
        if self.teacher is None:
            return self._labelled(level)(scores, cast("Tensor", batch.targets))
        with torch.no_grad():
            answers = self.teacher(batch.inputs)
        distance = taught(self.task, scores, answers, temperature=self.settings.temperature)
        if batch.targets is not None:
            weight = self.settings.teacher_weight
            distance = weight * distance + (1 - weight) * self._labelled(level)(scores, batch.targets)
        if self.hidden is None:
            return distance
        watch, features = self.hidden
        return distance + self.settings.feature_weight * unlike(watch.seen, features(batch.inputs))

    def predict(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Return the module's scores for a batch of inputs."""
        return self.scores(self.module(*inputs))

    def scores(self, answers: Any) -> Tensor:
        """Return the scores among a network's answers, in any form; of several labels a row, their logits."""
        return task_scores(self.task, answers, place=self.score, scale=self.scale)

    def validation_loss(self, rows: Samples, scores: Tensor) -> Tensor:
        """Return the loss of scores on validation rows: to their labels alone, or without labels to the teacher."""
        if rows.targets is not None:
            return self._labelled(0.0)(scores, rows.targets)
        return taught(self.task, scores, self._taught_answers, temperature=self.settings.temperature)

    def judged(self) -> tuple[float, float]:
        """Return the quality on validation, higher is better, and the negative loss there, to break ties."""
        self.module.eval()
        plain, plain_rank = self._judged(self.validation)
        judging = tuple(transform for transform in self.transforms if transform.judged)
        if not judging:
            return plain, plain_rank
        changed, changed_rank = self._judged(self._changed_validation(judging))
        return (plain + changed) / 2, (plain_rank + changed_rank) / 2

    @cached_property
    def unit(self) -> float:
        """The unit of the answers: for a regression, the standard deviation of the labels, else 1."""
        if self.task is not Task.REGRESSION or self.training.targets is None:
            return 1.0
        return float(self.training.targets.double().std(correction=0)) or 1.0

    def time_left(self) -> float:
        """Return the seconds that the training may still take; raises StoppedEarlyError when a budget is spent."""
        left = None if self.alive is None else self.alive()
        return math.inf if left is None else left

    @property
    def steps(self) -> int:
        """Steps of the whole training when it does not end early."""
        return max(1, len(self.training) // self.settings.batch_size) * self.settings.epochs

    def share(self, step: int) -> float:
        """Return the learning rate of a step as a share of the largest: it rises, then falls along a cosine to 0."""
        warm = max(1, round(self.settings.warmup * self.steps))
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, self.steps - warm)))

    def _judged(self, rows: Samples) -> tuple[float, float]:
        scores = scores_for(self.predict, rows, self.settings.batch_size)
        with torch.no_grad():
            loss = self.validation_loss(rows, scores)
        expected = self._taught_answers if rows.targets is None else rows.targets
        return quality(self.task, scores, expected), -float(loss)

    def _changed_validation(self, transforms: tuple[BatchTransform, ...]) -> Samples:
        """Return the validation rows after transforms, the same at every call for the same module."""
        generator, count = torch.Generator().manual_seed(self.seed), len(self.validation)
        batches = filled(self.validation, self.settings.batch_size)
        changed = [self._changed(batch, transforms, generator) for batch in batches]
        columns = zip(*(batch.inputs for batch in changed), strict=True)
        inputs = tuple(torch.cat(values)[:count] for values in columns)
        targets = [batch.targets for batch in changed if batch.targets is not None]
        return Samples(inputs, torch.cat(targets)[:count] if targets else None)

    def _changed(self, batch: Samples, transforms: tuple[BatchTransform, ...], generator: torch.Generator) -> Samples:
        inputs, targets = batch.inputs, batch.targets
        for transform in transforms:
            labels = torch.zeros(len(batch)) if targets is None else targets
            inputs, changed = transform(self.module, inputs, labels, generator)
            targets = None if targets is None else changed
        return Samples(inputs, targets)

    def _labelled(self, smoothing: float | Tensor) -> Loss:
        return loss_for(self.task, label_smoothing=smoothing, scale=self.unit)

    @cached_property
    def _taught_answers(self) -> Tensor:
        """The teacher's answers on the validation rows."""
        return scores_for(cast("Teacher", self.teacher), self.validation, self.settings.batch_size)

    @cached_property
    def _spreads(self) -> tuple[Tensor, ...]:
        """The standard deviation of each number of each input over the training rows."""
        return tuple(
            values.std(0, correction=0) if values.is_floating_point() else torch.zeros(())
            for values in self.training.inputs
        )


def _noisy(values: Tensor, spread: float | Tensor, generator: torch.Generator) -> Tensor:
    return values + spread * torch.randn(values.shape, generator=generator, dtype=values.dtype)
