"""The loss that training minimizes for each task, and the quality that an epoch is judged by.

A classifier may answer logits or probabilities. Both are read as logits, so that no loss applies a softmax or a sigmoid
twice. Probabilities of classes show by themselves, because they add up to 1; those of several labels a row do not, so
what their scores are has to be told.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from optimizer_jobs.nets.outputs import likely_scores, named
from optimizer_jobs.signature import Scale
from retune.api.model import Task

Loss = Callable[[Tensor, Tensor], Tensor]
"""Takes scores and targets of a batch, and returns the mean loss. Targets of a classifier are column numbers (N,) or
shares of classes (N, C); those of several labels a row are zeros and ones, or shares, (N, L); those of a regression are
numbers (N,)."""

_EVEN = 0.5
_LEAST_SHARE = 1e-6
"""Distance from 0 and 1 that the probability of a label keeps, so that its logit is finite in 32 bits."""
_SMALLEST = 1e-7
"""Smallest probability or variance to compute with."""


def scores_of(answers: Any, place: int | None = None) -> Tensor:
    """Return the output that training is about.

    Args:
        answers: What a network answers, in any form.
        place: Place of the scores among the floating point outputs, as `Signature.score_place` says. None, or one that
            the network does not have: the output whose name or shape says that it holds scores.

    Raises:
        ValueError: There is no floating point output.
    """
    if isinstance(answers, Tensor):
        return answers
    outputs = named(answers)
    floats = [values for values in outputs.values() if values.is_floating_point()]
    if place is not None and place < len(floats):
        return floats[place]
    name = likely_scores(outputs)
    if name is None:
        raise ValueError("the network answers no floating point numbers")
    return outputs[name]


def logits(scores: Tensor) -> Tensor:
    """Return scores, which may be probabilities, as logits (N, C)."""
    return scores.clamp_min(_SMALLEST).log() if is_probabilities(scores) else scores


def is_probabilities(scores: Tensor) -> bool:
    """Return whether every row of scores (N, C) is a distribution: nothing negative, and a sum of 1."""
    values = scores.detach()
    return bool((values >= 0).all()) and bool(((values.sum(-1) - 1).abs() < 1e-4).all())


def label_logits(scores: Tensor, scale: Scale | None) -> Tensor:
    """Return scores of several labels a row (N, L), which are what `scale` says, as logits of each label."""
    return torch.logit(scores, eps=_LEAST_SHARE) if scale is Scale.PROBABILITIES else scores


def task_scores(task: Task, answers: Any, *, place: int | None = None, scale: Scale | None = None) -> Tensor:
    """Return the scores that losses of a task take: those of `scores_of`, and of several labels a row their logits.

    Args:
        task: What the scores are.
        answers: What a network answers, in any form.
        place: Place of the scores among the floating point outputs, as `Signature.score_place` says.
        scale: What scores of several labels a row are, as `Signature.score_scale` says; None: logits.
    """
    scores = scores_of(answers, place)
    return label_logits(scores, scale) if task is Task.MULTI_LABEL else scores


def loss_for(task: Task, *, label_smoothing: float | Tensor = 0.0, scale: float = 1.0) -> Loss:
    """Return the loss of labelled rows. A row whose label is no class of the model (-1) does not count.

    Args:
        task: Classification (cross entropy), MultiLabel (binary cross entropy of logits, the mean over the labels) or
            Regression (squared error). An embedding has no labels.
        label_smoothing: Share of a label that is spread over all classes, or over yes and no; the loss can be
            differentiated by it.
        scale: Standard deviation of the numbers to predict; it is the unit of errors.

    Raises:
        ValueError: The task has no labels.
    """
    if task is Task.CLASSIFICATION:
        return lambda scores, targets: _cross_entropy(scores, targets, label_smoothing)
    if task is Task.MULTI_LABEL:
        return lambda scores, targets: _binary_cross_entropy(scores, targets, label_smoothing)
    if task is Task.REGRESSION:
        return lambda scores, targets: ((column(scores) - targets) / scale).square().mean()
    raise ValueError(f"a model of task {task} has no loss for its scores")


def _cross_entropy(scores: Tensor, targets: Tensor, smoothing: float | Tensor) -> Tensor:
    """Return the mean cross entropy of scores (N, C) with column numbers (N,) or shares of classes (N, C)."""
    logs = functional.log_softmax(logits(scores), dim=-1)
    spread = -logs.mean(-1)
    if targets.is_floating_point():
        sharp = -(targets * logs).sum(-1)
        return ((1 - smoothing) * sharp + smoothing * spread).mean()
    known = targets >= 0
    sharp = -logs.gather(-1, targets.clamp_min(0).unsqueeze(-1)).squeeze(-1)
    losses = ((1 - smoothing) * sharp + smoothing * spread) * known
    return losses.sum() / known.sum().clamp_min(1)


def _binary_cross_entropy(logits: Tensor, targets: Tensor, smoothing: float | Tensor) -> Tensor:
    """Return the mean over rows and labels of the cross entropy of logits with zeros and ones, or shares, (N, L)."""
    shares = (1 - smoothing) * targets.to(logits.dtype) + smoothing / 2
    return -(shares * functional.logsigmoid(logits) + (1 - shares) * functional.logsigmoid(-logits)).mean()


def column(scores: Tensor) -> Tensor:
    """Return a regression's answers, (N,) or (N, 1), as (N,); several numbers a row, (N, K), stay as they are."""
    return scores.reshape(len(scores), -1).squeeze(1)


