"""`spec.monitoring`, `spec.refresh` and `spec.triggers`: how a live model is watched, and what a bad sign starts.

The defaults are those of a careful engineer: a verdict needs enough rows, a signal needs verdicts in a row, and a run
needs a signal that a run can mend.
"""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from retune.api.base import SET, ApiModel, Decimal, Duration, FileUri, if_decimal, if_duration, map_list, rules, text
from retune.api.objectives import Metric


class TriggerReason(StrEnum):
    """Why a run starts."""

    INITIAL = "Initial"
    SPEC_CHANGE = "SpecChange"
    MANUAL = "Manual"
    DRIFT = "Drift"
    QUALITY_DEGRADATION = "QualityDegradation"
    PERFORMANCE_DEGRADATION = "PerformanceDegradation"
    SCHEDULE = "Schedule"
    ARTIFACT_CHANGE = "ArtifactChange"


class Labels(ApiModel):
    """What turned out to be true, known later than the prediction."""

    uri: FileUri
    """Folder of Parquet files with the columns request_id, row (0 where left out) and the label."""
    column: str = Field(default="label", min_length=1, max_length=128)
    """Column with the label or the number that came true."""
    max_delay: Duration = "24h"
    """How long after a prediction its label may come; a window's quality is judged when this time is over."""


class Production(ApiModel):
    """What the live model was asked and what it answered."""

    uri: FileUri
    """Folder of captured requests: Parquet files below date=YYYY-MM-DD/hour=HH, as the documentation describes."""
    labels: Labels | None = None
    """Where late labels are found. Left out: quality is only estimated, from the model's own confidence."""
    retention: Duration = "720h"
    """How long captured files are kept; older ones are removed. Zero keeps them for ever."""


def _share(field: str) -> tuple[str, str]:
    value = f"self.{field}"
    rule = if_decimal(value, f"double({value}) > 0.0 && double({value}) <= 1.0")
    return rule, f"{field} lies above 0 and at most at 1"


class DriftMethod(StrEnum):
    """How a column's distribution is compared with the reference; each is Evidently's."""

    AUTO = "Auto"
    """Chosen by the column's type and its number of values."""
    KS = "KS"
    WASSERSTEIN = "Wasserstein"
    JENSEN_SHANNON = "JensenShannon"
    PSI = "PSI"
    CHI_SQUARE = "ChiSquare"


class Drift(ApiModel):
    """When a change of the inputs or of the predictions counts."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            _share("share"), _share("clearShare"), _share("falseDiscoveryRate"),
            (if_decimal("self.share", if_decimal("self.clearShare", "double(self.clearShare) <= double(self.share)")),
             "clearShare must not exceed share: between them a signal keeps its state"),
        )
    )  # fmt: skip

    method: DriftMethod = DriftMethod.AUTO
    """How a column is compared."""
    columns: tuple[Annotated[str, Field(min_length=1, max_length=128)], ...] | None = Field(
        default=None, min_length=1, max_length=256, json_schema_extra=SET
    )
    """Columns that count. Left out: all inputs and the prediction."""
    false_discovery_rate: Decimal = "0.01"
    """Expected share of false alarms among the columns called drifted in a window."""
    min_effect: Decimal = "0.1"
    """Smallest change that matters, as a share of the reference's spread; a proof of less is ignored."""
    share: Decimal = "0.2"
    """Share of drifted columns from which a window counts as drifted; a drifted prediction counts alone."""
    clear_share: Decimal = "0.1"
    """Share of drifted columns up to which a window counts as clear."""
    consecutive: int = Field(default=2, ge=1, le=24)
    """Drifted windows in a row that raise the signal."""


class Quality(ApiModel):
    """When a loss of quality counts."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            _share("maxDegradation"), _share("clearDegradation"),
            (if_decimal("self.maxDegradation", if_decimal(
                "self.clearDegradation", "double(self.clearDegradation) <= double(self.maxDegradation)")),
             "clearDegradation must not exceed maxDegradation: between them a signal keeps its state"),
            ("!has(self.metric) || self.metric in ['accuracy', 'mae', 'rmse']",
             "quality.metric is accuracy, mae or rmse"),
        )
    )  # fmt: skip

    metric: Metric | None = None
    """What is watched. Left out: accuracy of a classifier, rmse of a regression."""
    max_degradation: Decimal = "0.05"
    """Loss against the reference that counts, proven by its confidence interval: of accuracy in absolute terms, of an
    error as a share of the reference's."""
    clear_degradation: Decimal = "0.02"
    """Loss up to which a window counts as clear."""
    min_labels: int = Field(default=200, ge=20, le=1000000)
    """Labelled rows that a verdict needs."""
    consecutive: int = Field(default=2, ge=1, le=24)
    """Bad windows in a row that raise the signal."""
    estimate: Literal["Auto", "Never"] = "Auto"
    """Auto estimates the accuracy from the model's confidence while labels are not there; an estimate is marked as one
    and corroborates a signal, but raises none."""


