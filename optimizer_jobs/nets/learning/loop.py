"""Training of a network: epochs over rows until validation gets no better, and then the weights of the best epoch.

It is the one loop for training again, for students, and for recovery after pruning, factorization or rounding.
Validation rows decide when to end and are never learned from. The same arguments, seed and threads give the same
weights, unless the time is up.
"""

import copy
import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

import torch
from torch import Tensor, nn

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.errors import JobError
from optimizer_jobs.nets.learning import hypergradient
from optimizer_jobs.nets.learning.determinism import deterministic
from optimizer_jobs.nets.learning.features import Features, Watch
from optimizer_jobs.nets.learning.lesson import BatchTransform, Hidden, Lesson, Teacher
from optimizer_jobs.nets.learning.losses import column, task_scores
from optimizer_jobs.nets.learning.parts import parts
from optimizer_jobs.nets.learning.rows import Samples, samples, scores_for, shuffled
from optimizer_jobs.nets.learning.settings import Settings
from optimizer_jobs.nets.learning.transforms import transforms_of
from optimizer_jobs.progress import say
from optimizer_jobs.signature import Scale
from optimizer_jobs.technique import Alive, Context, Report
from retune.api.model import Task
from retune.api.techniques import TechniqueType
from retune.contract.results import Reason

_HELD_BACK = 0.2
"""Share of the training rows to validate on, where there are no validation rows."""
_LEAST_BATCHES = 50
"""Batches of an epoch that a network gets even when its share of the time is up, to recover from a change."""


@dataclass(frozen=True)
class Trained:
    """A network after training."""

    module: nn.Module
    """The same module, with the weights of its best epoch, in evaluation mode."""
    epochs: int
    """Epochs that went into these weights; 0 when the first epoch diverged and the weights are as before."""
    quality: float
    """On validation: accuracy, F1 over all labels, R squared, or mean cosine with the teacher."""
    before: float
    """The same before training."""
    unlearned: str | None
    """Why hyperparameters were not learned, where they should have been."""
    settings: Settings
    """The settings of the training: those asked for, or those that were learned from them."""


def train(  # noqa: PLR0913 - all that one training depends on
    module: nn.Module,
    training: Rows,
    validation: Rows | None = None,
    *,
    task: Task,
    classes: Sequence[int | str] = (),
    settings: Settings,
    transforms: Sequence[BatchTransform] = (),
    teacher: Teacher | None = None,
    features: Features | None = None,
    score: int | None = None,
    scale: Scale | None = None,
    seed: int,
    threads: int,
    report: Report | None = None,
    alive: Alive | None = None,
) -> Trained:
    """Train the module in place, and return it with the weights of its best epoch.

    Args:
        module: Takes the inputs in the order of the rows.
        training: Rows to learn from; those with a class that the model does not have are left out.
        validation: Rows that say which epoch is best. None: a fifth of the training rows is used for it.
        task: Classification, MultiLabel, Regression, or Embedding, which needs a teacher instead of labels.
        classes: Label of each score column; empty means that the column's number is the label.
        settings: Hyperparameters.
        transforms: Changes to every batch, in this order.
        teacher: Its answers are learned besides the labels or instead of them.
        features: The teacher's hidden features, learned with the weight `settings.feature_weight`.
        score: Place of the scores among the module's floating point outputs, where it is known.
        scale: What the module's scores of several labels a row are; None: logits.
        seed: Seed of the order of rows, transforms and dropout.
        threads: Threads of torch.
        report: Called after every epoch; what it raises passes through.
        alive: Says, batch by batch, how long the training may still take; what it raises passes through.

    Raises:
        JobError: TechniqueUnavailable when there are neither labels nor a teacher to learn from.
    """
    learned, judged = _rows(training, validation, task=task, classes=classes, seed=seed)
    _check_learnable(learned, teacher)
    with deterministic(seed=seed, threads=threads), _watched(module, features) as hidden:
        lesson = Lesson(
            module=module,
            training=learned,
            validation=judged,
            task=task,
            settings=settings,
            transforms=tuple(transforms),
            teacher=teacher,
            hidden=hidden,
            score=score,
            scale=scale,
            seed=seed,
            alive=alive,
        )
        return _run(lesson, report)


def _check_learnable(rows: Samples, teacher: Teacher | None) -> None:
    """Raise JobError where neither labels nor a teacher say what to answer."""
    if rows.targets is None and teacher is None:
        raise JobError(
            Reason.TECHNIQUE_UNAVAILABLE,
            "training data",
            "the rows have no labels, and there is no teacher.",
            "Name the label column in data.training, or remove the techniques that train.",
        )


@contextmanager
def _watched(module: nn.Module, features: Features | None) -> Iterator[Hidden | None]:
    """Watch the module's hidden features while it learns those of a teacher."""
    if features is None:
        yield None
        return
    watch = Watch(module)
    try:
        yield watch, features
    finally:
        watch.remove()


def train_on(module: nn.Module, context: Context, *, model: Path | None = None, epochs: int | None = None) -> Trained:
    """Train a module further after it was changed, with the hyperparameters and transforms of the context's plan.

    Hyperparameters are not learned by gradient here, because this is called for every round of a change and takes few
    epochs.

    Args:
        module: The changed module; it is trained in place.
        context: Rows, task and plan; there must be training rows.
        model: The ONNX file before the change, as a teacher. An embedding needs it.
        epochs: Largest number of epochs, instead of that of the plan.

    Raises:
        ValueError: There are no training rows.
    """
    if context.training is None:
        raise ValueError("training on needs training rows")
    params = context.training_plan.get(TechniqueType.HYPERPARAMETER_TUNING, {})
    settings, score = dataclasses.replace(Settings.of(params), learned=False), context.signature.score_place
    return train(
        module,
        context.training,
        context.validation,
        task=context.task,
        classes=context.classes,
        settings=settings if epochs is None else dataclasses.replace(settings, epochs=epochs),
        transforms=transforms_of(context.training_plan, context),
        teacher=None if model is None else _teacher(model, context),
        score=score,
        scale=context.signature.score_scale,
        seed=context.seed,
        threads=context.threads,
        report=context.report,
        alive=context.alive,
    )


