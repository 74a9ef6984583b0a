"""Rows as tensors, with labels as numbers that a loss understands, and cut into batches.

Every batch has the same size, as a model with a fixed batch needs it: while training a rest is left out of an epoch,
while answering the last batch is filled up.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.errors import JobError
from retune.api.model import Task
from retune.contract.results import Reason

Ask = Callable[[tuple[Tensor, ...]], Tensor]
"""Answers a batch of inputs with scores."""


@dataclass(frozen=True)
class Samples:
    """Rows of a network: `inputs` in the signature's order, each (N, ...); `targets` (N,), or None without labels."""

    inputs: tuple[Tensor, ...]
    targets: Tensor | None

    def __len__(self) -> int:
        return len(self.inputs[0])

    def take(self, index: Tensor) -> "Samples":
        """Return the rows at `index`, in that order."""
        targets = None if self.targets is None else self.targets[index]
        return Samples(tuple(values[index] for values in self.inputs), targets)


def samples(rows: Rows, *, task: Task, classes: Sequence[int | str] = ()) -> Samples:
    """Return rows as tensors. A label that is none of the classes becomes -1.

    Raises:
        JobError: DataInvalid when an input is text.
    """
    for name, values in rows.inputs.items():
        if values.dtype.kind not in "biuf":
            raise JobError(
                Reason.DATA_INVALID,
                f"input {name}",
                "it holds text, and a network trains on numbers.",
                "Remove the techniques that train from spec.techniques.",
            )
    inputs = tuple(torch.from_numpy(np.ascontiguousarray(values)) for values in rows.inputs.values())
    return Samples(inputs, None if rows.labels is None else _targets(rows, task=task, classes=classes))


def _targets(rows: Rows, *, task: Task, classes: Sequence[int | str]) -> Tensor | None:
    if task is Task.EMBEDDING:
        return None
    if task is Task.REGRESSION:
        return torch.from_numpy(np.asarray(rows.answers, dtype=np.float32))
    if not classes:
        return torch.from_numpy(np.asarray(rows.answers, dtype=np.int64))
    column = {str(name): number for number, name in enumerate(classes)}
    return torch.tensor([column.get(str(label), -1) for label in rows.answers.tolist()], dtype=torch.int64)


def shuffled(data: Samples, size: int, generator: torch.Generator) -> Iterator[Samples]:
    """Yield the rows in a random order, in batches of one size; fewer rows than one batch are one batch."""
    order = torch.randperm(len(data), generator=generator)
    size = min(size, len(data))
    for start in range(0, len(data) - size + 1, size):
        yield data.take(order[start : start + size])


def filled(data: Samples, size: int) -> Iterator[Samples]:
    """Yield the rows in their order, in batches of one size; the last is filled up with rows from the start."""
    for start in range(0, len(data), size):
        yield data.take(torch.arange(start, start + size) % len(data))


def answers(ask: Ask, data: Samples, size: int) -> Tensor:
    """Return the scores for all rows, in their order, asked in batches of one size."""
    with torch.no_grad():
        return torch.cat([ask(batch.inputs) for batch in filled(data, size)])[: len(data)]
