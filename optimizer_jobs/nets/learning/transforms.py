"""The changes that augmentation and adversarial training of a plan make to each batch."""

from collections.abc import Callable, Mapping

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.nets.learning.attack import Attack
from optimizer_jobs.nets.learning.augment import augment
from optimizer_jobs.nets.learning.lesson import BatchTransform
from optimizer_jobs.nets.learning.rows import samples
from optimizer_jobs.technique import Context, Params, TrainingPlan
from retune.api.model import Task
from retune.api.techniques import TechniqueType


def transforms_of(plan: TrainingPlan, context: Context) -> tuple[BatchTransform, ...]:
    """Return the changes to each batch, in order; none without training rows."""
    rows = context.training
    if rows is None:
        return ()
    return tuple(make(plan[kind], rows, context) for kind, make in _MAKERS.items() if kind in plan)


def _augmentation(params: Params, rows: Rows, context: Context) -> BatchTransform:
    score = context.signature.score_output
    classes = score.row_size if score is not None and context.task is Task.CLASSIFICATION else 0
    return augment(params, samples(rows, task=context.task, classes=context.classes).inputs, classes=classes)


def _attack(params: Params, rows: Rows, context: Context) -> BatchTransform:
    inputs = samples(rows, task=context.task, classes=context.classes).inputs
    return Attack.of(params, inputs, score=context.signature.score_place)


_MAKERS: Mapping[TechniqueType, Callable[[Params, Rows, Context], BatchTransform]] = {
    TechniqueType.AUGMENTATION: _augmentation,
    TechniqueType.ADVERSARIAL_TRAINING: _attack,
}
"""Augmentation comes first, so that the attack starts from the rows that the network would otherwise learn from."""
