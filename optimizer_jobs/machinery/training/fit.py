"""Train a model as all training techniques of one plan together say, with the trainer of the model's family.

Nothing is trained here; this only picks, and says why a model cannot be trained. A trainer gives the same file for the
same arguments.
"""

import dataclasses
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, cast

from optimizer_jobs.models.native import Native
from optimizer_jobs.technique import Applied, Context, Skipped, Subject, TrainingPlan
from retune.api.model import ModelFormat
from retune.api.techniques import TechniqueType

NETWORKS, ESTIMATORS = "optimizer_jobs.machinery.training.networks", "optimizer_jobs.machinery.training.estimators"

TRAINERS: Mapping[ModelFormat, str] = {
    ModelFormat.ONNX: NETWORKS,
    ModelFormat.SAFETENSORS: NETWORKS,
    ModelFormat.TORCHSCRIPT: NETWORKS,
    ModelFormat.TORCH_EXPORT: NETWORKS,
    ModelFormat.SKOPS: ESTIMATORS,
    ModelFormat.JOBLIB: ESTIMATORS,
    ModelFormat.PICKLE: ESTIMATORS,
}
"""Format of delivery to the module that trains such models; imported when first used."""


class Trainer(Protocol):
    """A module that trains one family of models."""

    def fit(self, model: Path, plan: TrainingPlan, context: Context) -> Applied | Skipped:
        """Write the trained model as ONNX into the context's workdir; `model` is the ONNX file to start from."""
        ...


def fit(model: Path, plan: TrainingPlan, context: Context) -> Applied | Skipped:
    """Train as the plan says. A distilled student is always a network, whatever its teacher is.

    What the plan says of an estimator (its preparation, parameters and size) is done to the teacher first, since the
    student has none of it: it learns from the teacher that comes out.
    """
    trained = family(context.native)
    if TechniqueType.DISTILLATION not in plan:
        return _trainer(trained).fit(model, plan, context)
    of_teacher = {kind: plan[kind] for kind in _OF_ESTIMATORS if kind in plan} if trained == ESTIMATORS else {}
    of_student = {kind: params for kind, params in plan.items() if kind not in of_teacher}
    if not of_teacher:
        return _trainer(NETWORKS).fit(model, plan, context)
    return _through_teacher(model, of_teacher, of_student, context)


_OF_ESTIMATORS = (TechniqueType.HYPERPARAMETER_TUNING, TechniqueType.ARCHITECTURE, TechniqueType.DATA_PREPARATION)


def _through_teacher(
    model: Path, of_teacher: TrainingPlan, of_student: TrainingPlan, context: Context
) -> Applied | Skipped:
    """Train an estimator, then a student that learns from it; from the one delivered where that came to nothing."""
    workdir = context.workdir / "teacher"
    workdir.mkdir()
    taught = _trainer(ESTIMATORS).fit(model, of_teacher, dataclasses.replace(context, workdir=workdir, report=None))
    teacher, words = (
        (model, f"as delivered ({taught.reason})") if isinstance(taught, Skipped) else (taught.model, taught.summary)
    )
    outcome = _trainer(NETWORKS).fit(teacher, of_student, context)
    if isinstance(outcome, Skipped):
        return outcome
    return dataclasses.replace(outcome, summary=f"{outcome.summary}; teacher {words}")


def _trainer(name: str) -> Trainer:
    return cast("Trainer", import_module(name))


def family(native: Native | None) -> str:
    """Return what trains a model, NETWORKS or ESTIMATORS, by the form in which it was delivered."""
    return TRAINERS[ModelFormat.ONNX if native is None else native.format]


def untaught(subject: Subject) -> str | None:
    """Return why no network can learn the model's answers with this data in this image, or None."""
    if not subject.training:
        return "there are no rows to learn on: set data.training"
    return "this image has no torch, which trains networks" if find_spec("torch") is None else None


def unchangeable(subject: Subject) -> str | None:
    """Return why the ONNX file cannot be taken apart, changed and trained on, whatever it was made from, or None."""
    reason = untaught(subject)
    if reason is not None:
        return reason
    from optimizer_jobs.nets.conversion.importer import not_importable

    return not_importable(subject.graph)


def untrainable(subject: Subject) -> str | None:
    """Return why the model as delivered cannot be trained with this data in this image, or None."""
    if not subject.training:
        return "there are no labelled rows to train on: set data.training"
    if family(subject.native) == ESTIMATORS:
        return None
    if find_spec("torch") is None:
        return "this image has no torch, which trains networks"
    if subject.native is not None and subject.native.format is ModelFormat.SAFETENSORS:
        return None
    from optimizer_jobs.nets.conversion.importer import not_importable

    return not_importable(subject.graph)
