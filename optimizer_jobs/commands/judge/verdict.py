"""The verdict: promote one finalist, or keep the champion and say why, in one sentence with the numbers.

Pure: the same evidence and rules give the same verdict. The champion stays unless a finalist passes every limit and
beats it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from optimizer_jobs.commands.judge import words
from optimizer_jobs.commands.judge.evidence import LATENCIES, TIMED, Contender, Evidence, gain
from optimizer_jobs.commands.judge.gate import Check, Refusal, gate
from optimizer_jobs.commands.judge.select import Duel, best, duel, gain_asked
from optimizer_jobs.measure.resources import RESOURCES
from optimizer_jobs.measure.stats import Interval
from optimizer_jobs.study.objectives import ranked
from retune.api.objectives import GoalType, Metric, MetricKind, Objective
from retune.contract.results import Verdict


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What gate and duel say of one finalist."""

    contender: Contender
    checks: tuple[Check, ...]
    duel: Duel

    @property
    def refusal(self) -> Check | None:
        """The first limit that is not shown to be kept."""
        return next((check for check in self.checks if not check.kept), None)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The verdict with its reason; `subject` is the finalist it speaks of."""

    verdict: Verdict
    reason: str
    message: str
    subject: Finding | None
    findings: tuple[Finding, ...]


def decide(evidence: Evidence, *, objectives: Sequence[Objective], min_gain: float) -> Decision:
    """Return the verdict on the finalists."""
    champion, noise = evidence.champion, evidence.noise
    findings = tuple(
        Finding(
            contender=each,
            checks=gate(each, champion, objectives=objectives, noise=noise, memory=evidence.memory),
            duel=duel(each, evidence, objectives=objectives, min_gain=min_gain),
        )
        for each in evidence.contenders
    )
    if not findings:
        return Decision(
            verdict=Verdict.NO_GAIN,
            reason="NoFinalist",
            subject=None,
            findings=(),
            message="The search found no candidate that differs from the champion; the champion stays.",
        )
    passed = [each for each in findings if each.refusal is None]
    winners = [each for each in passed if each.duel.wins]
    subject = _best(winners or passed or findings, evidence, objectives)
    verdict = Verdict.PROMOTE if winners else Verdict.NO_GAIN if passed else Verdict.GATE_FAILED
    reason = _reason(verdict, subject, evidence, objectives)
    message = " ".join(_sentences(verdict, subject, evidence, objectives, min_gain))
    return Decision(verdict=verdict, reason=reason, message=message, subject=subject, findings=findings)


def why(finding: Finding, decision: Decision, evidence: Evidence) -> str:
    """Return in one sentence why a finalist was chosen or not."""
    refusal = finding.refusal
    if refusal is not None:
        return _refused(refusal, finding.contender, evidence)
    if decision.verdict is Verdict.PROMOTE and finding is decision.subject:
        return f"Better than the champion by {_metric_list(finding.duel.gains)}."
    if finding.duel.wins:
        return "Better than the champion too, but behind the chosen one."
    if finding.duel.decided_by is not None:
        return f"Worse than the champion by {words.LABELS[finding.duel.decided_by]}."
    return "No objective gains for sure what is asked for."


def _best(findings: Sequence[Finding], evidence: Evidence, objectives: Sequence[Objective]) -> Finding:
    chosen = best([each.contender for each in findings], evidence, objectives=objectives)
    return next(each for each in findings if each.contender is chosen)


def _reason(verdict: Verdict, subject: Finding, evidence: Evidence, objectives: Sequence[Objective]) -> str:
    refusal = subject.refusal
    if verdict is Verdict.GATE_FAILED and refusal is not None and refusal.refusal is not None:
        return refusal.refusal.value
    if verdict is Verdict.NO_GAIN:
        blind = evidence.noise is not None and any(each.metric in TIMED for each in ranked(objectives))
        return "MeasurementUnreliable" if blind else "NoRelevantGain"
    gains = set(subject.duel.gains)
    better = [metric for metric in gains if metric.kind is MetricKind.QUALITY]
    leaner = gains - TIMED - {Metric.SIZE_BYTES, *better}
    parts = [
        *(["Smaller"] if Metric.SIZE_BYTES in gains else []),
        *(["Faster"] if gains & TIMED else []),
        *(["Leaner"] if leaner else []),
        *(["MoreAccurate"] if better else []),
    ]
    return "And".join(parts) + ("" if better else "AtEqualQuality")


def _sentences(
    verdict: Verdict, subject: Finding, evidence: Evidence, objectives: Sequence[Objective], min_gain: float
) -> list[str]:
    """Return the verdict's sentences, the most important first."""
    contender, refusal = subject.contender, subject.refusal
    comparison = _comparison(subject, evidence, objectives)
    noise = _noise(evidence)
    if verdict is Verdict.PROMOTE:
        return [f"{comparison[:1].upper()}{comparison[1:]}.", *noise]
    if refusal is not None:
        return [
            f"The best finalist ({contender.plan}) is {comparison}.",
            _refused(refusal, contender, evidence),
            *noise,
        ]
    return [_no_gain(subject, evidence, objectives, min_gain), f"It is {comparison}.", *noise]


