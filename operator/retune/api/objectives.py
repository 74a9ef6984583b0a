"""`spec.objectives` and `spec.selection`: what is measured, what counts as better, and what is worth a change."""

from enum import StrEnum

from pydantic import ConfigDict

from retune.api.base import ApiModel, Decimal, cel_list, if_decimal, rules
from retune.api.model import Task


class Role(StrEnum):
    """A constraint refuses candidates; an optimized objective ranks those that remain."""

    OPTIMIZE = "Optimize"
    CONSTRAIN = "Constrain"


class MetricKind(StrEnum):
    """What a metric says something about."""

    QUALITY = "Quality"
    LATENCY = "Latency"
    RESOURCE = "Resource"


class Metric(StrEnum):
    """What a model is measured by."""

    ACCURACY = "accuracy"
    """Share of rows classified right."""
    ROBUST_ACCURACY = "robust_accuracy"
    """Share of rows classified right under the attack of technique AdversarialTraining's settings."""
    MAE = "mae"
    """Mean absolute error of a regression."""
    RMSE = "rmse"
    """Root of the mean squared error of a regression."""
    COSINE = "cosine"
    """Mean cosine between an embedding and that of the model as delivered."""
    NEIGHBOR_AGREEMENT = "neighbor_agreement"
    """Share of rows whose nearest neighbour is the one that the model as delivered finds."""
    LATENCY_P50_MS = "latency_p50_ms"
    LATENCY_P95_MS = "latency_p95_ms"
    THROUGHPUT_RPS = "throughput_rps"
    """Rows a second that one process answers with its threads busy."""
    SIZE_BYTES = "size_bytes"
    PEAK_MEMORY_BYTES = "peak_memory_bytes"
    """Most memory of a process that opens the model and answers requests, above an empty process with the engine."""
    CPU_SECONDS_PER_1000 = "cpu_seconds_per_1000"
    ENERGY_JOULES_PER_1000 = "energy_joules_per_1000"
    """Estimated: CPU seconds times serving.wattsPerCpu."""
    COST_PER_1000 = "cost_per_1000"
    """CPU seconds times serving.pricePerCpuHour."""

    @property
    def kind(self) -> MetricKind:
        """What it says something about."""
        if self in _QUALITY_OF:
            return MetricKind.QUALITY
        return MetricKind.LATENCY if self in _LATENCIES else MetricKind.RESOURCE

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger value is the better one."""
        return self in _HIGHER

    @property
    def is_share(self) -> bool:
        """Whether it lies between 0 and 1."""
        return self in _SHARES

    def fits(self, task: Task) -> bool:
        """Return whether a model of this task has the metric."""
        return _QUALITY_OF.get(self, task) is task


_QUALITY_OF = {
    Metric.ACCURACY: Task.CLASSIFICATION,
    Metric.ROBUST_ACCURACY: Task.CLASSIFICATION,
    Metric.MAE: Task.REGRESSION,
    Metric.RMSE: Task.REGRESSION,
    Metric.COSINE: Task.EMBEDDING,
    Metric.NEIGHBOR_AGREEMENT: Task.EMBEDDING,
}
_SHARES = (Metric.ACCURACY, Metric.ROBUST_ACCURACY, Metric.COSINE, Metric.NEIGHBOR_AGREEMENT)
_LATENCIES = frozenset({Metric.LATENCY_P50_MS, Metric.LATENCY_P95_MS})
_HIGHER = frozenset({*_SHARES, Metric.THROUGHPUT_RPS})


def quality_metrics(task: Task) -> tuple[Metric, ...]:
    """Return the quality metrics of a task."""
    return tuple(metric for metric, its_task in _QUALITY_OF.items() if its_task is task)


class GoalType(StrEnum):
    """How a goal's value is read: absolute, or relative to the champion."""

    THRESHOLD = "Threshold"
    MIN_IMPROVEMENT = "MinImprovement"
    PERCENT_MIN_IMPROVEMENT = "PercentMinImprovement"
    MAX_DEGRADATION = "MaxDegradation"
    PERCENT_MAX_DEGRADATION = "PercentMaxDegradation"


