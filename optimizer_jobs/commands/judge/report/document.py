"""The content of report.json: everything that the page shows, as numbers.

The page is a pure function of this document, so both have the same content. The document contains no time of day, so
that the same measurements give the same document.
"""

from typing import Literal

from optimizer_jobs.commands.judge.by_class import ClassLine
from retune.api.metrics import Metric, MetricKind
from retune.api.objectives import Objective, Selection
from retune.api.search import Serving
from retune.contract.requests import Document
from retune.contract.results import JudgeResult


class Estimate(Document):
    """A number with its interval, and the number of rows or calls that it is based on."""

    value: float
    low: float
    high: float
    samples: int


class LatencyProfile(Document):
    """How long calls took."""

    calls: int
    rounds: int
    first_call_ms: float
    percentiles: tuple[float, ...]
    """The 1st to the 99th percentile in milliseconds."""


class ModelRow(Document):
    """A model's own measurements."""

    digest: str
    plan: str
    techniques: tuple[str, ...]
    engine: str
    """How it is run, in words."""
    metrics: dict[Metric, Estimate]
    latency: LatencyProfile


class CheckRow(Document):
    """One limit, and whether it is proven to be kept."""

    metric: Metric
    limit: float
    estimate: float
    pessimistic: float
    refusal: str | None
    rows_needed: int | None


class SizeLine(Document):
    """p95 latency in requests of one size, where requests differ in size."""

    size: int
    """Rows of a request."""
    share: float
    """Share of the requests."""
    champion: Estimate
    candidate: Estimate
    ratio: Estimate
    """Candidate divided by champion; the interval is widened by what the champion differs from itself."""
    slower: bool
    """Whether the candidate is slower by more than the noise."""


class FinalistRow(ModelRow):
    """One finalist, compared with the champion."""

    trial: int
    outcome: Literal["Chosen", "Passed", "Refused"]
    why: str
    ratios: dict[Metric, Estimate]
    """Candidate divided by champion."""
    differences: dict[Metric, Estimate]
    """Quality, candidate minus champion, on the same rows."""
    confidence: float
    p_value: float
    """Two-sided test of equal quality: exact McNemar for shares of rows, resampled for all other metrics."""
    gained: int
    lost: int
    agreement: Estimate
    checks: tuple[CheckRow, ...]
    sizes: tuple[SizeLine, ...] = ()
    """Latency by size of the requests; empty where all are alike."""


class TrialLine(Document):
    """One trial of the search, with its own short measurement on the validation split."""

    number: int
    outcome: str
    plan: str
    note: str
    values: dict[Metric, float]
    ratios: dict[Metric, float]
    seconds: float | None
    finalist: bool


class StepLine(Document):
    """What one more technique changed, relative to the champion."""

    step: str
    trial: int | None
    """The trial whose techniques end with this step; absent when there is none."""
    judged: bool
    """Whether the judge measured the ratios; otherwise they come from the search's short measurement."""
    quality: float | None
    """The main quality metric on the validation split."""
    size_ratio: float | None
    latency_ratio: float | None
    noise: float
    """Relative change of latency since the step before that may be noise."""
    bought: str
    """What the step changed, in words."""


class TechniqueLine(Document):
    """The outcome of one technique of the run, with the numbers of its best trial."""

    name: str
    outcome: Literal["Used", "Tried", "NoEffect", "LeftOut"]
    """Part of the candidate; tried but not chosen; left the model as it was; or not part of the search."""
    trials: int
    """Number of trials with it."""
    trial: int | None
    """Its best trial."""
    quality: float | None
    latency_ratio: float | None
    size_ratio: float | None
    note: str


class Spread(Document):
    """The distribution of one model's numbers over the test rows."""

    mean: float
    low: float
    high: float
    percentiles: tuple[float, ...]
    """The 5th, 25th, 50th, 75th and 95th percentile."""
    counts: tuple[int, ...]
    """Number of rows in each bin."""


class Distribution(Document):
    """Residuals of a regression (answer minus truth), or similarities of an embedding to the model as delivered."""

    what: Literal["residual", "similarity"]
    edges: tuple[float, ...]
    """Edges of the bins."""
    champion: Spread
    candidate: Spread


class MarginLine(Document):
    """How many test rows a margin needs, given how much the two models disagree."""

    margin: float
    shown: str
    """The margin as text: in percentage points for a share, else in the metric's unit."""
    rows: int
    chosen: bool
    """Whether it is the margin of the spec."""


class Environment(Document):
    """The conditions of the measurements."""

    fingerprint: str
    cpu: str
    features: tuple[str, ...]
    cpu_limit: float | None
    memory_limit: int | None
    threads: int
    serving: Serving
    runtimes: dict[str, str]
    seed: int
    data: dict[str, str]
    """Digest by split."""
    noise: str | None
    """Why latency did not count, if it did not."""
    self_ratio: Estimate
    """p95 latency of the champion divided by its own, measured as if it were two models."""
    doubt: str | None = None
    """Why intervals of latency were widened, if they were."""
    attack: str | None = None
    """The attack that all models were put under for robust accuracy, if an objective needs it."""


class Report(Document):
    """A whole report."""

    format_version: Literal[1] = 1
    result: JudgeResult
    resource: str
    trigger: str
    learned_from: str | None = None
    """What the data of the run was built from and why, as sentences; None where it is that of the spec."""
    objectives: tuple[Objective, ...]
    selection: Selection
    test_rows: int
    evidence_rows: int | None = None
    """How many rows of equal weight are as much evidence as the test rows; None in reports of earlier versions."""
    champion: ModelRow
    finalists: tuple[FinalistRow, ...]
    trials: tuple[TrialLine, ...]
    steps: tuple[StepLine, ...]
    start_quality: float | None
    """The champion's main quality metric on the validation split, from which the steps start."""
    techniques: tuple[TechniqueLine, ...]
    classes: tuple[ClassLine, ...]
    distribution: Distribution | None
    margins: tuple[MarginLine, ...]
    worth: str | None = None
    """Within which limit of time the result's worth counts requests, or why it says nothing; None without a winner."""
    lost: tuple[str, ...] = ()
    """What the server of spec.serving.runtime cannot be told or run, what that costs the winner, and whether it was
    measured itself, as sentences."""
    environment: Environment

    @property
    def main(self) -> Metric:
        """The quality metric that the report shows first."""
        return next(metric for metric in self.champion.metrics if metric.kind is MetricKind.QUALITY)

    @property
    def latency(self) -> Metric:
        """The latency metric that the report shows: the first one in the objectives, or else p95."""
        metrics = (objective.metric for objective in self.objectives)
        return next((metric for metric in metrics if metric.kind is MetricKind.LATENCY), Metric.LATENCY_P95_MS)

    @property
    def subject(self) -> FinalistRow | None:
        """The finalist that the verdict is about, or None."""
        summary = self.result.candidate
        if summary is None:
            return None
        return next((finalist for finalist in self.finalists if finalist.digest == summary.bundle.digest), None)
