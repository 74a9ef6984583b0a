"""Rows as tensors, with labels as numbers for a loss, and cut into batches.

Every batch has the same size, as a model with a fixed batch needs it. In training, rows that do not fill a batch are
left out of an epoch; in prediction, the last batch is filled up.
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

Predict = Callable[[tuple[Tensor, ...]], Tensor]
"""Returns the scores for a batch of inputs."""


@dataclass(frozen=True)
class Samples:
    """Rows as a network takes them."""

    inputs: tuple[Tensor, ...]
    """Inputs in the order of the signature, each (N, ...)."""
    targets: Tensor | None
    """Column numbers or numbers to predict, (N,); shares of classes, (N, C); zeros and ones, (N, L); None without
    labels."""

    def __len__(self) -> int:
        return len(self.inputs[0])

    def take(self, index: Tensor) -> "Samples":
        """Return the rows at `index`, in that order."""
        targets = None if self.targets is None else self.targets[index]
        return Samples(tuple(values[index] for values in self.inputs), targets)


def samples(rows: Rows, *, task: Task, classes: Sequence[int | str] = ()) -> Samples:
    """Return rows as tensors.

    Args:
        rows: Rows with or without labels.
        task: What the labels are; those of an embedding are ignored.
        classes: Label of each score column; empty means that the column's number is the label. A label that is none
            of them becomes -1.

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
    if task in {Task.REGRESSION, Task.MULTI_LABEL}:
        return torch.from_numpy(np.asarray(rows.answers, dtype=np.float32))
    if not classes:
        return torch.from_numpy(np.asarray(rows.answers, dtype=np.int64))
    columns = {str(name): number for number, name in enumerate(classes)}
    return torch.tensor([columns.get(str(label), -1) for label in rows.answers.tolist()], dtype=torch.int64)


def shuffled(data: Samples, size: int, generator: torch.Generator) -> Iterator[Samples]:
    """Yield the rows in a random order, in batches of `size`; fewer rows than that are one smaller batch."""
    order = torch.randperm(len(data), generator=generator)
    size = min(size, len(data))
    for start in range(0, len(data) - size + 1, size):
        yield data.take(order[start : start + size])


def filled(data: Samples, size: int) -> Iterator[Samples]:
    """Yield the rows in their order, in batches of `size`; the last one is filled up with rows from the start."""
    for start in range(0, len(data), size):
        yield data.take(torch.arange(start, start + size) % len(data))


def scores_for(predict: Predict, data: Samples, size: int) -> Tensor:
    """Return the scores for all rows, in their order, computed in batches of `size` and without gradients."""
    with torch.no_grad():
        return torch.cat([predict(batch.inputs) for batch in filled(data, size)])[: len(data)]