def _fraction(field: str, *, least: str = "0.0") -> str:
    """Return the CEL rule that a decimal field is at least `least` and below 1."""
    return if_decimal(f"self.{field}", f"double(self.{field}) >= {least} && double(self.{field}) < 1.0")


class Goal(ApiModel):
    """A limit that a candidate must keep, by the pessimistic end of its interval."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (if_decimal("self.value", "double(self.value) >= 0.0"), "goal.value must not be negative"),
            (
                "!self.type.startsWith('Percent') || " + if_decimal("self.value", "double(self.value) <= 100.0"),
                "goal.value is a percentage for this goal type and must not exceed 100",
            ),
        )
    )

    type: GoalType
    """Threshold is absolute. The others compare with the champion: MinImprovement and MaxDegradation in the metric's
    unit, those that begin with Percent in percent of the champion's value."""
    value: Decimal
    """The limit, a decimal in quotes, such as "0.01"."""


class Objective(ApiModel):
    """One thing that matters about a model."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "self.role != 'Constrain' || has(self.goal)",
                "an objective with role Constrain needs a goal: the limit that candidates must keep",
            ),
            (
                _fraction("tolerance"),
                'tolerance is a fraction of at least 0 and below 1: write 5 % as "0.05"',
            ),
            (
                "!has(self.minGain) || " + _fraction("minGain"),
                'minGain is a fraction of at least 0 and below 1: write 5 % as "0.05"',
            ),
            ("!has(self.minGain) || self.role == 'Optimize'", "minGain belongs to an objective with role Optimize"),
            (
                f"!has(self.goal) || !(self.metric in {cel_list(_SHARES)}) || self.goal.type.startsWith('Percent') || "
                + if_decimal("self.goal.value", "double(self.goal.value) <= 1.0"),
                'this metric lies between 0 and 1: write a margin of one point as "0.01"',
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
    tolerance: Decimal = "0"
    """Relative difference within which two candidates count as equal and the next objective decides."""
    min_gain: Decimal | None = None
    """Relative gain on this objective from which on the champion is replaced; defaults to selection.minGain."""


def default_objectives(task: Task) -> tuple[Objective, ...]:
    """Return what better means where the spec does not say: a limit on quality, then p95 latency, then size."""
    return (_MARGINS[task], *_RANKING)


def _margin(metric: Metric, type_: GoalType, value: str) -> Objective:
    return Objective(metric=metric, role=Role.CONSTRAIN, goal=Goal(type=type_, value=value))


_MARGINS = {
    Task.CLASSIFICATION: _margin(Metric.ACCURACY, GoalType.MAX_DEGRADATION, "0.01"),
    Task.REGRESSION: _margin(Metric.RMSE, GoalType.PERCENT_MAX_DEGRADATION, "1"),
    Task.EMBEDDING: _margin(Metric.NEIGHBOR_AGREEMENT, GoalType.THRESHOLD, "0.95"),
}
_RANKING = (
    Objective(metric=Metric.LATENCY_P95_MS, tolerance="0.05"),
    Objective(metric=Metric.SIZE_BYTES, tolerance="0.05"),
)


class Selection(ApiModel):
    """How the winner is chosen among candidates that keep every constraint."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                _fraction("minGain"),
                'selection.minGain is a fraction of at least 0 and below 1: write 5 % as "0.05"',
            ),
            (
                _fraction("confidence", least="0.5"),
                'selection.confidence is a fraction of at least 0.5 and below 1: write 95 % as "0.95"',
            ),
        )
    )

    min_gain: Decimal = "0.05"
    """Relative gain on an objective with role Optimize from which on the champion is replaced."""
    confidence: Decimal = "0.95"
    """Confidence of the judge's intervals; those of quality are stricter where it judges several finalists."""
