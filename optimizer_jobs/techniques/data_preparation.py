"""Technique DataPreparation: preprocessing and feature engineering before an estimator, trained and shipped with it.

Every step becomes part of the ONNX file, so that requests are prepared in serving exactly as rows were in training. A
network does this in its own layers and is left alone.
"""

from typing import cast

from optuna.trial import BaseTrial

from optimizer_jobs.machinery.estimators import preparing
from optimizer_jobs.machinery.estimators.preparing import CHOICES, DELIVERED
from optimizer_jobs.machinery.training.fit import ESTIMATORS, family, untrainable
from optimizer_jobs.machinery.training.parameters import trial_params
from optimizer_jobs.machinery.training.tabular import reads_words
from optimizer_jobs.signature import TEXT
from optimizer_jobs.technique import Params, ParamValue, Subject
from retune.api.techniques import Preparation, PreparationKind, TechniqueType
from retune.api.techniques import Technique as TechniqueSpec

TYPE = TechniqueType.DATA_PREPARATION
CHEAP = False
TRAINS = True

OFF, ON = "Off", "On"
_MATRIX_ONLY = {PreparationKind.IMPUTATION, PreparationKind.ENCODING}
"""Kinds that need a matrix of numbers as input. A pipeline that takes named columns has steps of its own for each."""
_USUAL: dict[PreparationKind, ParamValue] = {
    PreparationKind.IMPUTATION: "Median",
    PreparationKind.ENCODING: "OneHot",
    PreparationKind.BINNING: 8,
    PreparationKind.INTERACTIONS: "Products",
    PreparationKind.SCALING: "Standard",
    PreparationKind.SELECTION: 0.5,
    PreparationKind.PCA: 0.95,
}


def unavailable(subject: Subject, spec: TechniqueSpec) -> str | None:
    """Return why no step can be put before this model, or None."""
    if family(subject.native) != ESTIMATORS:
        return "steps are put before scikit-learn estimators only; a network's first layers learn its scaling"
    reason = untrainable(subject)
    if reason is not None:
        return reason
    if not _kinds(spec, subject):
        return "the pipeline fills and encodes its named columns itself: choose other kinds in preparation.kinds"
    return preparing.OF_TEXTS if _reads_texts(subject) else None


def _reads_texts(subject: Subject) -> bool:
    """Return whether all that the model takes is texts of which it reads words."""
    return all(spec.dtype == TEXT for spec in subject.signature.inputs) and reads_words(subject.graph)


def suggest(trial: BaseTrial, spec: TechniqueSpec, subject: Subject) -> Params | None:
    """Choose a step of each kind, or to keep what was delivered."""
    mode = trial.suggest_categorical(f"{spec.name}.mode", (OFF, ON))
    chosen: Params = {
        str(kind): cast("ParamValue", trial.suggest_categorical(f"{spec.name}.{kind}", CHOICES[kind]))
        for kind in _kinds(spec, subject)
    }
    changed = {name: value for name, value in chosen.items() if value != DELIVERED}
    return changed if mode == ON and changed else None


def defaults(spec: TechniqueSpec, subject: Subject) -> tuple[Params, ...]:
    """Return each kind alone, in its usual form."""
    usual = off(spec, subject) | trial_params(spec.name, {"mode": ON})
    return tuple(usual | trial_params(spec.name, {str(kind): _USUAL[kind]}) for kind in _kinds(spec, subject))


def off(spec: TechniqueSpec, subject: Subject) -> Params:
    """Return the steps as delivered."""
    return trial_params(spec.name, {"mode": OFF}, {str(kind): DELIVERED for kind in _kinds(spec, subject)})


def describe(params: Params) -> str:
    """Return the steps, such as `scaling Standard, PCA 0.95`."""
    return preparing.words(params)


def _kinds(spec: TechniqueSpec, subject: Subject) -> tuple[PreparationKind, ...]:
    """Return the kinds that the user allows and the inputs of the model permit."""
    allowed, inputs = (spec.preparation or Preparation()).kinds, subject.signature.inputs
    by_columns = len(inputs) > 1 or any(spec.dtype == TEXT for spec in inputs)
    possible = set(CHOICES) - (_MATRIX_ONLY if by_columns else set())
    return tuple(kind for kind in CHOICES if kind in allowed and kind in possible)
