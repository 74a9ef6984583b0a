"""`spec.objectives` and `spec.selection`: what is measured, what counts as better, and what is worth a change."""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict

from retune.api.base import ApiModel, Decimal, Rule, cel_list, if_decimal, rules
from retune.api.metrics import SHARES, Metric
from retune.api.model import Task


class Role(StrEnum):
    """A constraint refuses candidates; an optimized objective ranks those that remain."""

    OPTIMIZE = "Optimize"
    CONSTRAIN = "Constrain"


class GoalType(StrEnum):
    """How a goal's value is read: absolute, or relative to the champion."""

    THRESHOLD = "Threshold"
    MIN_IMPROVEMENT = "MinImprovement"
    PERCENT_MIN_IMPROVEMENT = "PercentMinImprovement"
    MAX_DEGRADATION = "MaxDegradation"
    PERCENT_MAX_DEGRADATION = "PercentMaxDegradation"


def _fraction(field: str) -> Rule:
    """Return the rule on a decimal that it is at least 0 and below 1."""
    text = f'{field} is a fraction of at least 0 and below 1: write 5 % as "0.05"'
    return Rule(if_decimal("self", "double(self) >= 0.0 && double(self) < 1.0"), text)


_IS_CONFIDENCE = Rule(
    if_decimal("self", "double(self) >= 0.5 && double(self) < 1.0"),
    'selection.confidence is a fraction of at least 0.5 and below 1: write 95 % as "0.95"',
)
_NO_DEBT = Rule(if_decimal("self", "double(self) >= 0.0"), "goal.value must not be negative")


class Goal(ApiModel):
    """A limit that a candidate must keep, by the pessimistic end of its interval."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!self.type.startsWith('Percent') || " + if_decimal("self.value", "double(self.value) <= 100.0"),
                "goal.value is a percentage for this goal type and must not exceed 100",
            ),
        )
    )

    type: GoalType
    """Threshold is absolute. The others compare with the champion: MinImprovement and MaxDegradation in the metric's
    unit, those that begin with Percent in percent of the champion's value."""
    value: Annotated[Decimal, _NO_DEBT]
    """The limit, a decimal in quotes, such as "0.01"."""


class Objective(ApiModel):
    """One thing that matters about a model."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "self.role != 'Constrain' || has(self.goal)",
                "an objective with role Constrain needs a goal: the limit that candidates must keep",
            ),
            ("!has(self.minGain) || self.role == 'Optimize'", "minGain belongs to an objective with role Optimize"),
            (
                f"!has(self.goal) || !(self.metric in {cel_list(SHARES)}) || self.goal.type.startsWith('Percent') || "
                + if_decimal("self.goal.value", "double(self.goal.value) <= 1.0"),
                'this metric is at most 1: write a margin of one point as "0.01"',
            ),
        )
    )

    metric: Metric
    """What is measured. Quality and throughput are maximized; errors, latencies, sizes and costs are minimized. A
    quality metric must fit model.task."""
    role: Role = Role.OPTIMIZE
    """Constrain refuses candidates that miss the goal. Optimize ranks those that are left: the first objective of the
    list decides, then the next."""
    goal: Goal | None = None
    """The limit to keep, with the bad end of the measured interval. Needed for role Constrain."""
    tolerance: Annotated[Decimal, _fraction("tolerance")] = "0"
    """Relative difference within which two candidates count as equal and the next objective decides."""
    min_gain: Annotated[Decimal, _fraction("minGain")] | None = None
    """Relative gain on this objective from which on the champion is replaced; defaults to selection.minGain."""


def default_objectives(task: Task) -> tuple[Objective, ...]:
    """Return what better means where the spec does not say: limits on quality, then p95 latency, then size.

    Jobs fit the limits of a classifier to its labels and probabilities, which a spec does not show.
    """
    return (*_MARGINS[task], *_RANKING)


def _margin(metric: Metric, type_: GoalType, value: str) -> Objective:
    return Objective(metric=metric, role=Role.CONSTRAIN, goal=Goal(type=type_, value=value))


_MARGINS = {
    Task.CLASSIFICATION: (
        _margin(Metric.ACCURACY, GoalType.MAX_DEGRADATION, "0.01"),
        _margin(Metric.D2_BRIER, GoalType.PERCENT_MAX_DEGRADATION, "5"),
    ),
    Task.REGRESSION: (_margin(Metric.RMSE, GoalType.PERCENT_MAX_DEGRADATION, "1"),),
    Task.EMBEDDING: (_margin(Metric.NEIGHBOR_AGREEMENT, GoalType.THRESHOLD, "0.95"),),
    Task.MULTI_LABEL: (
        _margin(Metric.F1_MICRO, GoalType.MAX_DEGRADATION, "0.01"),
        _margin(Metric.AVERAGE_PRECISION, GoalType.PERCENT_MAX_DEGRADATION, "5"),
        _margin(Metric.D2_BRIER, GoalType.PERCENT_MAX_DEGRADATION, "5"),
    ),
    Task.GENERIC: (_margin(Metric.FIDELITY, GoalType.THRESHOLD, "0.95"),),
}
_RANKING = (
    Objective(metric=Metric.LATENCY_P95_MS, tolerance="0.05"),
    Objective(metric=Metric.SIZE_BYTES, tolerance="0.05"),
)


class Selection(ApiModel):
    """How the winner is chosen among candidates that keep every constraint."""

    min_gain: Annotated[Decimal, _fraction("selection.minGain")] = "0.05"
    """Relative gain on an objective with role Optimize from which on the champion is replaced."""
    confidence: Annotated[Decimal, _IS_CONFIDENCE] = "0.95"
    """Confidence of the judge's intervals; those of quality are stricter where it judges several finalists."""