def taught(task: Task, scores: Tensor, answers: Tensor, *, temperature: float) -> Tensor:
    """Return the distance of a student's scores from a teacher's answers; 0 when they are the same.

    Args:
        task: What the scores are.
        scores: Scores of the student, (N, C), or (N,) or (N, 1) for a regression; logits (N, L) of several labels.
        answers: Scores of the teacher in the same shape.
        temperature: What logits of a classifier, or of labels, are divided by.
    """
    if task is Task.CLASSIFICATION:
        student = functional.log_softmax(logits(scores) / temperature, dim=-1)
        teacher = functional.log_softmax(logits(answers) / temperature, dim=-1)
        return functional.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2
    if task is Task.MULTI_LABEL:
        return _label_divergence(scores / temperature, answers / temperature) * temperature**2
    spread = answers.var(correction=0).clamp_min(_SMALLEST)
    error = (scores - answers).square().mean() / spread
    if task is Task.REGRESSION:
        return error
    return error + (1 - functional.cosine_similarity(scores, answers, dim=-1)).mean()


def _label_divergence(logits: Tensor, answers: Tensor) -> Tensor:
    """Return the divergence of a student's yes or no from a teacher's, both logits (N, L): the mean over all labels."""
    sure, unsure = answers.sigmoid(), (-answers).sigmoid()
    yes = functional.logsigmoid(answers) - functional.logsigmoid(logits)
    no = functional.logsigmoid(-answers) - functional.logsigmoid(-logits)
    return (sure * yes + unsure * no).mean()


def quality(task: Task, scores: Tensor, targets: Tensor) -> float:
    """Return the quality of answers, higher is better: share of right classes, F1 of labels, R squared, or mean cosine.

    Args:
        task: What the scores are.
        scores: Answers of the model, (N, C), or (N,) or (N, 1) for a regression; logits (N, L) of several labels.
        targets: Column numbers or numbers (N,), several numbers (N, K), shares of classes (N, C) or labels (N, L), or
            embeddings (N, C).
    """
    if task is Task.CLASSIFICATION:
        expected = targets if targets.ndim == 1 else targets.argmax(-1)
        return float((scores.argmax(-1) == expected).double().mean())
    if task is Task.MULTI_LABEL:
        return _f1(scores > 0, targets > _EVEN)
    if task is Task.REGRESSION:
        numbers = targets.double()
        error = (column(scores).double() - numbers).square().mean()
        return float(1 - error / numbers.var(0, correction=0).mean().clamp_min(1e-12))
    return float(functional.cosine_similarity(scores.double(), targets.double(), dim=-1).mean())


def _f1(decided: Tensor, true: Tensor) -> float:
    """Return F1 of decided labels and true ones, (N, L), over all of them alike; 1 where there are none."""
    wrong = int((decided != true).sum())
    right = int((decided & true).sum())
    return 2 * right / (2 * right + wrong) if right + wrong else 1.0
