"""What one training works with: rows, loss, transforms and teacher, and how a batch and an epoch are judged by them.

Shared by the loop that trains and by the gradients that find hyperparameters, so that both see the same training.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from optimizer_jobs.nets.learning.features import Features, Watch, unlike
from optimizer_jobs.nets.learning.losses import Loss, loss_for, quality, scores_of, taught
from optimizer_jobs.nets.learning.rows import Ask, Samples, answers, filled
from optimizer_jobs.nets.learning.settings import Settings
from retune.api.model import Task

Teacher = Ask
"""Answers a batch of inputs, changed ones included, with the scores that a student should give."""
Hidden = tuple[Watch, Features]
"""What a student holds inside, and what its teacher does."""


class BatchTransform(Protocol):
    """Changes a batch before the network learns from it, as augmentation and adversarial training do."""

    @property
    def judged(self) -> bool:
        """Whether an epoch is judged by changed validation rows too, half and half.

        Hardening needs it: else the epoch before it began would be the best one.
        """

    def __call__(
        self, module: nn.Module, inputs: tuple[Tensor, ...], targets: Tensor, generator: torch.Generator
    ) -> tuple[tuple[Tensor, ...], Tensor]:
        """Return changed inputs and their targets, random by `generator` only; classes may become shares (N, C)."""
        ...


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """Everything that one training works with."""

    module: nn.Module
    learned: Samples
    """Rows to learn from."""
    held: Samples
    """Rows that an epoch is judged by."""
    task: Task
    settings: Settings
    transforms: tuple[BatchTransform, ...] = ()
    loss: Loss | None = None
    """What is made small for labels; None: the task's own loss."""
    teacher: Teacher | None = None
    hidden: Hidden | None = None
    """Features of student and teacher, to be made alike."""
    noise: tuple[Tensor, ...] | None = None
    """Noise of each number of each input, where it was learned; None: the same for all, as in the settings."""
    seed: int

    def prepared(self, batch: Samples, generator: torch.Generator) -> Samples:
        """Return a batch of training rows as the network sees it, after noise and transforms."""
        inputs = batch.inputs
        if self.noise is not None or self.settings.input_noise:
            levels = self.noise or (self.settings.input_noise,) * len(inputs)
            inputs = tuple(
                values + level * spread * torch.randn(values.shape, generator=generator, dtype=values.dtype)
                if values.is_floating_point()
                else values
                for values, level, spread in zip(inputs, levels, self._spreads, strict=True)
            )
        return self._changed(Samples(inputs, batch.targets), self.transforms, generator)

    def batch_loss(self, batch: Samples, *, ask: Ask | None = None, smoothing: float | Tensor | None = None) -> Tensor:
        """Return the loss of one batch: distance to the labels, to the teacher's answers, or to both.

        `ask` answers in the module's place, `smoothing` is the label smoothing in the settings' place.
        """
        scores = (ask or self.ask)(batch.inputs)
        level = self.settings.label_smoothing if smoothing is None else smoothing
        if self.teacher is None:
            return self._labelled(level)(scores, cast("Tensor", batch.targets))
        with torch.no_grad():
            wanted = self.teacher(batch.inputs)
        distance = taught(self.task, scores, wanted, temperature=self.settings.temperature)
        if batch.targets is not None:
            weight = self.settings.teacher_weight
            distance = weight * distance + (1 - weight) * self._labelled(level)(scores, batch.targets)
        if self.hidden is None:
            return distance
        watch, features = self.hidden
        return distance + self.settings.feature_weight * unlike(watch.seen, features(batch.inputs))

    def ask(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Return the module's scores."""
        return scores_of(self.module(*inputs))

    def held_loss(self, held: Samples, scores: Tensor) -> Tensor:
        """Return the loss of scores on rows that are not learned from: of the labels alone, where there are some."""
        if held.targets is not None:
            return self._labelled(0.0)(scores, held.targets)
        return taught(self.task, scores, self._wanted, temperature=self.settings.temperature)

    def judged(self) -> tuple[float, float]:
        """Return quality on validation, higher is better, and the loss there with its sign turned, to break ties."""
        self.module.eval()
        plain, rank = self._judged(self.held)
        judging = tuple(transform for transform in self.transforms if transform.judged)
        if not judging:
            return plain, rank
        hard, hard_rank = self._judged(self._hardened(judging))
        return (plain + hard) / 2, (rank + hard_rank) / 2

    @cached_property
    def unit(self) -> float:
        """Return the unit of the answers: a regression's standard deviation of labels, else 1."""
        if self.task is not Task.REGRESSION or self.learned.targets is None:
            return 1.0
        return float(self.learned.targets.double().std(correction=0)) or 1.0

    @property
    def steps(self) -> int:
        """Steps of the whole training, should it not end early."""
        return max(1, len(self.learned) // self.settings.batch_size) * self.settings.epochs

    def share(self, step: int) -> float:
        """Return the learning rate of a step as a share of the largest: a rise, then a cosine down to 0."""
        warm = max(1, round(self.settings.warmup * self.steps))
        if step < warm:
            return (step + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, self.steps - warm)))

    def _judged(self, held: Samples) -> tuple[float, float]:
        scores = answers(self.ask, held, self.settings.batch_size)
        with torch.no_grad():
            loss = self.held_loss(held, scores)
        return quality(self.task, scores, self._wanted if held.targets is None else held.targets), -float(loss)

    def _hardened(self, transforms: tuple[BatchTransform, ...]) -> Samples:
        """Return the validation rows after transforms, the same at every call."""
        generator = torch.Generator().manual_seed(self.seed)
        changed = [self._changed(batch, transforms, generator) for batch in filled(self.held, self.settings.batch_size)]
        inputs = tuple(
            torch.cat(values)[: len(self.held)] for values in zip(*(one.inputs for one in changed), strict=True)
        )
        targets = [one.targets for one in changed if one.targets is not None]
        return Samples(inputs, torch.cat(targets)[: len(self.held)] if targets else None)

    def _changed(self, batch: Samples, transforms: tuple[BatchTransform, ...], generator: torch.Generator) -> Samples:
        inputs, targets = batch.inputs, batch.targets
        for transform in transforms:
            given = torch.zeros(len(batch)) if targets is None else targets
            inputs, changed = transform(self.module, inputs, given, generator)
            targets = None if targets is None else changed
        return Samples(inputs, targets)

    def _labelled(self, smoothing: float | Tensor) -> Loss:
        return self.loss or loss_for(self.task, label_smoothing=smoothing, scale=self.unit)

    @cached_property
    def _wanted(self) -> Tensor:
        """The teacher's answers on the validation rows."""
        return answers(cast("Teacher", self.teacher), self.held, self.settings.batch_size)

    @cached_property
    def _spreads(self) -> tuple[Tensor, ...]:
        """The standard deviation of each number of each input over the training rows."""
        return tuple(
            values.std(0, correction=0) if values.is_floating_point() else torch.zeros(())
            for values in self.learned.inputs
        )
