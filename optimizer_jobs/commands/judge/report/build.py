"""Build the report's document from evidence, decision and study. Nothing is measured or written here."""

from collections.abc import Mapping, Sequence

import numpy as np

from optimizer_jobs.commands.judge.evidence import AtSize, Standing
from optimizer_jobs.commands.judge.gate import Check, Refusal
from optimizer_jobs.commands.judge.measuring import Measured
from optimizer_jobs.commands.judge.report.details import classes, distribution, margins
from optimizer_jobs.commands.judge.report.document import (
    CheckRow,
    Environment,
    Estimate,
    FinalistRow,
    LatencyProfile,
    ModelRow,
    Report,
    SizeLine,
    TrialLine,
)
from optimizer_jobs.commands.judge.report.steps import TEXT_LIMIT, Searched, ShownMetrics, ratios, steps, techniques
from optimizer_jobs.commands.judge.rules import Rules
from optimizer_jobs.commands.judge.verdict import Decision, Finding, latency_of, why
from optimizer_jobs.errors import printable
from optimizer_jobs.measure.fingerprint import Fingerprint
from optimizer_jobs.measure.latency import Timings
from optimizer_jobs.measure.stats import Interval
from optimizer_jobs.models.words import engine_words
from optimizer_jobs.study.objectives import ranked
from optimizer_jobs.study.trials import TrialRow
from retune.api.metrics import Metric
from retune.contract.requests import JudgeRequest
from retune.contract.results import JudgeResult, Verdict

_DATA_WORDS = 1000
PERCENTILES = np.arange(1, 100) / 100


def build(
    request: JudgeRequest,
    *,
    measured: Measured,
    decision: Decision,
    result: JudgeResult,
    searched: Searched,
    data: Mapping[str, str],
    fingerprint: Fingerprint,
    rules: Rules,
) -> Report:
    """Return the report of a run.

    Args:
        request: The judge's request.
        measured: The measurements.
        decision: The verdict with all findings.
        result: The judge's result.
        searched: What remains of the search.
        data: Digest of each split by name.
        fingerprint: Hardware and runtime of the measurements.
        rules: The rules of the judgement.
    """
    subject, trials = decision.subject, searched.trials
    main, latency = measured.evidence.champion.main, latency_of(request.objectives)
    finalists = tuple(_finalist(finding, decision, measured) for finding in decision.findings)
    metrics = ShownMetrics(main, latency, [objective.metric for objective in ranked(request.objectives)])
    chosen = subject.contender.trial if subject else None
    judgements = {finalist.trial: finalist.why for finalist in finalists}
    return Report(
        result=result,
        resource=request.resource,
        trigger=printable(request.trigger, limit=TEXT_LIMIT),
        learned_from=printable(request.learned_from, limit=_DATA_WORDS) if request.learned_from else None,
        objectives=request.objectives,
        selection=request.selection,
        test_rows=len(measured.rows),
        evidence_rows=measured.rows.effective,
        champion=ModelRow(**_model(measured.evidence.champion, measured)),
        finalists=finalists,
        trials=_trials(trials, {finding.contender.trial for finding in decision.findings}),
        steps=steps(subject, decision.findings, trials, latency=latency) if subject else (),
        start_quality=next((trial.result.champion[main] for trial in trials if main in trial.result.champion), None),
        techniques=techniques(searched, chosen=chosen, judgements=judgements, metrics=metrics),
        classes=classes(subject, measured) if subject else (),
        distribution=distribution(subject, measured) if subject else None,
        margins=margins(subject, measured) if subject else (),
        environment=_environment(fingerprint, measured, data, rules),
    )


def _estimate(interval: Interval) -> Estimate:
    return Estimate(value=interval.value, low=interval.low, high=interval.high, samples=interval.samples)


def _estimates(intervals: Mapping[Metric, Interval]) -> dict[Metric, Estimate]:
    return {metric: _estimate(interval) for metric, interval in intervals.items()}


def _model(standing: Standing, measured: Measured) -> dict[str, object]:
    """Return the fields of a ModelRow."""
    return {
        "digest": standing.bundle.digest,
        "plan": printable(standing.plan, limit=TEXT_LIMIT),
        "techniques": tuple(printable(technique, limit=TEXT_LIMIT) for technique in standing.techniques),
        "engine": ", ".join(engine_words(measured.engines[standing.bundle.digest])),
        "metrics": _estimates(standing.metrics),
        "latency": _profile(measured.timings[standing.bundle.digest]),
    }


def _profile(timings: Timings) -> LatencyProfile:
    pooled = timings.pooled
    return LatencyProfile(
        calls=timings.calls,
        rounds=len(timings.blocks),
        first_call_ms=timings.first_call_ms,
        percentiles=tuple(float(f"{pooled.quantile(q):.6g}") for q in PERCENTILES),
    )


def _finalist(finding: Finding, decision: Decision, measured: Measured) -> FinalistRow:
    contender, difference = finding.contender, finding.contender.difference
    chosen = decision.verdict is Verdict.PROMOTE and finding is decision.subject
    return FinalistRow(
        **_model(contender, measured),
        trial=contender.trial,
        outcome="Chosen" if chosen else "Passed" if finding.refusal is None else "Refused",
        why=why(finding, decision, measured.evidence),
        ratios=_estimates(contender.ratios),
        differences={metric: _estimate(paired.interval) for metric, paired in contender.differences.items()},
        confidence=contender.confidence,
        p_value=difference.p_value,
        gained=difference.gained,
        lost=difference.lost,
        agreement=_estimate(contender.agreement),
        sizes=tuple(_size(at) for at in contender.sizes),
        checks=tuple(_check(check) for check in finding.checks if check.refusal is not Refusal.NEARLY_CONSTANT),
    )


def _size(at: AtSize) -> SizeLine:
    return SizeLine(
        size=at.size,
        share=at.share,
        champion=_estimate(at.champion),
        candidate=_estimate(at.candidate),
        ratio=_estimate(at.ratio),
        slower=at.slower,
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
    return tuple(_trial(trial, finalist=trial.number in finalists) for trial in trials)


def _trial(trial: TrialRow, *, finalist: bool) -> TrialLine:
    result = trial.result
    return TrialLine(
        number=trial.number,
        outcome=trial.outcome,
        plan=printable(result.plan, limit=TEXT_LIMIT),
        note=printable("; ".join(filter(None, (result.reason, *result.skipped))), limit=TEXT_LIMIT),
        values={Metric(name): value for name, value in result.values.items()},
        ratios=ratios(trial),
        seconds=trial.seconds,
        finalist=finalist,
    )


def _environment(fingerprint: Fingerprint, measured: Measured, data: Mapping[str, str], rules: Rules) -> Environment:
    return Environment(
        fingerprint=fingerprint.short,
        cpu=printable(fingerprint.cpu, limit=TEXT_LIMIT),
        features=fingerprint.features,
        cpu_limit=fingerprint.cpu_limit,
        memory_limit=fingerprint.memory_limit,
        threads=rules.threads,
        serving=rules.serving,
        runtimes=dict(fingerprint.runtimes),
        seed=rules.seed,
        data=dict(data),
        noise=measured.evidence.noise,
        doubt=measured.evidence.doubt,
        self_ratio=_estimate(measured.self_ratio),
        attack=measured.attack,
    )
