"""Train a model as all training techniques of one plan together say, with the trainer of the model's family.

This module chooses the trainer, and says why a model cannot be trained. A trainer gives the same file for the same
arguments.
"""

import dataclasses
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, cast

import onnx

from optimizer_jobs.machinery.training.tabular import teaches_by_tables
from optimizer_jobs.models.native import Native
from optimizer_jobs.nets.learning.settings import FACTORY
from optimizer_jobs.technique import Applied, Context, Skipped, Subject, TrainingPlan
from retune.api.model import ModelFormat, Task
from retune.api.techniques import TechniqueType

NETWORKS, ESTIMATORS = "optimizer_jobs.machinery.training.networks", "optimizer_jobs.machinery.training.estimators"
TABLE_STUDENTS = "optimizer_jobs.machinery.training.table_students"

TRAINERS: Mapping[ModelFormat, str] = {
    ModelFormat.ONNX: NETWORKS,
    ModelFormat.SAFETENSORS: NETWORKS,
    ModelFormat.STATE_DICT: NETWORKS,
    ModelFormat.TORCHSCRIPT: NETWORKS,
    ModelFormat.TORCH_EXPORT: NETWORKS,
    ModelFormat.SKOPS: ESTIMATORS,
    ModelFormat.JOBLIB: ESTIMATORS,
    ModelFormat.PICKLE: ESTIMATORS,
    ModelFormat.XGBOOST: NETWORKS,
    ModelFormat.LIGHTGBM: NETWORKS,
    ModelFormat.CATBOOST: NETWORKS,
    ModelFormat.HUGGING_FACE: NETWORKS,
}
"""Module that trains models of each format of delivery; it is imported when first used. Boosted trees are no networks;
theirs says so, and distills them."""
NO_TORCH = "there is no torch here, which trains networks: use the optimizer image, or pip install 'retune[training]'"


class Trainer(Protocol):
    """A module that trains one family of models."""

    def fit(self, model: Path, plan: TrainingPlan, context: Context) -> Applied | Skipped:
        """Train as the plan says, and write the model as ONNX into the context's workdir.

        Args:
            model: The ONNX file to start from.
            plan: Parameters of every training technique.
            context: Rows, signature and seed.
        """
        ...


def fit(model: Path, plan: TrainingPlan, context: Context) -> Applied | Skipped:
    """Train as the plan says, and write the model as ONNX into the context's workdir.

    A distilled student is always a network, of torch or of scikit-learn as its teacher asks for. Techniques that change
    an estimator (its preparation, parameters and size) cannot be applied to a student, so they are applied to the
    teacher first.
    """
    trainer = family(context.native)
    if TechniqueType.DISTILLATION not in plan:
        return _trainer(trainer).fit(model, plan, context)
    of_teacher = {kind: plan[kind] for kind in _OF_ESTIMATORS if kind in plan} if trainer == ESTIMATORS else {}
    of_student = {kind: params for kind, params in plan.items() if kind not in of_teacher}
    if not of_teacher:
        return _trainer(_student_trainer(model, plan, context)).fit(model, plan, context)
    return _through_teacher(model, of_teacher, of_student, context)


_OF_ESTIMATORS = (TechniqueType.HYPERPARAMETER_TUNING, TechniqueType.ARCHITECTURE, TechniqueType.DATA_PREPARATION)


def _through_teacher(
    model: Path, of_teacher: TrainingPlan, of_student: TrainingPlan, context: Context
) -> Applied | Skipped:
    """Train an estimator, then a student of it, or of the delivered estimator when the trained one was skipped."""
    workdir = context.workdir / "teacher"
    workdir.mkdir()
    trained = _trainer(ESTIMATORS).fit(model, of_teacher, dataclasses.replace(context, workdir=workdir, report=None))
    if isinstance(trained, Skipped):
        teacher, words = model, f"as delivered ({trained.reason})"
    else:
        teacher, words = trained.model, trained.summary
    outcome = _trainer(_student_trainer(teacher, of_student, context)).fit(teacher, of_student, context)
    if isinstance(outcome, Skipped):
        return outcome
    return dataclasses.replace(outcome, summary=f"{outcome.summary}; teacher {words}")


def _student_trainer(teacher: Path, plan: TrainingPlan, context: Context) -> str:
    """Return the module that trains a student of this ONNX file; one of the owner's own is a network of torch."""
    if FACTORY in plan[TechniqueType.DISTILLATION]:
        return NETWORKS
    graph = onnx.load(teacher, load_external_data=False)
    by_tables = teaches_by_tables(graph, context.signature, native=context.native, task=context.task)
    return TABLE_STUDENTS if by_tables else NETWORKS


def _trainer(name: str) -> Trainer:
    return cast("Trainer", import_module(name))


def family(native: Native | None) -> str:
    """Return the module that trains a model, NETWORKS or ESTIMATORS, by the format in which it was delivered."""
    return TRAINERS[ModelFormat.ONNX if native is None else native.format]


_NO_MEANING = "nothing says what the outputs of a generic model mean, so nothing can be learned from them"


def _unlearned(subject: Subject) -> str | None:
    """Return why no network of this task or with these inputs is trained, or None."""
    if subject.task is Task.GENERIC:
        return _NO_MEANING
    if subject.signature.is_rows_first:
        return None
    return "networks are trained on inputs with their rows first, and states or settings of this model have them not"


def untaught(subject: Subject) -> str | None:
    """Return why no network can learn the answers of the model with this data in this image, or None."""
    if (reason := _unlearned(subject)) is not None:
        return reason
    if not subject.training:
        return "there are no rows to learn on: set data.training"
    return NO_TORCH if find_spec("torch") is None else _untaught_scores(subject)


def unchangeable(subject: Subject) -> str | None:
    """Return why the ONNX file cannot become a network that is changed and trained on, or None.

    It does not matter in which format the model was delivered.
    """
    reason = untaught(subject)
    if reason is not None:
        return reason
    from optimizer_jobs.nets.conversion.importer import not_importable

    return not_importable(subject.graph)


def _untaught_scores(subject: Subject) -> str | None:
    """Return why a classifier's scores cannot be taught: losses here take a score for each class, or for each label."""
    score = subject.signature.score_output
    if subject.task is Task.MULTI_LABEL and score is None:
        return "the model answers labels without scores, and training takes a score for each label"
    if subject.task is not Task.CLASSIFICATION or score is None or score.row_size > 1:
        return None
    return f"output {score.name} has one score for two classes, and training takes one for each"


def untrainable(subject: Subject) -> str | None:
    """Return why the model as delivered cannot be trained with this data in this image, or None."""
    if not subject.training:
        return "there are no labelled rows to train on: set data.training"
    if subject.task is Task.GENERIC:
        return _NO_MEANING
    if family(subject.native) == ESTIMATORS:
        return None
    if (reason := _unlearned(subject)) is not None:
        return reason
    if find_spec("torch") is None:
        return NO_TORCH
    if (reason := _untaught_scores(subject)) is not None:
        return reason
    if subject.native is not None and subject.native.format is ModelFormat.SAFETENSORS:
        return None
    from optimizer_jobs.nets.conversion.importer import not_importable

    return not_importable(subject.graph)