def _noise(evidence: Evidence) -> list[str]:
    """Return what is to be said of the node, if anything."""
    if evidence.noise is not None:
        return [f"MeasurementUnreliable: {evidence.noise}; latency did not count."]
    if evidence.doubt is not None:
        return [f"The node was restless: {evidence.doubt}; intervals of latency were widened by as much."]
    return []


def _comparison(subject: Finding, evidence: Evidence, objectives: Sequence[Objective]) -> str:
    """Return `3.9x smaller (8.6 MB → 2.2 MB) and p95 1.8x faster at accuracy 0.987 → 0.986 (paired ...)`."""
    contender, champion = subject.contender, evidence.champion
    ratio = contender.ratios[Metric.SIZE_BYTES]
    sizes = f"({words.size(champion.size_bytes)} → {words.size(contender.size_bytes)})"
    shrunk = words.compared(Metric.SIZE_BYTES, ratio)
    parts = [f"unchanged in size {sizes}" if shrunk == "unchanged" else f"{shrunk} {sizes}"]
    if evidence.noise is None:
        metric = latency_of(objectives)
        parts.append(f"{words.LABELS[metric]} {words.compared(metric, contender.ratios[metric])}")
    parts += [
        f"{words.LABELS[each.metric]} {words.compared(each.metric, contender.ratios[each.metric])}"
        for each in ranked(objectives)
        if each.metric in RESOURCES and (evidence.noise is None or each.metric not in TIMED)
    ]
    main = champion.main
    before, after = (words.value(main, each.metrics[main].value) for each in (champion, contender))
    return f"{words.listed(parts)} at {words.LABELS[main]} {before} → {after} ({_difference(subject)})"


def _difference(subject: Finding) -> str:
    contender, main = subject.contender, subject.contender.main
    found = contender.difference
    allowed = _margin(subject, main)
    limit = "" if allowed is None else f", margin {words.change(main, allowed)}"
    unit = " points" if main.is_share else ""
    return (
        f"paired difference {words.change(main, found.value)}{unit}, {words.percent(contender.confidence)} interval "
        f"{words.change(main, found.low)}..{words.change(main, found.high)}{limit}"
    )


def _margin(subject: Finding, main: Metric) -> float | None:
    """Return the change of quality that a limit relative to the champion allows, if there is one."""
    contender = subject.contender
    base = contender.metrics[main].value - contender.difference.value
    for check in subject.checks:
        goal = check.objective.goal
        if check.objective.metric is main and goal is not None and goal.type is not GoalType.THRESHOLD:
            return check.limit - base
    return None


