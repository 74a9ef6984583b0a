"""All techniques by type, in the order in which a plan applies them, and the recipe for a user who lists none.

A new technique is a module and a line here. The order matters: techniques that train come before those that rewrite a
file, quantization works on a graph that is already pruned and cleaned, and what comes out in the end is recalibrated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optimizer_jobs.errors import JobError
from optimizer_jobs.technique import Subject, Technique
from optimizer_jobs.techniques import (
    adversarial_training,
    architecture,
    augmentation,
    custom_training,
    data_preparation,
    distillation,
    factorization,
    graph_optimization,
    hyperparameter_tuning,
    pruning,
    quantization,
    recalibration,
)
from optimizer_jobs.techniques.containment import BrokenTechniqueError, contained
from retune.api.metrics import RANKING, Metric, MetricKind
from retune.api.objectives import Objective, Role
from retune.api.techniques import Technique as TechniqueSpec
from retune.api.techniques import TechniqueType
from retune.contract.results import Reason

TECHNIQUES: Mapping[TechniqueType, Technique] = {
    TechniqueType.CUSTOM_TRAINING: custom_training,
    TechniqueType.HYPERPARAMETER_TUNING: hyperparameter_tuning,
    TechniqueType.ARCHITECTURE: architecture,
    TechniqueType.DATA_PREPARATION: data_preparation,
    TechniqueType.AUGMENTATION: augmentation,
    TechniqueType.ADVERSARIAL_TRAINING: adversarial_training,
    TechniqueType.DISTILLATION: distillation,
    TechniqueType.FACTORIZATION: factorization,
    TechniqueType.PRUNING: pruning,
    TechniqueType.GRAPH_OPTIMIZATION: graph_optimization,
    TechniqueType.QUANTIZATION: quantization,
    TechniqueType.RECALIBRATION: recalibration,
}

_NAMES = {
    TechniqueType.CUSTOM_TRAINING: "train",
    TechniqueType.HYPERPARAMETER_TUNING: "tune",
    TechniqueType.ARCHITECTURE: "shape",
    TechniqueType.DATA_PREPARATION: "prepare",
    TechniqueType.AUGMENTATION: "augment",
    TechniqueType.ADVERSARIAL_TRAINING: "harden",
    TechniqueType.DISTILLATION: "distil",
    TechniqueType.FACTORIZATION: "factorize",
    TechniqueType.PRUNING: "prune",
    TechniqueType.GRAPH_OPTIMIZATION: "graph",
    TechniqueType.QUANTIZATION: "quantize",
    TechniqueType.RECALIBRATION: "recalibrate",
}


_OF_ORDER = frozenset({*RANKING, Metric.ROC_AUC, Metric.AVERAGE_PRECISION, Metric.FIDELITY, Metric.ROBUST_ACCURACY})
"""Metrics of quality that corrected probabilities do not raise: the order of rows stays, and likeness is lost."""


@dataclass(frozen=True)
class Recipe:
    """The techniques of a run, and why the others are left out."""

    techniques: tuple[TechniqueSpec, ...]
    left_out: dict[str, str]
    """Why a technique is not used, by its name."""


_SERVES = {TechniqueType.ADVERSARIAL_TRAINING: Metric.ROBUST_ACCURACY}
"""Techniques that trade what every owner has for one metric, which an objective must ask for."""


def recipe(subject: Subject, objectives: Sequence[Objective]) -> Recipe:
    """Choose every technique that this model and this data allow, and that costs nothing for what nobody asked for."""
    specs = [TechniqueSpec(name=_NAMES[kind], type=kind) for kind in TECHNIQUES]
    reasons = {spec.name: unavailable(subject, spec) or _unasked(spec.type, objectives) for spec in specs}
    return Recipe(
        techniques=tuple(spec for spec in specs if reasons[spec.name] is None),
        left_out={name: reason for name, reason in reasons.items() if reason is not None},
    )


def _unasked(kind: TechniqueType, objectives: Sequence[Objective]) -> str | None:
    if kind is TechniqueType.RECALIBRATION:
        return None if any(map(_is_raised, objectives)) else "no objective optimizes a metric that it can raise"
    metric = _SERVES.get(kind)
    if metric is None or any(objective.metric is metric for objective in objectives):
        return None
    return f"it costs accuracy for {metric}, which no objective asks for"


def _is_raised(objective: Objective) -> bool:
    """Return whether an objective asks for more of a quality that corrected probabilities can raise."""
    is_quality = objective.metric.kind is MetricKind.QUALITY
    return objective.role is Role.OPTIMIZE and is_quality and objective.metric not in _OF_ORDER


def asked_for(subject: Subject, specs: Sequence[TechniqueSpec]) -> Recipe:
    """Return the techniques that the user listed, in the order of application; one that breaks is left out.

    Raises:
        JobError: TechniqueUnavailable, when one of them cannot be used.
    """
    left_out: dict[str, str] = {}
    for spec in specs:
        try:
            reason = _unavailable(subject, spec)
        except BrokenTechniqueError as broken:
            left_out[spec.name] = str(broken)
            continue
        if reason is not None:
            raise JobError(
                reason=Reason.TECHNIQUE_UNAVAILABLE,
                object=f"technique {spec.name}",
                message=f"{reason}.",
                next_step="Remove it from spec.techniques, or leave spec.techniques out to have them chosen.",
            )
    order = list(TECHNIQUES)
    usable = [spec for spec in specs if spec.name not in left_out]
    return Recipe(techniques=tuple(sorted(usable, key=lambda spec: order.index(spec.type))), left_out=left_out)


def unavailable(subject: Subject, spec: TechniqueSpec) -> str | None:
    """Return why a technique cannot be used for this model and data, in words, or None; one that breaks cannot."""
    try:
        return _unavailable(subject, spec)
    except BrokenTechniqueError as broken:
        return str(broken)


def _unavailable(subject: Subject, spec: TechniqueSpec) -> str | None:
    if spec.type not in TECHNIQUES:
        return f"this image does not have technique {spec.type}"
    with contained(spec.name):
        return TECHNIQUES[spec.type].unavailable(subject, spec)
