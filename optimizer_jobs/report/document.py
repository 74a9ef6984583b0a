"""The content of report.json: everything the page shows, as numbers.

The page is a pure function of this document, so neither can say what the other does not. No clock time is in it: the
same measurements give the same document.
"""

from typing import Literal

from retune.api.objectives import Metric, Objective, Selection
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
    """The metric that stands for the task, on the validation split."""
    size_ratio: float | None
    latency_ratio: float | None
    bought: str


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


class MarginLine(Document):
    """Test rows that a margin needs, at the disagreement seen here."""

    margin: float
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
    runtimes: dict[str, str]
    seed: int
    data: dict[str, str]
    """Digest by split."""
    noise: str | None
    self_ratio: Estimate
    """p95 latency of the champion divided by its own, measured as if it were two models."""


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
    classes: tuple[ClassLine, ...]
    margins: tuple[MarginLine, ...]
    environment: Environment

    @property
    def subject(self) -> FinalistRow | None:
        """The finalist that the verdict speaks of."""
        summary = self.result.candidate
        return next((each for each in self.finalists if summary and each.digest == summary.bundle.digest), None)
