"""Technique Augmentation: train on changed copies of the rows. The strength of each kind of change is searched.

Only kinds and strengths are chosen here; `nets.learning.augment` changes the rows. Estimators of scikit-learn have no
training loop in which rows could be changed.
"""

from optuna.trial import BaseTrial

from optimizer_jobs.machinery.training.fit import NETWORKS, family, untrainable
from optimizer_jobs.machinery.training.parameters import trial_params
from optimizer_jobs.nets.learning.words import augmented
from optimizer_jobs.technique import Params, Subject
from retune.api.model import Task
from retune.api.techniques import AugmentationKind, TechniqueType
from retune.api.techniques import Technique as TechniqueSpec

TYPE = TechniqueType.AUGMENTATION
CHEAP = False
TRAINS = True

OFF, ON = "Off", "On"
USUAL = 0.3
"""Strength to try first, from 0 to 1."""
_POSITIONAL = (AugmentationKind.SHIFT, AugmentationKind.ERASE)
"""Kinds that need inputs with positions: images (N, C, H, W) or sequences (N, L, F)."""


def unavailable(subject: Subject, spec: TechniqueSpec) -> str | None:
    """Return why this model cannot be trained on changed rows, or None."""
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


def suggest(trial: BaseTrial, spec: TechniqueSpec, subject: Subject) -> Params | None:
    """Choose which changes are made, and the strength of each from 0 to 1."""
    mode = trial.suggest_categorical(f"{spec.name}.mode", (OFF, ON))
    strengths = {
        str(kind): trial.suggest_float(f"{spec.name}.{kind.lower()}", 0.0, 1.0, step=0.1)
        for kind in _kinds(spec, subject)
    }
    chosen: Params = {kind: strength for kind, strength in strengths.items() if strength > 0}
    return chosen if mode == ON and chosen else None


def defaults(spec: TechniqueSpec, subject: Subject) -> tuple[Params, ...]:
    """Return one variant: the first kind of change alone."""
    first = _kinds(spec, subject)[0]
    return (off(spec, subject) | trial_params(spec.name, {"mode": ON, first.lower(): USUAL}),)


def off(spec: TechniqueSpec, subject: Subject) -> Params:
    """Return no changes."""
    return trial_params(spec.name, {"mode": OFF}, {kind.lower(): 0.0 for kind in _kinds(spec, subject)})


def describe(params: Params) -> str:
    """Return the changes, such as `noise 0.3, mixup 0.2`."""
    return augmented(params)


def _kinds(spec: TechniqueSpec, subject: Subject) -> tuple[AugmentationKind, ...]:
    """Return the kinds that the user allows and the shapes of the inputs permit."""
    allowed = (spec.augmentation.kinds if spec.augmentation else None) or tuple(AugmentationKind)
    positional = any(len(tensor.shape) > 2 for tensor in subject.signature.inputs if tensor.is_float)
    return tuple(kind for kind in AugmentationKind if kind in allowed and (positional or kind not in _POSITIONAL))
