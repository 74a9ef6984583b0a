"""Turn evidence, decision and study into the report's document. Arithmetic only: nothing is measured or written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, false_discovery_control

from optimizer_jobs.errors import printable
from optimizer_jobs.judge.evidence import Contender, Standing
from optimizer_jobs.judge.gate import Check
from optimizer_jobs.judge.gather import Gathered, Rules
from optimizer_jobs.judge.verdict import Decision, Finding, why
from optimizer_jobs.measure.fingerprint import Fingerprint
from optimizer_jobs.measure.latency import Timings
from optimizer_jobs.measure.stats import Interval, required_rows
from optimizer_jobs.report.document import (
    CheckRow,
    ClassLine,
    Environment,
    Estimate,
    FinalistRow,
    LatencyProfile,
    MarginLine,
    ModelRow,
    Report,
    StepLine,
    TrialLine,
)
from optimizer_jobs.search.study import TrialRow
from retune.api.objectives import GoalType, Metric, MetricKind
from retune.contract.requests import JudgeRequest
from retune.contract.results import JudgeResult, Verdict

BoolArray = NDArray[np.bool_]

PERCENTILES = np.arange(1, 100) / 100
TEXT_LIMIT = 200
MOST_CLASSES = 100
USUAL_MARGINS = (0.005, 0.01, 0.02, 0.05)
NOTHING = 0.01
"""Relative change below which a step is said to have bought nothing."""
SEARCH_NOISE = 0.10
"""The same for a latency that only the search's short measurement saw."""


def build(
    request: JudgeRequest,
    *,
    gathered: Gathered,
    decision: Decision,
    result: JudgeResult,
    trials: Sequence[TrialRow],
    data: Mapping[str, str],
    fingerprint: Fingerprint,
    rules: Rules,
) -> Report:
    """Return the document for one verdict."""
    subject = decision.subject
    return Report(
        result=result,
        resource=request.resource,
        trigger=printable(request.trigger, limit=TEXT_LIMIT),
        objectives=request.objectives,
        selection=request.selection,
        test_rows=len(gathered.rows),
        champion=ModelRow(**_model(gathered.evidence.champion, gathered)),
        finalists=tuple(_finalist(each, decision, gathered, rules) for each in decision.findings),
        trials=_trials(trials, {each.contender.trial for each in decision.findings}),
        steps=_steps(subject, decision.findings, trials) if subject else (),
        classes=_classes(subject, gathered) if subject else (),
        margins=_margins(subject, gathered) if subject else (),
        environment=_environment(fingerprint, gathered, data, rules),
    )


def _estimate(interval: Interval) -> Estimate:
    return Estimate(value=interval.value, low=interval.low, high=interval.high, samples=interval.samples)


def _estimates(intervals: Mapping[Metric, Interval]) -> dict[Metric, Estimate]:
    return {metric: _estimate(found) for metric, found in intervals.items()}


def _model(standing: Standing, gathered: Gathered) -> dict[str, object]:
    """Return the fields of a ModelRow."""
    return {
        "digest": standing.bundle.digest,
        "plan": printable(standing.plan, limit=TEXT_LIMIT),
        "techniques": tuple(printable(each, limit=TEXT_LIMIT) for each in standing.techniques),
        "metrics": _estimates(standing.metrics),
        "latency": _profile(gathered.timings[standing.bundle.digest]),
    }


def _profile(timings: Timings) -> LatencyProfile:
    return LatencyProfile(
        calls=timings.calls,
        rounds=len(timings.blocks),
        first_call_ms=timings.first_call_ms,
        percentiles=tuple(float(f"{value:.6g}") for value in np.quantile(timings.blocks, PERCENTILES)),
    )


def _finalist(finding: Finding, decision: Decision, gathered: Gathered, rules: Rules) -> FinalistRow:
    contender, found = finding.contender, finding.contender.difference
    chosen = decision.verdict is Verdict.PROMOTE and finding is decision.subject
    return FinalistRow(
        **_model(contender, gathered),
        trial=contender.trial,
        outcome="Chosen" if chosen else "Passed" if finding.refusal is None else "Refused",
        why=why(finding, decision, gathered.evidence, min_gain=rules.min_gain),
        ratios=_estimates(contender.ratios),
        differences={metric: _estimate(each.interval) for metric, each in contender.differences.items()},
        confidence=contender.confidence,
        p_value=found.p_value,
        gained=found.gained,
        lost=found.lost,
        agreement=_estimate(contender.agreement),
        checks=tuple(_check(check) for check in finding.checks),
    )


