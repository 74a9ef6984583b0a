"""`spec.monitoring`: how a live model is watched.

The defaults are those of a careful engineer: a verdict needs enough rows, and a signal needs bad verdicts in a row.
"""

import re
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from retune.api.base import (
    SET,
    ApiModel,
    Decimal,
    Duration,
    Rule,
    Text,
    between,
    cel_list,
    if_decimal,
    if_duration,
    map_list,
    rules,
)
from retune.api.metrics import WATCHED, Metric
from retune.api.production import Production


def _share(field: str) -> Rule:
    """Return the rule on a decimal that it is a share above zero."""
    rule = if_decimal("self", "double(self) > 0.0 && double(self) <= 1.0")
    return Rule(rule, f"{field} lies above 0 and at most at 1")


def _clear_below(clear: str, bad: str) -> tuple[str, str]:
    """Return the rule, with its sentence, that what counts as clear does not exceed what counts as bad."""
    in_order = if_decimal(f"self.{clear}", f"double(self.{clear}) <= double(self.{bad})")
    return if_decimal(f"self.{bad}", in_order), f"{clear} must not exceed {bad}: between them a signal keeps its state"


class DriftMethod(StrEnum):
    """How a column's values in a window are compared with those of the reference."""

    AUTO = "Auto"
    KS = "KS"
    WASSERSTEIN = "Wasserstein"
    JENSEN_SHANNON = "JensenShannon"
    PSI = "PSI"
    CHI_SQUARE = "ChiSquare"


class Drift(ApiModel):
    """When a change of the inputs or of the predictions counts."""

    model_config = ConfigDict(
        json_schema_extra=rules(_clear_below("clearShare", "share")),
    )

    method: DriftMethod = DriftMethod.AUTO
    """How the size of a change is measured. Auto, KS and Wasserstein take the Wasserstein distance for numbers and the
    Jensen-Shannon distance for categories; JensenShannon and ChiSquare take the latter for all columns; PSI takes the
    population stability index. A change must also be proven: of numbers by a Kolmogorov-Smirnov test (with ChiSquare by
    a chi-square test over ten bins), of categories by a chi-square test."""
    columns: tuple[Annotated[str, Field(min_length=1, max_length=128)], ...] | None = Field(
        default=None, min_length=1, max_length=256, json_schema_extra=SET
    )
    """Columns that count, each alike. Left out: all inputs and the prediction."""
    weigh: Literal["Auto", "Never"] = "Auto"
    """Auto counts each drifted input by the share of the answers that it carries, where that is known and `columns` is
    left out; Never counts all inputs alike."""
    false_discovery_rate: Annotated[Decimal, _share("falseDiscoveryRate")] = "0.01"
    """Expected share of false alarms among the columns called drifted in a window. The window itself is called drifted
    only by evidence that is 20 times as rare."""
    min_effect: Decimal = "0.1"
    """Smallest size of a change that matters, in the measure of `method`. The Wasserstein distance is a share of the
    reference's standard deviation."""
    share: Annotated[Decimal, _share("share")] = "0.2"
    """Share of the answers that drifted inputs carry, or where that is not known, share of drifted inputs, from which a
    window counts as drifted. A drifted prediction is enough alone."""
    clear_share: Annotated[Decimal, _share("clearShare")] = "0.1"
    """The same share up to which a window counts as clear."""
    consecutive: int = Field(default=2, ge=1, le=24)
    """Drifted windows in a row that raise the signal."""


_TOLD_BY_LABELS = Rule(
    f"self in {cel_list(WATCHED)}",
    "quality.metric is a quality metric that live labels tell, such as accuracy, average_precision or rmse",
)


class Quality(ApiModel):
    """When a loss of quality counts."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            _clear_below("clearDegradation", "maxDegradation"),
        )
    )

    metric: Annotated[Metric, _TOLD_BY_LABELS] | None = None
    """What is watched. Left out: the first quality metric of spec.objectives that live labels tell, else accuracy for
    task Classification, f1_micro for MultiLabel and rmse for Regression. Embedding and Generic have custom and
    custom_loss alone."""
    max_degradation: Annotated[Decimal, _share("maxDegradation")] = "0.05"
    """Loss against the reference that counts, if its confidence interval proves that there is a loss: the difference
    for a metric that is at most 1, else the change as a share of the reference's value."""
    clear_degradation: Annotated[Decimal, _share("clearDegradation")] = "0.02"
    """Loss up to which a window counts as clear."""
    min_labels: int = Field(default=200, ge=20, le=1000000)
    """Labelled rows that a verdict needs."""
    consecutive: int = Field(default=2, ge=1, le=24)
    """Bad windows in a row that raise the signal."""
    estimate: Literal["Auto", "Never"] = "Auto"
    """Auto estimates the accuracy from the model's confidence while there are no labels. An estimate is marked as one
    and may corroborate drift, but raises no signal."""