class LiveKind(StrEnum):
    """What a live number says something about."""

    LATENCY = "Latency"
    ERROR_RATE = "ErrorRate"
    THROUGHPUT = "Throughput"
    QUALITY = "Quality"
    SATURATION = "Saturation"
    """CPU used as a share of the limit, or CPU throttling: a limit of capacity, never a reason to optimize."""

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger value is the better one."""
        return self in {LiveKind.THROUGHPUT, LiveKind.QUALITY}


class LiveSignal(ApiModel):
    """One number of the live model, asked once a window."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("has(self.limit) || has(self.maxDegradation) || self.kind in ['Throughput', 'Saturation']",
             "a live signal needs a limit, or maxDegradation against what was usual after the champion went live"),
            ("!has(self.maxDegradation) || " + if_decimal("self.maxDegradation", "double(self.maxDegradation) > 0.0"),
             "maxDegradation must be above 0"),
        )
    )  # fmt: skip

    name: text(  # type: ignore[valid-type]
        pattern=r"[a-z0-9]([-a-z0-9_]*[a-z0-9])?",
        max_length=40,
        message="a signal's name has lower-case letters, digits, '-' and '_'",
    )
    """Name of the signal. Where a latency has no query, p50, p75, p90, p95 or p99 in it says which; else it is p95."""
    kind: LiveKind
    """What it says something about."""
    query: str | None = Field(default=None, min_length=1, max_length=2048)
    """PromQL that answers one number, in seconds where kind is Latency and a share where it is ErrorRate or Saturation.
    {{namespace}}, {{target}}, {{model}} and {{window}} are filled in. Left out: read from the pods' own metrics."""
    limit: Decimal | None = None
    """Value that counts as bad: above it, or below it for Throughput and Quality."""
    max_degradation: Decimal | None = None
    """Change for the worse that counts as bad, as a share of what was usual after the champion went live."""
    clear_degradation: Decimal | None = None
    """Change up to which a window counts as clear; defaults to half of maxDegradation."""
    consecutive: int = Field(default=3, ge=1, le=24)
    """Bad windows in a row that raise the signal."""


class PodMetrics(ApiModel):
    """Where the target's pods tell their own numbers, in Prometheus' text format."""

    port: int = Field(default=8082, ge=1, le=65535)
    """Port of the metrics."""
    path: str = Field(default="/metrics", min_length=1, max_length=256, pattern=r"^/[A-Za-z0-9_./-]*$")
    """Path of the metrics."""
    latency: str = Field(default="rest_server_request_duration_seconds", min_length=1, max_length=200)
    """Histogram of the request durations in seconds."""
    requests: str = Field(default="rest_server_requests_total", min_length=1, max_length=200)
    """Counter of requests; a label named status_code, code or status tells errors (500 and above)."""
    path_suffix: str = Field(default="/infer", max_length=256, pattern=r"^[A-Za-z0-9_./{}:-]*$")
    """Where a label named path or handler tells what was asked, only paths with this end count, so that probes do not
    make the model look fast. Empty counts all of them."""


class Prometheus(ApiModel):
    """A Prometheus server to ask."""

    server: str = Field(min_length=1, max_length=253)
    """Name of a server that the operator's administrator allowed in its settings."""


DEFAULT_LIVE = (
    LiveSignal(name="p95-latency", kind=LiveKind.LATENCY, max_degradation="0.25"),
    LiveSignal(name="error-rate", kind=LiveKind.ERROR_RATE, limit="0.05"),
)


class Performance(ApiModel):
    """When a loss of speed, or errors, count."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("has(self.prometheus) || self.signals.all(s, !has(s.query))",
             "a signal with a query needs performance.prometheus"),
        )
    )  # fmt: skip

    pods: PodMetrics = PodMetrics()
    """The pods' own metrics, for signals without a query."""
    prometheus: Prometheus | None = None
    """The server that queries go to."""
    min_requests: int = Field(default=100, ge=1, le=1000000)
    """Requests in a window that a verdict needs."""
    signals: tuple[LiveSignal, ...] = Field(
        default=DEFAULT_LIVE, min_length=1, max_length=8, json_schema_extra=map_list("name")
    )
    """Numbers that are watched. Left out: p95 latency, 25 % above what was usual, and 5 % errors."""