def _check(check: Check) -> CheckRow:
    return CheckRow(
        metric=check.objective.metric,
        limit=check.limit,
        estimate=check.estimate,
        pessimistic=check.pessimistic,
        refusal=check.refusal.value if check.refusal else None,
        rows_needed=check.rows_needed,
    )


def _trials(trials: Sequence[TrialRow], finalists: set[int]) -> tuple[TrialLine, ...]:
    return tuple(
        TrialLine(
            number=trial.number,
            outcome=trial.outcome,
            plan=printable(trial.found.plan, limit=TEXT_LIMIT),
            note=printable("; ".join(filter(None, (trial.found.reason, *trial.found.skipped))), limit=TEXT_LIMIT),
            values={Metric(name): value for name, value in trial.found.values.items()},
            ratios=_ratios(trial),
            seconds=trial.seconds,
            finalist=trial.number in finalists,
        )
        for trial in trials
    )


def _ratios(trial: TrialRow) -> dict[Metric, float]:
    """Return candidate divided by champion for what is minimized."""
    champion = trial.found.champion
    return {
        Metric(name): value / champion[name]
        for name, value in trial.found.values.items()
        if not Metric(name).higher_is_better and champion.get(name)
    }


def _steps(subject: Finding, findings: Sequence[Finding], trials: Sequence[TrialRow]) -> tuple[StepLine, ...]:
    """Return one line per technique of the subject, each compared with the trial that stopped one step before."""
    techniques = subject.contender.techniques
    judged = {each.contender.trial: each.contender for each in findings}
    chain = [_stopped_after(techniques[:count], trials, subject) for count in range(len(techniques) + 1)]
    found = [_Reached.of(trial, judged.get(trial.number)) if trial else None for trial in chain]
    before = [_Reached.champion(), *found[:-1]]
    names = ("engine options only", *techniques)
    return tuple(_step(*each) for each in zip(names, found, before, strict=True))


def _stopped_after(techniques: tuple[str, ...], trials: Sequence[TrialRow], subject: Finding) -> TrialRow | None:
    """Return the fastest measured trial with exactly these techniques; the subject's own for all of them."""
    if techniques == subject.contender.techniques:
        return next((trial for trial in trials if trial.number == subject.contender.trial), None)
    same = [trial for trial in trials if trial.found.techniques == techniques and _ratios(trial)]
    return min(same, key=lambda trial: (_latency(_ratios(trial)) or 1.0, trial.number), default=None)


def _latency(ratios: Mapping[Metric, float]) -> float | None:
    return ratios.get(Metric.LATENCY_P95_MS, ratios.get(Metric.LATENCY_P50_MS))


@dataclass(frozen=True)
class _Reached:
    """Where a chain of steps stands, relative to the champion: by the judge where it looked, else by the search."""

    trial: int | None
    quality: float | None
    size: float | None
    latency: float | None
    noise: float
    """Relative differences of latency that mean nothing."""
    judged: bool

    @classmethod
    def champion(cls) -> "_Reached":
        return cls(trial=None, quality=None, size=1.0, latency=1.0, noise=0.0, judged=True)

    @classmethod
    def of(cls, trial: TrialRow, contender: Contender | None) -> "_Reached":
        quality = next((v for name, v in trial.found.values.items() if Metric(name).kind is MetricKind.QUALITY), None)
        if contender is None:
            ratios, noise = _ratios(trial), SEARCH_NOISE
        else:
            ratios = {metric: each.value for metric, each in contender.ratios.items()}
            p95 = contender.ratios[Metric.LATENCY_P95_MS]
            noise = max(NOTHING, p95.high / p95.value - 1, 1 - p95.low / p95.value)
        size, latency = ratios.get(Metric.SIZE_BYTES), _latency(ratios)
        return cls(trial.number, quality, size, latency, noise, judged=contender is not None)