class Headroom(ApiModel):
    """When it counts that labelled rows teach more than the champion knows.

    Labelled rows of earlier windows teach a quick learner what the champion's answers are off by. What that takes off
    the error on a later window, a run may take off for good.
    """

    min_gain: Annotated[Decimal, _share("minGain")] = "0.02"
    """Share of the champion's error (of a classifier the Brier score, of a regression the squared error) that the
    correction takes off, from which a window counts, if its confidence interval proves that there is a gain."""
    windows: int = Field(default=8, ge=1, le=52)
    """Windows before, of the same champion, whose labelled rows teach the correction; the rows that the champion was
    proven on teach it too."""
    consecutive: int = Field(default=2, ge=1, le=24)
    """Windows in a row that are judged together, each corrected by what was known before it."""


SEGMENT_COLUMNS = 8
"""Most columns whose segments are judged."""


class Segments(ApiModel):
    """Which parts of the live rows are judged by themselves, and when a loss of quality in one counts."""

    columns: tuple[Annotated[str, Field(min_length=1, max_length=128)], ...] | None = Field(
        default=None, min_length=1, max_length=SEGMENT_COLUMNS, json_schema_extra=SET
    )
    """Columns of the captured inputs whose values divide the rows: each category is a segment, and numbers are cut at
    the reference's quartiles. Left out: see `choose`."""
    choose: Literal["Auto", "Never"] = "Auto"
    """Auto takes the three columns in whose segments the champion's quality differs most on the reference, where
    `columns` is left out; Never judges no segments then."""
    max_degradation: Annotated[Decimal, _share("maxDegradation")] = "0.1"
    """Loss of a segment against its own rows of the reference that counts, if it is proven: the difference for a metric
    that is at most 1, else the change as a share of the reference's value. Up to half of it a segment is clear."""
    min_labels: int = Field(default=30, ge=10, le=1000000)
    """Labelled rows of a segment that a verdict on it needs."""
    consecutive: int = Field(default=2, ge=1, le=24)
    """Bad windows in a row of one segment that raise the signal."""

    @property
    def wanted(self) -> bool:
        """Whether any segments are judged."""
        return self.columns is not None or self.choose == "Auto"


class LiveKind(StrEnum):
    """What a live number measures."""

    LATENCY = "Latency"
    ERROR_RATE = "ErrorRate"
    THROUGHPUT = "Throughput"
    QUALITY = "Quality"
    SATURATION = "Saturation"
    """CPU used as a share of the limit, or CPU throttling: too little capacity, which no run mends."""

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger value is the better one."""
        return self in {LiveKind.THROUGHPUT, LiveKind.QUALITY}


_SPREAD = if_duration("self.spread", if_duration("self.window", "duration(self.spread) <= duration(self.window)"))
_PERCENTILE = re.compile(r"(?:^|[-_])p(50|75|90|95|99)(?:[-_]|$)")
_DEFAULT_SHARE = 0.95


class LiveSignal(ApiModel):
    """One number of the live model, judged once a window."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.limit) || has(self.maxDegradation) || self.kind in ['Throughput', 'Saturation']",
                "a live signal needs a limit, or maxDegradation against what was usual after the champion went live",
            ),
        )
    )

    name: Annotated[
        str,
        Text(
            pattern=r"[a-z0-9]([-a-z0-9_]*[a-z0-9])?",
            max_length=40,
            message="a signal's name has lower-case letters, digits, '-' and '_'",
        ),
    ]
    """Name of the signal. For a latency without a query it may hold the percentile: p50, p75, p90, p95 or p99; else p95
    is read."""
    kind: LiveKind
    """What the number measures. A signal of kind Saturation is never raised: it only says whether CPU is short."""
    query: str | None = Field(default=None, min_length=1, max_length=2048)
    """PromQL that answers one number: in seconds for kind Latency, a share for ErrorRate and Saturation.
    {{namespace}}, {{target}}, {{model}} and {{window}} are filled in. Left out: read from the pods' own metrics."""
    limit: Decimal | None = None
    """Limit of the number: a window is bad above it, for Throughput and Quality below it."""
    max_degradation: (
        Annotated[Decimal, Rule(if_decimal("self", "double(self) > 0.0"), "maxDegradation must be above 0")] | None
    ) = None
    """Change for the worse that counts as bad, as a share of the usual value: the mean of the first windows after the
    champion went live."""
    clear_degradation: Decimal | None = None
    """Change up to which a window counts as clear; defaults to half of maxDegradation."""
    consecutive: int = Field(default=3, ge=1, le=24)
    """Bad windows in a row that raise the signal."""

    @property
    def percentile_share(self) -> float:
        """The share of requests whose longest duration a latency is: what the name says, else 0.95."""
        percentile = _PERCENTILE.search(self.name)
        return int(percentile[1]) / 100 if percentile else _DEFAULT_SHARE


class PodMetrics(ApiModel):
    """Where the target's pods serve their own metrics, in Prometheus' text format."""

    port: int = Field(default=8082, ge=1, le=65535)
    """Port of the metrics."""
    path: str = Field(default="/metrics", min_length=1, max_length=256, pattern=r"^/[A-Za-z0-9_./-]*$")
    """Path of the metrics."""
    latency: str = Field(default="rest_server_request_duration_seconds", min_length=1, max_length=200)
    """Name of the histogram of request durations, in seconds."""
    requests: str = Field(default="rest_server_requests_total", min_length=1, max_length=200)
    """Name of the counter of requests; where there is none, the histogram's count is taken. A label named status_code,
    code or status tells errors: 500 and above."""
    path_suffix: str = Field(default="/infer", max_length=256, pattern=r"^[A-Za-z0-9_./{}:-]*$")
    """Where a label named path or handler holds the path of the request, only paths with this end count, so that probes
    do not make the model look fast. Empty counts all of them."""