def _refused(check: Check, contender: Contender, evidence: Evidence) -> str:
    """Return why a limit is not shown to be kept, and what would help."""
    metric = check.objective.metric
    label, limit, worst = words.LABELS[metric], words.value(metric, check.limit), words.value(metric, check.pessimistic)
    side = "above" if metric.higher_is_better else "below"
    match check.refusal:
        case Refusal.TOO_FEW_TEST_ROWS:
            needed = f": about {check.rows_needed} are needed" if check.rows_needed else ""
            return (
                f"{contender.difference.rows} test rows cannot show that {label} stays at or {side} {limit} (it may be "
                f"{worst}){needed}. {_agreement(contender)}"
            )
        case Refusal.ACCURACY_BELOW_MARGIN | Refusal.QUALITY_BELOW_MARGIN:
            shown = f"{label[:1].upper()}{label[1:]} {words.value(metric, check.estimate)}"
            return f"{shown} is {'below' if metric.higher_is_better else 'above'} the limit of {limit}."
        case Refusal.MEMORY_ABOVE_LIMIT:
            return f"A process with the model needs {worst} of memory, more than the {limit} of serving.memory."
        case Refusal.LATENCY_UNCERTAIN:
            return f"{label} may be {worst}, above the limit of {limit}."
        case Refusal.MEASUREMENT_UNRELIABLE:
            return f"The {label} limit of {limit} cannot be judged on this node: {evidence.noise}."
        case _:
            missed = "below" if metric.higher_is_better else "above"
            return f"{label} {words.value(metric, check.estimate)} is {missed} the limit of {limit}."


def _agreement(contender: Contender) -> str:
    share = words.percent(contender.agreement.value)
    if contender.main is Metric.ACCURACY:
        return f"Both models agree on {share} of the rows."
    return f"Its answers are {share} the same as the champion's."


def _no_gain(subject: Finding, evidence: Evidence, objectives: Sequence[Objective], min_gain: float) -> str:
    duelled = subject.duel
    if duelled.decided_by is not None:
        found = gain(duelled.decided_by, subject.contender, evidence.champion)
        return (
            f"The best finalist that keeps every limit ({subject.contender.plan}) loses to the champion by "
            f"{words.LABELS[duelled.decided_by]} (gain {_gain(found)})."
        )
    judged = [each for each in ranked(objectives) if evidence.noise is None or each.metric not in TIMED]
    gains = ((each.metric, gain(each.metric, subject.contender, evidence.champion)) for each in judged)
    shown = ", ".join(f"{words.LABELS[metric]} {_gain(found)}" for metric, found in gains)
    return f"No finalist gains {_asked(judged, min_gain)}; the best ({subject.contender.plan}): {shown}."


def _asked(judged: Sequence[Objective], min_gain: float) -> str:
    """Return what is asked for, such as `the 5 % asked for`; where objectives differ, by each."""
    asked = {each.metric: words.percent(gain_asked(each, min_gain)) for each in judged}
    if len(set(asked.values())) <= 1:
        return f"the {next(iter(asked.values()), words.percent(min_gain))} asked for"
    return f"what is asked for ({', '.join(f'{words.LABELS[metric]} {share}' for metric, share in asked.items())})"


def _gain(found: Interval) -> str:
    """Return a relative gain such as `+1.2 % (-0.5..+2.9)`; one that is counted has no interval."""
    ends = "" if found.low == found.high else f" ({words.points(found.low)}..{words.points(found.high)})"
    return f"{words.points(found.value)} %{ends}"


def latency_of(objectives: Sequence[Objective]) -> Metric:
    """Return the latency metric that the objectives name first; p95 when they name none."""
    return next((each.metric for each in objectives if each.metric in LATENCIES), Metric.LATENCY_P95_MS)


def _metric_list(metrics: Sequence[Metric]) -> str:
    return words.listed([words.LABELS[metric] for metric in metrics])
