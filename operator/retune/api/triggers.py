"""`spec.refresh` and `spec.triggers`: what may start a run, and what it learns from and is judged by then.

A run starts only for what another model can mend.
"""

from enum import StrEnum
from typing import Annotated, Literal, get_args

from pydantic import ConfigDict, Field

from retune.api.base import SET, ApiModel, Decimal, Duration, Rule, if_decimal, if_duration, rules


class TriggerReason(StrEnum):
    """Why a run starts."""

    INITIAL = "Initial"
    SPEC_CHANGE = "SpecChange"
    MANUAL = "Manual"
    DRIFT = "Drift"
    QUALITY_DEGRADATION = "QualityDegradation"
    SEGMENT_DEGRADATION = "SegmentDegradation"
    HEADROOM = "Headroom"
    PERFORMANCE_DEGRADATION = "PerformanceDegradation"
    SCHEDULE = "Schedule"
    ARTIFACT_CHANGE = "ArtifactChange"


SignalReason = Literal[
    "Drift",
    "QualityDegradation",
    "SegmentDegradation",
    "Headroom",
    "PerformanceDegradation",
    "Schedule",
    "ArtifactChange",
]
"""The reasons that start a run without a person."""
SIGNAL_REASONS: tuple[str, ...] = get_args(SignalReason)


_SOME_RECENT = Rule(
    if_decimal("self", "double(self) > 0.0 && double(self) < 1.0"), "refresh.recentShare lies between 0 and 1"
)


class Refresh(ApiModel):
    """Data of runs that a signal, the schedule or manualNonce starts: what they learn from and are judged by."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("self.minRows <= self.maxRows", "refresh.minRows must not exceed refresh.maxRows"),
        )
    )

    policy: Literal["Auto", "Mixed", "RecentOnly", "Weighted", "Never"] = "Auto"
    """RecentOnly trains on labelled production rows alone, Mixed on them and spec.data.training, Weighted on them and
    those rows of spec.data.training that resemble them. Auto takes the one from which a quick learner learns most about
    newer rows. With all of them, the newest labelled rows are the test, and blocks of time among the others validation.
    Never uses spec.data as it is."""
    span: Duration = "168h"
    """How far back production rows are taken. While drift or a loss of quality is raised, all rows since its first bad
    window are, and no others, unless they are fewer than minRows."""
    recent_share: Annotated[Decimal, _SOME_RECENT] = "0.5"
    """Share of production rows in a training set of policy Mixed."""
    min_rows: int = Field(default=1000, ge=100, le=10000000)
    """Labelled production rows that are needed. With fewer the run uses spec.data, and its record says so."""
    max_rows: int = Field(default=100000, ge=100, le=10000000)
    """Most rows of the training set."""


class Triggers(ApiModel):
    """What may start a run, and how often."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "('Schedule' in self.signals) == has(self.schedule)",
                "signal Schedule and triggers.schedule belong together: give both or neither",
            ),
            (
                if_duration(
                    "self.cooldown",
                    if_duration("self.maxCooldown", "duration(self.maxCooldown) >= duration(self.cooldown)"),
                ),
                "triggers.maxCooldown must be at least triggers.cooldown",
            ),
        )
    )

    signals: tuple[SignalReason, ...] = Field(
        default=("Drift", "QualityDegradation", "Headroom", "PerformanceDegradation", "ArtifactChange"),
        max_length=len(SIGNAL_REASONS),
        json_schema_extra=SET,
    )
    """Signals that may start a run. A change of the spec and manualNonce always may. SegmentDegradation is no default:
    the gate compares whole test sets, so it cannot promise that a winner mends the segment."""
    corroboration: Literal["None", "DriftNeedsSecondSignal"] = "DriftNeedsSecondSignal"
    """DriftNeedsSecondSignal lets drift start a run only beside a loss of quality, measured or estimated, or of speed,
    or where quality can be neither measured nor estimated; else drift is only reported. None lets drift alone start a
    run."""
    schedule: str | None = Field(default=None, min_length=9, max_length=128)
    """Cron expression of five fields, for signal Schedule."""
    time_zone: str = Field(default="Etc/UTC", min_length=1, max_length=64)
    """Time zone of the schedule, such as Europe/Berlin."""
    cooldown: Duration = "6h"
    """Time after a run before a signal may start another. It doubles with every run in a row that brings no gain, and
    is then at least a window of monitoring, up to maxCooldown."""
    max_cooldown: Duration = "168h"
    """Longest that the cooldown becomes."""
    max_runs_per_day: int = Field(default=4, ge=1, le=24)
    """Runs that signals may start in 24 hours."""
