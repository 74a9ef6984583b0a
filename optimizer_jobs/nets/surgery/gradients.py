"""Gradients of the loss on real rows, for measuring how much each weight matters."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from optimizer_jobs.nets.learning.losses import loss_for, task_scores
from optimizer_jobs.nets.learning.rows import Samples, samples, shuffled
from optimizer_jobs.technique import Context
from retune.api.model import Task

_ROWS, _BATCH = 512, 16
"""Rows in all, and in a batch where the model does not fix it."""


@contextmanager
def with_gradients(module: nn.Module, context: Context) -> Iterator[None]:
    """Give every weight the root of the sum of its squared gradients over labelled batches, while the context is open.

    The plain sum would say nothing, because it is nearly 0 for a trained network. An embedding has no labels, so its
    weights get no gradients.
    """
    rows = context.training
    try:
        if rows is not None and context.task is not Task.EMBEDDING:
            _fill(module, samples(rows, task=context.task, classes=context.classes), context)
        yield
    finally:
        module.zero_grad(set_to_none=True)


def _fill(module: nn.Module, rows: Samples, context: Context) -> None:
    loss, generator = loss_for(context.task), torch.Generator().manual_seed(context.seed)
    size = context.signature.batch or min(_BATCH, len(rows))
    squares: dict[nn.Parameter, torch.Tensor] = {}
    for batch in itertools.islice(shuffled(rows, size, generator), max(1, _ROWS // size)):
        if batch.targets is None:
            return
        module.zero_grad(set_to_none=True)
        answers = module(*batch.inputs)
        place, scale = context.signature.score_place, context.signature.score_scale
        loss(task_scores(context.task, answers, place=place, scale=scale), batch.targets).backward()
        for weight in module.parameters():
            if weight.grad is not None:
                squares[weight] = squares.get(weight, torch.zeros_like(weight)) + weight.grad.square()
    module.zero_grad(set_to_none=True)
    for weight, total in squares.items():
        weight.grad = total.detach().sqrt()