def _teacher(model: Path, context: Context) -> Teacher:
    """Return an ONNX file as the teacher of a module that was made from it."""
    from optimizer_jobs.nets.conversion.importer import import_module

    module = import_module(model).eval().requires_grad_(requires_grad=False)
    place, scale = context.signature.score_place, context.signature.score_scale
    return lambda inputs: task_scores(context.task, module(*inputs), place=place, scale=scale)


@dataclass
class _Best:
    """The best epoch so far, with the weights after it; 0 are the weights before training."""

    weights: dict[str, Tensor]
    epoch: int = 0
    judged: tuple[float, float] = (-math.inf, -math.inf)


def _run(lesson: Lesson, report: Report | None) -> Trained:
    module, (before, _) = lesson.module, lesson.judged()
    best = _Best(copy.deepcopy(module.state_dict()))
    _centre(lesson)
    if lesson.settings.learned:
        lesson = hypergradient.learned(lesson)
    _epochs(lesson, report, best)
    module.load_state_dict(best.weights)
    module.eval()
    quality = best.judged[0] if best.epoch else before
    return Trained(
        module=module,
        epochs=best.epoch,
        quality=quality,
        before=before,
        settings=lesson.settings,
        unlearned=lesson.unlearned,
    )


class _End(Enum):
    """How an epoch ended."""

    DONE = auto()
    LATE = auto()
    DIVERGED = auto()


def _epochs(lesson: Lesson, report: Report | None, best: _Best) -> None:
    """Train epoch by epoch until validation gets no better, and keep the best epoch in `best`."""
    generator, optimizer = torch.Generator().manual_seed(lesson.seed), _optimizer(lesson)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lesson.share)
    for epoch in range(1, lesson.settings.epochs + 1):
        end = _epoch(lesson, optimizer, schedule, generator)
        if end is _End.DIVERGED:
            break
        judged = lesson.judged()
        if judged > best.judged:
            best.epoch, best.judged, best.weights = epoch, judged, copy.deepcopy(lesson.module.state_dict())
        if end is _End.LATE or (report is not None and report(epoch, judged[0]) is False):
            say(
                f"training ends {'in' if end is _End.LATE else 'after'} epoch {epoch}: it has had its share of the time"
            )
            break
        if epoch - best.epoch >= lesson.settings.patience:
            break


def _epoch(
    lesson: Lesson,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    generator: torch.Generator,
) -> _End:
    """Learn from all batches once, unless the loss becomes infinite or NaN, or the time is up."""
    for number, batch in enumerate(shuffled(lesson.training, lesson.settings.batch_size, generator), start=1):
        lesson.module.train()
        loss = lesson.batch_loss(lesson.prepared(batch, generator))
        if not bool(torch.isfinite(loss)):
            return _End.DIVERGED
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(lesson.module.parameters(), lesson.settings.clip_norm)
        optimizer.step()
        schedule.step()
        if lesson.time_left() <= 0 and number >= _LEAST_BATCHES:
            return _End.LATE
    return _End.DONE


def _centre(lesson: Lesson) -> None:
    """Give the last layer of a regression the bias that makes the mean answer right, unless answers get worse by it."""
    head = next((layer for layer in reversed(list(lesson.module.modules())) if isinstance(layer, nn.Linear)), None)
    targets = lesson.training.targets
    if lesson.task is not Task.REGRESSION or head is None or head.bias is None or targets is None:
        return

    def errors() -> Tensor:
        return targets - column(scores_for(lesson.predict, lesson.training, lesson.settings.batch_size))

    lesson.module.eval()
    with torch.no_grad():
        before, bias = errors(), head.bias.clone()
        head.bias += before.mean(0)
        if errors().square().mean() > before.square().mean():
            head.bias.copy_(bias)


def _optimizer(lesson: Lesson) -> torch.optim.Optimizer:
    """Return AdamW with the learning rate and decay of each weight."""
    weights, settings = dict(lesson.module.named_parameters()), lesson.settings
    return torch.optim.AdamW(
        {
            "params": [weights[name]],
            "lr": part.rate(settings.learning_rate, settings.head_rate),
            "weight_decay": part.decay(settings.weight_decay, settings.head_decay),
        }
        for name, part in parts(lesson.module, unit=lesson.unit).items()
    )


def _rows(
    training: Rows, validation: Rows | None, *, task: Task, classes: Sequence[int | str], seed: int
) -> tuple[Samples, Samples]:
    """Return the rows to learn from, and those that epochs are judged on."""
    learned = _known(samples(training, task=task, classes=classes))
    if validation is None:
        return _split(learned, seed)
    return learned, samples(validation, task=task, classes=classes)


def _known(rows: Samples) -> Samples:
    """Return the rows whose class the model has."""
    if rows.targets is None or rows.targets.is_floating_point():
        return rows
    known = rows.targets >= 0
    unknown = len(rows) - int(known.sum())
    if unknown:
        say(f"{unknown} of {len(rows)} training rows have a class that the model does not know; they are left out")
    return rows.take(known.nonzero().squeeze(1))


def _split(rows: Samples, seed: int) -> tuple[Samples, Samples]:
    """Return the rows to learn from and those held back for validation, drawn at random by the seed."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    count = max(1, round(_HELD_BACK * len(rows)))
    return rows.take(order[count:]), rows.take(order[:count])
