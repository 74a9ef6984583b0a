"""How expensive a plan is to build, so that a search tries cheap plans first.

Stage 0 runs the delivered model with other engine options, stage 1 rewrites its file, and stage 2 trains.
"""

from collections.abc import Sequence
from enum import IntEnum

from optimizer_jobs.machinery.compress.factorization import TABLES
from optimizer_jobs.machinery.compress.pruning import ROWS
from optimizer_jobs.techniques.registry import TECHNIQUES
from optimizer_jobs.techniques.steps import Step
from retune.api.techniques import QuantizationScheme, TechniqueType


class Stage(IntEnum):
    """The most expensive kind of work in a plan."""

    ENGINE = 0
    POST_TRAINING = 1
    TRAINING = 2


CHEAPEST_FIRST = (
    TechniqueType.RECALIBRATION,
    TechniqueType.GRAPH_OPTIMIZATION,
    TechniqueType.QUANTIZATION,
    TechniqueType.FACTORIZATION,
    TechniqueType.PRUNING,
    TechniqueType.HYPERPARAMETER_TUNING,
    TechniqueType.DATA_PREPARATION,
    TechniqueType.ARCHITECTURE,
    TechniqueType.AUGMENTATION,
    TechniqueType.DISTILLATION,
    TechniqueType.CUSTOM_TRAINING,
    TechniqueType.ADVERSARIAL_TRAINING,
)
"""Techniques in the order of what one use of them costs."""

_TRAIN_ON = {TechniqueType.CUSTOM_TRAINING, TechniqueType.FACTORIZATION, TechniqueType.PRUNING}


def trains(step: Step) -> bool:
    """Return whether a step trains, either as its purpose or to recover quality after its change."""
    if step.params.get("granularity") == ROWS or TABLES in step.params:
        return False
    aware = step.params.get("scheme") == QuantizationScheme.AWARE
    return TECHNIQUES[step.type].TRAINS or step.type in _TRAIN_ON or aware


def stage_of(steps: Sequence[Step]) -> Stage:
    """Return the stage of a plan with these steps."""
    if not steps:
        return Stage.ENGINE
    return Stage.TRAINING if any(trains(step) for step in steps) else Stage.POST_TRAINING


def cost_of(steps: Sequence[Step]) -> tuple[Stage, int, int]:
    """Return a sort key of a plan's cost: its stage, its number of steps, and the rank of its dearest technique."""
    dearest = max((CHEAPEST_FIRST.index(step.type) for step in steps), default=0)
    return stage_of(steps), len(steps), dearest
