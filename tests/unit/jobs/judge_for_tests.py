"""Evidence as the judge gathers it, written down from counts and ratios, for tests of what is concluded from it."""

import hashlib
from collections.abc import Sequence

from optimizer_jobs.commands.judge.evidence import Contender, Evidence, Standing
from optimizer_jobs.measure.stats import Interval, PairedDifference, tango_interval, wilson
from retune.api.metrics import Metric
from retune.api.objectives import Goal, GoalType, Objective, Role
from retune.contract.requests import BundleRef

ROWS = 1000
CHAMPION_RIGHT = 960
CHAMPION_SIZE = 8_600_000
CHAMPION_P95 = 2.0


def ref(name: str) -> BundleRef:
    """Return the reference of a bundle with a digest made from its name."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    return BundleRef(uri=f"pvc://store/bundles/{digest}", digest=f"sha256:{digest}")


def champion() -> Standing:
    """Return a champion that is right on 960 of 1,000 rows, takes 2 ms at p95 and has 8.6 MB."""
    return Standing(
        bundle=ref("champion"),
        plan="the champion",
        techniques=(),
        metrics={
            Metric.ACCURACY: wilson(CHAMPION_RIGHT, ROWS, confidence=0.95),
            Metric.LATENCY_P50_MS: Interval(1.0, low=0.99, high=1.01, samples=20_000),
            Metric.LATENCY_P95_MS: Interval(CHAMPION_P95, low=1.98, high=2.02, samples=20_000),
            Metric.SIZE_BYTES: Interval.exact(CHAMPION_SIZE),
        },
    )


def contender(
    name: str = "int8",
    *,
    gained: int = 0,
    lost: int = 0,
    latency: float = 1.0,
    half_width: float = 0.01,
    size: float = 1.0,
    techniques: Sequence[str] = ("int8 dynamic",),
    confidence: float = 0.95,
) -> Contender:
    """Return a finalist from flips on 1,000 rows and its ratios to the champion."""
    low, high = tango_interval(gained, lost, ROWS, confidence=confidence)
    ratio = Interval(latency, low=latency * (1 - half_width), high=latency * (1 + half_width), samples=20_000)
    p95 = Interval(ratio.value * CHAMPION_P95, low=ratio.low * CHAMPION_P95, high=ratio.high * CHAMPION_P95, samples=1)
    return Contender(
        bundle=ref(name),
        plan=name,
        techniques=tuple(techniques),
        trial=1,
        metrics={
            Metric.ACCURACY: wilson(CHAMPION_RIGHT + gained - lost, ROWS, confidence=confidence),
            Metric.LATENCY_P50_MS: ratio,
            Metric.LATENCY_P95_MS: p95,
            Metric.SIZE_BYTES: Interval.exact(round(size * CHAMPION_SIZE)),
        },
        differences={
            Metric.ACCURACY: PairedDifference(
                value=(gained - lost) / ROWS, low=low, high=high, p_value=1.0, gained=gained, lost=lost, rows=ROWS
            )
        },
        confidence=confidence,
        agreement=wilson(ROWS - gained - lost, ROWS, confidence=confidence),
        ratios={
            Metric.LATENCY_P50_MS: ratio,
            Metric.LATENCY_P95_MS: ratio,
            Metric.SIZE_BYTES: Interval.exact(size),
        },
    )


def evidence(*contenders: Contender, noise: str | None = None) -> Evidence:
    """Return evidence on these finalists against the champion."""
    return Evidence(champion=champion(), contenders=contenders, noise=noise)


def limit(metric: Metric, goal: GoalType, value: str) -> Objective:
    """Return an objective that only refuses."""
    return Objective(metric=metric, role=Role.CONSTRAIN, goal=Goal(type=goal, value=value))


def wanted(metric: Metric, tolerance: str = "0.05") -> Objective:
    """Return an objective that only ranks."""
    return Objective(metric=metric, tolerance=tolerance)
