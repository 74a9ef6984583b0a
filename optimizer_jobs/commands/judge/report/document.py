"""The content of report.json: everything the page shows, as numbers.

The page is a pure function of this document, so neither can say what the other does not. No clock time is in it: the
same measurements give the same document.
"""

from typing import Literal

from retune.api.objectives import Metric, MetricKind, Objective, Selection
from retune.api.search import Serving
from retune.contract.requests import Document
from retune.contract.results import JudgeResult


class Estimate(Document):
    """A number with its interval and the rows or calls behind it."""

    value: float
    low: float
    high: float
    samples: int


class LatencyProfile(Document):
    """How long calls took, in milliseconds."""

    calls: int
    rounds: int
    first_call_ms: float
    percentiles: tuple[float, ...]
    """The 1st to the 99th percentile."""


class ModelRow(Document):
    """One model's own numbers."""

    digest: str
    plan: str
    techniques: tuple[str, ...]
    engine: str
    """How it runs, in words."""
    metrics: dict[Metric, Estimate]
    latency: LatencyProfile


class CheckRow(Document):
    """One limit and how it was judged."""

    metric: Metric
    limit: float
    estimate: float
    pessimistic: float
    refusal: str | None
    rows_needed: int | None


class FinalistRow(ModelRow):
    """One finalist against the champion."""

    trial: int
    outcome: Literal["Chosen", "Passed", "Refused"]
    why: str
    ratios: dict[Metric, Estimate]
    """Candidate divided by champion."""
    differences: dict[Metric, Estimate]
    """Quality, candidate minus champion, on the same rows."""
    confidence: float
    p_value: float
    """Two-sided test of equal quality: exact McNemar for shares of rows, resampled for everything else."""
    gained: int
    lost: int
    agreement: Estimate
    checks: tuple[CheckRow, ...]


class TrialLine(Document):
    """One trial of the search, by its own short measurement on the validation split."""

    number: int
    outcome: str
    plan: str
    note: str
    values: dict[Metric, float]
    ratios: dict[Metric, float]
    seconds: float | None
    finalist: bool


class StepLine(Document):
    """What one more technique bought, relative to the champion."""

    step: str
    trial: int | None
    """The trial that stopped after this step; none was run when absent."""
    judged: bool
    """Whether the ratios are the judge's; else they are the search's short measurement."""
    quality: float | None
    """The main quality metric, on the validation split."""
    size_ratio: float | None
    latency_ratio: float | None
    noise: float
    """Relative change of latency since the step before that means nothing."""
    bought: str


class TechniqueLine(Document):
    """What became of one technique of the run, by its best trial."""

    name: str
    outcome: Literal["Used", "Tried", "NoEffect", "LeftOut"]
    """In the candidate; tried and not chosen; left the model as it was; or not in the search at all."""
    trials: int
    trial: int | None
    quality: float | None
    latency_ratio: float | None
    size_ratio: float | None
    note: str


class ClassLine(Document):
    """Quality on the rows of one class."""

    label: str
    rows: int
    champion: float
    candidate: float
    gained: int
    lost: int
    p_value: float
    """Exact test, adjusted for the number of classes (Benjamini and Hochberg)."""


class Spread(Document):
    """How one model's numbers are spread over the test rows."""

    mean: float
    low: float
    high: float
    percentiles: tuple[float, ...]
    """The 5th, 25th, 50th, 75th and 95th."""
    counts: tuple[int, ...]
    """Rows between two edges."""


class Distribution(Document):
    """Residuals of a regression (answer minus truth), or an embedding's similarities to the model as delivered."""

    what: Literal["residual", "similarity"]
    edges: tuple[float, ...]
    champion: Spread
    candidate: Spread


class MarginLine(Document):
    """Test rows that a margin needs, at the disagreement seen here."""

    margin: float
    shown: str
    """The same with its unit: points of a share, else the metric's own."""
    rows: int
    chosen: bool


class Environment(Document):
    """What the numbers belong to."""

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
    """Why latency did not count."""
    self_ratio: Estimate
    """p95 latency of the champion divided by its own, measured as if it were two models."""
    doubt: str | None = None
    """Why intervals of latency are wider than they were measured."""
    attack: str | None = None
    """What every model was put to for robust accuracy, where an objective asks for it."""


class Report(Document):
    """A whole report."""

    format_version: Literal[1] = 1
    result: JudgeResult
    resource: str
    trigger: str
    objectives: tuple[Objective, ...]
    selection: Selection
    test_rows: int
    champion: ModelRow
    finalists: tuple[FinalistRow, ...]
    trials: tuple[TrialLine, ...]
    steps: tuple[StepLine, ...]
    start_quality: float | None
    """The champion's main quality metric where the steps start, on the validation split."""
    techniques: tuple[TechniqueLine, ...]
    classes: tuple[ClassLine, ...]
    distribution: Distribution | None
    margins: tuple[MarginLine, ...]
    environment: Environment

    @property
    def main(self) -> Metric:
        """The quality metric that the report speaks of first."""
        return next(metric for metric in self.champion.metrics if metric.kind is MetricKind.QUALITY)

    @property
    def latency(self) -> Metric:
        """The latency that the report speaks of: the first that an objective names, else p95."""
        named = (each.metric for each in self.objectives if each.metric.kind is MetricKind.LATENCY)
        return next(named, Metric.LATENCY_P95_MS)

    @property
    def subject(self) -> FinalistRow | None:
        """The finalist that the verdict speaks of."""
        summary = self.result.candidate
        return next((each for each in self.finalists if summary and each.digest == summary.bundle.digest), None)