class Prometheus(ApiModel):
    """The Prometheus server that answers queries."""

    server: str = Field(min_length=1, max_length=253)
    """Name of a server that the operator's settings allow, not its address."""


DEFAULT_LIVE = (
    LiveSignal(name="p95-latency", kind=LiveKind.LATENCY, max_degradation="0.25"),
    LiveSignal(name="error-rate", kind=LiveKind.ERROR_RATE, limit="0.05"),
)


class Performance(ApiModel):
    """The live numbers that are watched, and where they come from."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.prometheus) || self.signals.all(s, !has(s.query))",
                "a signal with a query needs performance.prometheus",
            ),
        )
    )

    pods: PodMetrics = PodMetrics()
    """The pods' own metrics, for signals without a query."""
    prometheus: Prometheus | None = None
    """The server that queries go to."""
    min_requests: int = Field(default=100, ge=1, le=1000000)
    """Requests in a window that a verdict needs."""
    signals: tuple[LiveSignal, ...] = Field(
        default=DEFAULT_LIVE, min_length=1, max_length=8, json_schema_extra=map_list("name")
    )
    """Numbers that are watched. Left out: p95 latency, bad from 25 % above the usual value on, and the share of
    requests that fail, bad above 5 %."""


ServiceName = Annotated[
    str,
    Text(
        pattern=r"[a-z]([-a-z0-9]*[a-z0-9])?",
        max_length=63,
        message="the name of a Service has lower-case letters, digits and '-', and begins with a letter",
    ),
]


class Monitoring(ApiModel):
    """How the live model is watched, in windows of time that do not overlap."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "has(self.production) || (!has(self.drift) && !has(self.quality) && !has(self.segments))",
                "monitoring.drift, quality and segments need monitoring.production: the captured requests",
            ),
            (
                "!has(self.headroom) || (has(self.production) && has(self.production.labels))",
                "monitoring.headroom needs monitoring.production.labels: it is learned from labelled requests",
            ),
            ("self.minSamples <= self.maxSamples", "monitoring.minSamples must not exceed monitoring.maxSamples"),
            (f"!has(self.spread) || ({_SPREAD})", "monitoring.spread must not exceed monitoring.window"),
        )
    )

    production: Production | None = None
    """Captured requests of the live model."""
    window: Annotated[Duration, Rule(between("30s", "168h"), "monitoring.window must lie between 30s and 168h")] = "1h"
    """Length of a window; windows begin at multiples of it since 1970, in UTC."""
    delay: Annotated[Duration, Rule(between("0s", "24h"), "monitoring.delay must not exceed 24h")] = "1m"
    """How long after a window's end captured rows of it may still be written. Each resource's check starts at a moment
    of its own after that, as `spread` says."""
    spread: Duration | None = None
    """Time after `delay` over which the checks of all resources are spread, each always at the same place in it: with
    many models, the more time, the less CPU at once, and the later a verdict. Left out: a tenth of a window, 5 minutes
    at most."""
    min_samples: int = Field(default=500, ge=50, le=1000000)
    """Rows that a verdict on drift needs; a column of many categories needs more."""
    max_samples: int = Field(default=20000, ge=100, le=1000000)
    """Most rows of a window that are compared; of more, a random sample."""
    drift: Drift | None = None
    """When a change of inputs or predictions counts. Left out: its defaults, where production is given."""
    quality: Quality | None = None
    """When a loss of quality counts. Left out: its defaults, where production is given."""
    headroom: Headroom | None = None
    """When it counts that another model would do better. Left out: its defaults, where labels are given."""
    segments: Segments | None = None
    """Which parts of the rows are judged by themselves. Left out: its defaults, where production is given."""
    performance: Performance | None = None
    """When slow or failing answers count. Left out: they are not watched."""
    check_host: ServiceName | None = None
    """Service in this namespace whose pods check the windows, which costs a tenth. Left out, and whenever they cannot,
    each check's own Job does all of it; the verdicts are the same."""

    @property
    def drifting(self) -> Drift | None:
        """The settings of drift, its defaults where they are left out; None where nothing is captured."""
        return (self.drift or Drift()) if self.production else None

    @property
    def judging(self) -> Quality | None:
        """The settings of quality, its defaults where they are left out; None where nothing is captured."""
        return (self.quality or Quality()) if self.production else None

    @property
    def learning(self) -> Headroom | None:
        """The settings of headroom, its defaults where they are left out; None where no labels are given."""
        return (self.headroom or Headroom()) if self.production and self.production.labels else None

    @property
    def segmenting(self) -> Segments | None:
        """The settings of segments, its defaults where they are left out; None where none are judged."""
        segments = self.segments or Segments()
        return segments if self.production and segments.wanted else None
