"""Gradients of the loss on real rows, for measuring how much each weight matters."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from optimizer_jobs.nets.losses import loss_for, scores_of
from optimizer_jobs.nets.rows import samples, shuffled
from optimizer_jobs.techniques.base import Context
from retune.api.model import Task

_ROWS, _BATCH = 512, 64


@contextmanager
def with_gradients(module: nn.Module, context: Context) -> Iterator[None]:
    """Give every weight its gradient over some labelled rows; an embedding has no labels and gets none."""
    rows = context.training
    try:
        if rows is not None and context.task is not Task.EMBEDDING:
            given = samples(rows, task=context.task, classes=context.classes)
            loss = loss_for(context.task)
            module.zero_grad(set_to_none=True)
            generator = torch.Generator().manual_seed(context.seed)
            for number, batch in enumerate(shuffled(given, context.signature.batch or _BATCH, generator)):
                if number * _BATCH >= _ROWS or batch.targets is None:
                    break
                loss(scores_of(module(*batch.inputs)), batch.targets).backward()
        yield
    finally:
        module.zero_grad(set_to_none=True)
