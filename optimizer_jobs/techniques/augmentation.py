"""Technique Augmentation: train on changed copies of the rows, each kind of change with a strength that is searched.

Says how; `nets.learning.augment` does it. Estimators of scikit-learn have no training loop to do it in.
"""

from typing import TYPE_CHECKING

from optimizer_jobs.machinery.training.fit import NETWORKS, family, untrainable
from optimizer_jobs.machinery.training.parameters import told
from optimizer_jobs.nets.learning.words import augmented
from optimizer_jobs.technique import Params, Subject
from retune.api.model import Task
from retune.api.techniques import AugmentationKind, TechniqueType
from retune.api.techniques import Technique as TechniqueSpec

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

TYPE = TechniqueType.AUGMENTATION
CHEAP = False
TRAINS = True

OFF, ON = "Off", "On"
USUAL = 0.3
"""Strength to try first."""
_PLACED = (AugmentationKind.SHIFT, AugmentationKind.ERASE)
"""Kinds that need inputs with places: images (N, C, H, W) or sequences (N, L, F)."""


def unavailable(subject: Subject, spec: TechniqueSpec) -> str | None:
    """Return why this model cannot be trained on changed rows."""
    reason = untrainable(subject)
    if reason is not None:
        return reason
    if family(subject.native) != NETWORKS:
        return "scikit-learn fits an estimator to the rows as they are"
    if subject.task is Task.EMBEDDING:
        return "an embedding has no labels to be trained on"
    if not any(tensor.is_float for tensor in subject.signature.inputs):
        return "the model has no floating point input that could be changed a little"
    if not _kinds(spec, subject):
        return "Shift and Erase are for images and sequences, and the inputs are neither"
    return None


def suggest(trial: "BaseTrial", spec: TechniqueSpec, subject: Subject) -> Params | None:
    """Choose which changes are made and how strong each one is."""
    mode = trial.suggest_categorical(f"{spec.name}.mode", (OFF, ON))
    drawn = {
        str(kind): trial.suggest_float(f"{spec.name}.{kind.lower()}", 0.0, 1.0, step=0.1)
        for kind in _kinds(spec, subject)
    }
    chosen: Params = {kind: strength for kind, strength in drawn.items() if strength > 0}
    return chosen if mode == ON and chosen else None


def defaults(spec: TechniqueSpec, subject: Subject) -> tuple[Params, ...]:
    """Return one variant with the first kind alone."""
    first = _kinds(spec, subject)[0]
    return (off(spec, subject) | told(spec.name, {"mode": ON, first.lower(): USUAL}),)


def off(spec: TechniqueSpec, subject: Subject) -> Params:
    """Return rows as they are."""
    return told(spec.name, {"mode": OFF}, {kind.lower(): 0.0 for kind in _kinds(spec, subject)})


def describe(params: Params) -> str:
    """Return the changes, such as `noise 0.3, mixup 0.2`."""
    return augmented(params)


def _kinds(spec: TechniqueSpec, subject: Subject) -> tuple[AugmentationKind, ...]:
    """Return the kinds that the user names, or all, as far as they fit the inputs' shapes."""
    given = (spec.augmentation.kinds if spec.augmentation else None) or tuple(AugmentationKind)
    placed = any(len(tensor.shape) > 2 for tensor in subject.signature.inputs if tensor.is_float)
    return tuple(kind for kind in AugmentationKind if kind in given and (placed or kind not in _PLACED))