class Monitoring(ApiModel):
    """How the live model is watched, in windows of time that do not overlap."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("has(self.production) || (!has(self.drift) && !has(self.quality))",
             "monitoring.drift and monitoring.quality need monitoring.production: the captured requests"),
            (if_duration("self.window", "duration(self.window) >= duration('30s') && duration(self.window) <= duration('168h')"),
             "monitoring.window must lie between 30s and 168h"),
            (if_duration("self.delay", "duration(self.delay) <= duration('24h')"), "monitoring.delay must not exceed 24h"),
            ("self.minSamples <= self.maxSamples", "monitoring.minSamples must not exceed monitoring.maxSamples"),
        )
    )  # fmt: skip

    production: Production | None = None
    """Captured requests of the live model."""
    window: Duration = "1h"
    """Length of a window; windows begin at multiples of it since 1970, in UTC."""
    delay: Duration = "1m"
    """How long after a window's end captured rows of it may still be written. Checks start up to a tenth of a window
    later, 5 minutes at most, each resource's in its own moment."""
    min_samples: int = Field(default=500, ge=50, le=1000000)
    """Rows that a verdict on drift needs; columns of many values need more."""
    max_samples: int = Field(default=20000, ge=100, le=1000000)
    """Rows of a window that are looked at; of more, a random sample."""
    drift: Drift | None = None
    """When a change of inputs or predictions counts. Left out, with production given: its defaults."""
    quality: Quality | None = None
    """When a loss of quality counts. Left out, with production given: its defaults."""
    performance: Performance | None = None
    """When a loss of speed counts. Left out: speed is not watched."""

    @property
    def drifting(self) -> Drift | None:
        """What counts as drift; None where nothing is captured."""
        return (self.drift or Drift()) if self.production else None

    @property
    def judging(self) -> Quality | None:
        """What counts as a loss of quality; None where nothing is captured."""
        return (self.quality or Quality()) if self.production else None


class Refresh(ApiModel):
    """Which data a run that a signal, a schedule or a person starts learns from and is judged by."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (if_decimal("self.recentShare", "double(self.recentShare) > 0.0 && double(self.recentShare) < 1.0"),
             "refresh.recentShare lies between 0 and 1"),
            ("self.minRows <= self.maxRows", "refresh.minRows must not exceed refresh.maxRows"),
        )
    )  # fmt: skip

    policy: Literal["Mixed", "RecentOnly", "Never"] = "Mixed"
    """Mixed trains on labelled production rows and the original training data; RecentOnly on the former alone; Never
    on spec.data as it is. Validation and test are always the newest labelled rows, in the order of time, unless Never."""
    span: Duration = "168h"
    """How far back production rows are taken; less far while drift or a loss of quality is raised: since it began."""
    recent_share: Decimal = "0.5"
    """Share of production rows in a mixed training set."""
    min_rows: int = Field(default=1000, ge=100, le=10000000)
    """Labelled production rows that are needed; with fewer, the run uses spec.data and says so."""
    max_rows: int = Field(default=100000, ge=100, le=10000000)
    """Most rows of a training set."""


class Triggers(ApiModel):
    """What may start a run, and how often."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("('Schedule' in self.signals) == has(self.schedule)",
             "signal Schedule and triggers.schedule belong together: give both or neither"),
            (if_duration("self.cooldown", if_duration("self.maxCooldown", "duration(self.maxCooldown) >= duration(self.cooldown)")),
             "triggers.maxCooldown must be at least triggers.cooldown"),
        )
    )  # fmt: skip

    signals: tuple[
        Literal["Drift", "QualityDegradation", "PerformanceDegradation", "Schedule", "ArtifactChange"], ...
    ] = Field(
        default=("Drift", "QualityDegradation", "PerformanceDegradation", "ArtifactChange"),
        max_length=5, json_schema_extra=SET,
    )  # fmt: skip
    """Signals that may start a run; a change of the spec and manualNonce always may."""
    corroboration: Literal["None", "DriftNeedsSecondSignal"] = "DriftNeedsSecondSignal"
    """DriftNeedsSecondSignal lets drift start a run only beside a loss of quality or speed, measured or estimated, or
    where there is no way to see one; drift alone is reported."""
    schedule: str | None = Field(default=None, min_length=9, max_length=128)
    """Cron expression of five fields, for signal Schedule."""
    time_zone: str = Field(default="Etc/UTC", min_length=1, max_length=64)
    """Time zone of the schedule."""
    cooldown: Duration = "6h"
    """Time after a run before a signal may start another; doubles with every run without gain."""
    max_cooldown: Duration = "168h"
    """Longest that it becomes."""
    max_runs_per_day: int = Field(default=4, ge=1, le=24)
    """Runs that signals may start in 24 hours."""