def _step(name: str, reached: _Reached | None, before: _Reached | None) -> StepLine:
    shown = printable(name, limit=TEXT_LIMIT)
    if reached is None:
        return StepLine(step=shown, trial=None, judged=False, quality=None, size_ratio=None, latency_ratio=None,
                        bought="Not tried on its own.")  # fmt: skip
    return StepLine(
        step=shown,
        trial=reached.trial,
        judged=reached.judged,
        quality=reached.quality,
        size_ratio=reached.size,
        latency_ratio=reached.latency,
        bought=_bought(reached, before) if before else "Not comparable: the step before was not tried on its own.",
    )


def _bought(reached: _Reached, before: _Reached) -> str:
    """Return what a step changed, leaving out what may be noise."""
    noise = max(reached.noise, before.noise)
    named = (
        (_factor(reached.size, before.size), NOTHING, "smaller", "larger"),
        (_factor(reached.latency, before.latency), noise, "faster", "slower"),
    )
    parts = [
        f"{1 / factor:.2f}x {better}" if factor < 1 else f"{factor:.2f}x {worse}"
        for factor, floor, better, worse in named
        if factor is not None and abs(factor - 1) > floor
    ]
    return f"{', '.join(parts)}." if parts else "Nothing measurable."


def _factor(now: float | None, before: float | None) -> float | None:
    return now / before if now is not None and before else None


def _classes(subject: Finding, gathered: Gathered) -> tuple[ClassLine, ...]:
    """Return quality by class, for the most frequent classes when there are very many."""
    scored = [
        gathered.scores[each.bundle.digest].get(Metric.ACCURACY)
        for each in (gathered.evidence.champion, subject.contender)
    ]
    if scored[0] is None or scored[1] is None:
        return ()
    before, after, classes = scored[0] > 0, scored[1] > 0, gathered.rows.answers
    labels, counts = np.unique(classes, return_counts=True)
    shown = np.sort(np.argsort(-counts, kind="stable")[:MOST_CLASSES])
    masks = [classes == labels[index] for index in shown]
    flips = [(int((after & ~before & mask).sum()), int((before & ~after & mask).sum())) for mask in masks]
    raw = [float(binomtest(lost, gained + lost).pvalue) if gained + lost else 1.0 for gained, lost in flips]
    return tuple(
        ClassLine(
            label=printable(str(labels[index]), limit=TEXT_LIMIT),
            rows=int(mask.sum()),
            champion=float(before[mask].mean()),
            candidate=float(after[mask].mean()),
            gained=gained,
            lost=lost,
            p_value=float(adjusted),
        )
        for index, mask, (gained, lost), adjusted in zip(shown, masks, flips, false_discovery_control(raw), strict=True)
    )


def _margins(subject: Finding, gathered: Gathered) -> tuple[MarginLine, ...]:
    """Return the rows that usual margins and the chosen one need."""
    found = subject.contender.difference
    if subject.contender.main is not Metric.ACCURACY:
        return ()
    share = (found.discordant + 2) / (found.rows + 2)
    chosen = _chosen_margin(subject, gathered)
    margins = sorted({*USUAL_MARGINS, *([chosen] if chosen else [])})
    return tuple(
        MarginLine(
            margin=margin,
            rows=required_rows(margin=margin, discordance=share, confidence=subject.contender.confidence),
            chosen=margin == chosen,
        )
        for margin in margins
    )


def _chosen_margin(subject: Finding, gathered: Gathered) -> float | None:
    """Return the drop of accuracy that is allowed, rounded so that 0.01 is 0.01; None without such a limit."""
    base = gathered.evidence.champion.metrics[Metric.ACCURACY].value
    for check in subject.checks:
        goal = check.objective.goal
        relative = goal is not None and goal.type is not GoalType.THRESHOLD
        if check.objective.metric is Metric.ACCURACY and relative and base > check.limit:
            return round(base - check.limit, 6)
    return None


def _environment(fingerprint: Fingerprint, gathered: Gathered, data: Mapping[str, str], rules: Rules) -> Environment:
    return Environment(
        fingerprint=fingerprint.short,
        cpu=printable(fingerprint.cpu, limit=TEXT_LIMIT),
        features=fingerprint.features,
        cpu_limit=fingerprint.cpu_limit,
        memory_limit=fingerprint.memory_limit,
        threads=rules.threads,
        runtimes=dict(fingerprint.runtimes),
        seed=rules.seed,
        data=dict(data),
        noise=gathered.evidence.noise,
        self_ratio=_estimate(gathered.self_ratio),
    )
