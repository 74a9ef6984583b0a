"""Training of a network: epochs over rows until validation gets no better, and the best epoch kept.

The one loop for retraining, students and recovery after pruning, factorization or rounding. Validation rows decide when
to end and are never learned from. The same arguments, seed and threads give the same weights, unless time ends it.
"""

import copy
import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.errors import JobError
from optimizer_jobs.nets.learning import hypergradient
from optimizer_jobs.nets.learning.determinism import deterministic
from optimizer_jobs.nets.learning.features import Features, Watch
from optimizer_jobs.nets.learning.lesson import BatchTransform, Hidden, Lesson, Teacher
from optimizer_jobs.nets.learning.losses import Loss, column, loss_for, scores_of
from optimizer_jobs.nets.learning.parts import parts
from optimizer_jobs.nets.learning.rows import Samples, answers, samples, shuffled
from optimizer_jobs.nets.learning.settings import Settings
from optimizer_jobs.nets.learning.transforms import transforms_of
from optimizer_jobs.progress import say
from optimizer_jobs.technique import Context, Report
from retune.api.model import Task
from retune.api.techniques import TechniqueType
from retune.contract.results import Reason

__all__ = ["BatchTransform", "Loss", "Settings", "Teacher", "Trained", "loss_for", "train", "train_on"]

_HELD_BACK = 0.2


@dataclass(frozen=True)
class Trained:
    """A network after training."""

    module: nn.Module
    """The module given, with the weights of its best epoch, in evaluation mode."""
    epochs: int
    """Epochs that went into these weights; 0 when the first one already diverged and nothing was changed."""
    quality: float
    """On validation: accuracy, R squared, or mean cosine with the teacher."""
    before: float
    """The same before training."""
    settings: Settings
    """The settings trained with: those given, or what was learned from them."""


def train(  # noqa: PLR0913 - one training has that many sides
    module: nn.Module,
    training: Rows,
    validation: Rows | None = None,
    *,
    task: Task,
    classes: Sequence[int | str] = (),
    settings: Settings,
    transforms: Sequence[BatchTransform] = (),
    loss: Loss | None = None,
    teacher: Teacher | None = None,
    features: Features | None = None,
    seed: int,
    threads: int,
    report: Report | None = None,
) -> Trained:
    """Train in place and return the module with its best epoch.

    Args:
        module: Takes the inputs in the rows' order, answers scores first among its floating point outputs.
        training: Rows to learn from; those with a class that the model does not have are left out.
        validation: Rows that say which epoch is best. None: a fifth of the training rows is held back for it.
        task: Classification, Regression, or Embedding, which needs a teacher instead of labels.
        classes: Label of each score column; empty means that the column's number is the label.
        settings: Hyperparameters.
        transforms: What is done to every batch, in this order.
        loss: What is made small for labels; None: what `loss_for` says.
        teacher: Answers to come close to, besides the labels or instead of them.
        features: The teacher's hidden features, to be made alike with `settings.feature_weight`.
        seed: Seed of order, transforms, dropout.
        threads: Threads of torch.
        report: Hears of every epoch; what it raises passes through.

    Raises:
        JobError: TechniqueUnavailable when there is nothing to learn from: no labels and no teacher.
    """
    learned = _known(samples(training, task=task, classes=classes))
    if learned.targets is None and teacher is None:
        raise JobError(
            Reason.TECHNIQUE_UNAVAILABLE,
            "training data",
            "the rows have no labels, and there is no teacher.",
            "Name the label column in data.training, or remove the techniques that train.",
        )
    if validation is None:
        learned, held = _split(learned, seed)
    else:
        held = samples(validation, task=task, classes=classes)
    with deterministic(seed=seed, threads=threads), _hidden(module, features) as hidden:
        lesson = Lesson(
            module=module,
            learned=learned,
            held=held,
            task=task,
            settings=settings,
            transforms=tuple(transforms),
            loss=loss,
            teacher=teacher,
            hidden=hidden,
            seed=seed,
        )
        return _run(lesson, report)


@contextmanager
def _hidden(module: nn.Module, features: Features | None) -> Iterator[Hidden | None]:
    """Watch the module's features while it learns those of a teacher."""
    if features is None:
        yield None
        return
    watch = Watch(module)
    try:
        yield watch, features
    finally:
        watch.remove()


