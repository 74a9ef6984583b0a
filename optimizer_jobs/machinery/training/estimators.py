"""Train an estimator as all training techniques of one plan together say, and write it as ONNX again.

Inputs and outputs stay as they were delivered. With a seed and a bounded number of threads, the same bytes come out
again.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.errors import printable
from optimizer_jobs.machinery.estimators.convert import NotConvertibleError, to_onnx
from optimizer_jobs.machinery.estimators.growth import grown
from optimizer_jobs.machinery.estimators.inputs import asked_with, final
from optimizer_jobs.machinery.estimators.load import load
from optimizer_jobs.machinery.estimators.preparing import NothingToPrepareError, prepared
from optimizer_jobs.machinery.estimators.preparing import words as words_of_steps
from optimizer_jobs.machinery.estimators.save import save
from optimizer_jobs.machinery.estimators.soundness import parts
from optimizer_jobs.machinery.training.estimator_spaces import decoded
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.progress import say
from optimizer_jobs.technique import Applied, Context, ParamValue, Skipped, TrainingPlan
from retune.api.model import Task
from retune.api.techniques import TechniqueType

_CHECKED_ROWS = 1000
"""Rows on which the answers of file and estimator are compared, at most."""
_LEAST_PROBABILITY = 1e-15


@dataclass(frozen=True)
class _Data:
    """Rows as the estimator takes them, with their labels."""

    X: Any
    y: Any

    @classmethod
    def of(cls, estimator: Any, rows: Rows, task: Task) -> "_Data":
        dtype = np.float64 if task is Task.REGRESSION else None
        return cls(asked_with(estimator, rows.inputs), np.asarray(rows.answers, dtype=dtype))


@dataclass(frozen=True)
class _Trained:
    """An estimator after training."""

    estimator: Any
    quality: float
    """Accuracy or R squared on validation."""
    before: float
    """The same for the delivered estimator."""
    surer: bool
    """Whether its probabilities are nearer to the labels of validation than those of the delivered estimator."""


def fit(model: Path, plan: TrainingPlan, context: Context) -> Applied | Skipped:
    """Write the trained estimator into the context's workdir, as ONNX and as a skops file.

    It is skipped when it is no better on validation and its file is no smaller than `model`.

    Args:
        model: The ONNX file of the delivered estimator.
        plan: Parameters of every training technique.
        context: Rows, signature, seed, and the delivered file.
    """
    if context.native is None or context.training is None:
        return Skipped(reason="there are no rows to train on")
    delivered = load(context.native, trusted=True).estimator
    training = _Data.of(delivered, context.training, context.task)
    validation = _Data.of(delivered, context.validation or context.training, context.task)
    say(f"training {type(final(delivered)).__name__} on {len(context.training)} rows")
    try:
        trained = _trained(delivered, training, validation, plan=plan, context=context)
    except NothingToPrepareError as error:
        return Skipped(reason=str(error))
    except (ValueError, MemoryError, np.linalg.LinAlgError) as error:
        return Skipped(reason=f"it cannot be trained so: {printable(str(error), limit=200).rstrip('.')}")
    target, native = context.workdir / "model.onnx", context.workdir / "model.skops"
    reason = _written(trained.estimator, target, context) or _useless(trained, target, model)
    if reason is not None:
        return Skipped(reason=reason)
    save(trained.estimator, native)
    summary = f"{_words(plan)}: {trained.quality:.4g} on validation, {trained.before:.4g} before"
    return Applied(model=target, summary=summary, native=native)


def _trained(delivered: Any, training: _Data, validation: _Data, *, plan: TrainingPlan, context: Context) -> _Trained:
    with _bounded(context.threads):
        before = _quality(delivered, validation)
        estimator = _fitted(delivered, training, validation, plan=plan, context=context)
        surer = _log_loss(estimator, validation) < _log_loss(delivered, validation)
        return _Trained(estimator, quality=_quality(estimator, validation), before=before, surer=surer)


def _fitted(delivered: Any, training: _Data, validation: _Data, *, plan: TrainingPlan, context: Context) -> Any:
    """Return a clone of the delivered estimator, changed and fitted as the plan says."""
    from sklearn.base import clone

    estimator = clone(delivered)
    chosen = plan.get(TechniqueType.HYPERPARAMETER_TUNING, {}) | plan.get(TechniqueType.ARCHITECTURE, {})
    estimator.set_params(**decoded(chosen))
    if TechniqueType.DATA_PREPARATION in plan:
        estimator = prepared(estimator, plan[TechniqueType.DATA_PREPARATION], training.X, task=context.task)
    for part in parts(estimator):
        if "random_state" in part.get_params(deep=False):
            part.set_params(random_state=context.seed)
        if "n_jobs" in part.get_params(deep=False):
            part.set_params(n_jobs=None)
    report = context.report or (lambda _epoch, _quality: None)

    def judge(stage: int, grown_so_far: Any) -> None:
        report(stage, _quality(grown_so_far, validation))

    return grown(
        estimator,
        training.X,
        training.y,
        report=judge,
        threads=context.threads,
        check_time=context.check_time,
    )


def _written(estimator: Any, target: Path, context: Context) -> str | None:
    """Write the ONNX file; return why it cannot replace the delivered one, or None."""
    rows = (context.validation or context.training).take(slice(_CHECKED_ROWS))  # type: ignore[union-attr] # fit checks
    try:
        to_onnx(estimator, context.signature.inputs, target=target, rows=rows.inputs, delivered=False)
    except NotConvertibleError as error:
        return str(error)
    signature = open_model(target, EngineOptions(spinning=False)).signature
    if not signature.same_tensors(context.signature):
        return f"its outputs changed to {signature.words}: do the training rows have every class?"
    return None


def _useless(trained: _Trained, target: Path, model: Path) -> str | None:
    """Return why the estimator is not worth taking, or None when it is better or its file is smaller.

    Better probabilities are enough: where one class is frequent, they gain long before the answers do.
    """
    after, before = trained.quality, trained.before
    if after > before or trained.surer or target.stat().st_size < model.stat().st_size:
        return None
    return f"it gave {after:.4g} on validation, no better than {before:.4g} before, and its file is no smaller"


def _quality(estimator: Any, data: _Data) -> float:
    """Return accuracy or R squared; higher is better."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if hasattr(estimator, "classes_"):
            return float(np.mean(np.asarray(estimator.predict(data.X)).astype(str) == data.y.astype(str)))
        return float(estimator.score(data.X, data.y))


def _log_loss(estimator: Any, data: _Data) -> float:
    """Return how far probabilities are from the labels; NaN of an estimator without probabilities of its own."""
    if not hasattr(estimator, "classes_") or not hasattr(estimator, "predict_proba") or data.y.ndim > 1:
        return float("nan")
    scores = np.asarray(estimator.predict_proba(data.X), dtype=np.float64)
    columns = {str(label): column for column, label in enumerate(estimator.classes_)}
    chosen = np.asarray([columns.get(str(label), -1) for label in data.y])
    given = np.where(chosen >= 0, scores[np.arange(len(scores)), chosen], 0.0)
    return float(-np.log(np.maximum(given, _LEAST_PROBABILITY)).mean())


@contextmanager
def _bounded(threads: int) -> Iterator[None]:
    """Bound the threads of numerical libraries, and silence warnings."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(threads), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _words(plan: TrainingPlan) -> str:
    words = []
    for kind, params in plan.items():
        if kind is TechniqueType.DATA_PREPARATION:
            words.append(words_of_steps(params))
        else:
            words += [f"{name} {_shown(value)}" for name, value in params.items()]
    return "trained with " + (", ".join(words) or "the same settings")


def _shown(value: ParamValue) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