def train_on(module: nn.Module, context: Context, *, model: Path | None = None, epochs: int | None = None) -> Trained:
    """Train a module on after it was changed, with the hyperparameters and transforms of the context's plan.

    Hyperparameters are not learned again by gradient: this is called once a round, and recovery takes few epochs.

    Args:
        module: The changed module; trained in place.
        context: Rows, task and plan; its training rows must be there.
        model: The ONNX file as it was before the change, which then teaches; needed for an embedding.
        epochs: Epochs at most, instead of the plan's.
    """
    if context.training is None:
        raise ValueError("training on needs training rows")
    params = context.training_plan.get(TechniqueType.HYPERPARAMETER_TUNING, {})
    settings = dataclasses.replace(Settings.of(params), learned=False)
    return train(
        module,
        context.training,
        context.validation,
        task=context.task,
        classes=context.classes,
        settings=settings if epochs is None else dataclasses.replace(settings, epochs=epochs),
        transforms=transforms_of(context.training_plan, context),
        teacher=None if model is None else imported_teacher(model),
        seed=context.seed,
        threads=context.threads,
        report=context.report,
    )


def imported_teacher(model: Path) -> Teacher:
    """Return an ONNX file as the teacher of a module made from it."""
    from optimizer_jobs.nets.conversion.importer import import_module

    module = import_module(model).eval().requires_grad_(requires_grad=False)
    return lambda inputs: scores_of(module(*inputs))


def _run(lesson: Lesson, report: Report | None) -> Trained:
    module, before = lesson.module, lesson.judged()
    best, kept, weights = (-math.inf, -math.inf), 0, copy.deepcopy(module.state_dict())
    _centre(lesson)
    if lesson.settings.learned:
        lesson = hypergradient.learned(lesson)
    settings, generator = lesson.settings, torch.Generator().manual_seed(lesson.seed)
    optimizer = _optimizer(lesson)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lesson.share)
    for epoch in range(1, settings.epochs + 1):
        if not _epoch(lesson, optimizer, schedule, generator):
            break
        judged = lesson.judged()
        if judged > best:
            best, kept, weights = judged, epoch, copy.deepcopy(module.state_dict())
        if report is not None and report(epoch, judged[0]) is False:
            say(f"training ends after epoch {epoch}: it has had its share of the time")
            break
        if epoch - kept >= settings.patience:
            break
    module.load_state_dict(weights)
    module.eval()
    return Trained(
        module=module, epochs=kept, quality=best[0] if kept else before[0], before=before[0], settings=settings
    )


def _epoch(
    lesson: Lesson,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    generator: torch.Generator,
) -> bool:
    """Learn from all batches once; return False as soon as the loss is no number any more."""
    for batch in shuffled(lesson.learned, lesson.settings.batch_size, generator):
        lesson.module.train()
        loss = lesson.batch_loss(lesson.prepared(batch, generator))
        if not bool(torch.isfinite(loss)):
            return False
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(lesson.module.parameters(), lesson.settings.clip_norm)
        optimizer.step()
        schedule.step()
    return True


def _centre(lesson: Lesson) -> None:
    """Give a regression's last layer the bias that makes its mean answer right, unless the answers get no better."""
    head = next((layer for layer in reversed(list(lesson.module.modules())) if isinstance(layer, nn.Linear)), None)
    wanted = lesson.learned.targets
    if lesson.task is not Task.REGRESSION or head is None or head.bias is None or wanted is None:
        return

    def missed() -> Tensor:
        return wanted - column(answers(lesson.ask, lesson.learned, lesson.settings.batch_size))

    lesson.module.eval()
    with torch.no_grad():
        before, bias = missed(), head.bias.clone()
        head.bias += before.mean()
        if missed().square().mean() > before.square().mean():
            head.bias.copy_(bias)


def _optimizer(lesson: Lesson) -> torch.optim.Optimizer:
    weights, settings = dict(lesson.module.named_parameters()), lesson.settings
    return torch.optim.AdamW(
        {
            "params": [weights[name]],
            "lr": part.rate(settings.learning_rate, settings.head_rate),
            "weight_decay": part.decay(settings.weight_decay, settings.head_decay),
        }
        for name, part in parts(lesson.module, unit=lesson.unit).items()
    )


def _known(rows: Samples) -> Samples:
    """Return the rows whose class the model has."""
    if rows.targets is None or rows.targets.is_floating_point():
        return rows
    known = rows.targets >= 0
    strange = len(rows) - int(known.sum())
    if strange:
        say(f"{strange} of {len(rows)} training rows have a class that the model does not know; they are left out")
    return rows.take(known.nonzero().squeeze(1))


def _split(rows: Samples, seed: int) -> tuple[Samples, Samples]:
    """Return the rows to learn from and those held back, drawn by the seed."""
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    held = max(1, round(_HELD_BACK * len(rows)))
    return rows.take(order[held:]), rows.take(order[:held])
