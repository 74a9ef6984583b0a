"""The verdict: promote one finalist, or keep the champion, with the reason and the numbers in a few sentences.

Pure: the same evidence and rules give the same verdict. The champion stays unless a finalist passes every limit and
beats it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from optimizer_jobs.commands.judge import words
from optimizer_jobs.commands.judge.evidence import LATENCIES, TIMED, Contender, Evidence, Standing, gain
from optimizer_jobs.commands.judge.gate import Check, Refusal, gate
from optimizer_jobs.commands.judge.selection import Duel, best, duel, judged_objectives, required_gain
from optimizer_jobs.measure.resources import RESOURCES
from optimizer_jobs.measure.stats import Interval
from optimizer_jobs.study.objectives import ranked
from retune.api.metrics import Metric, MetricKind
from retune.api.objectives import GoalType, Objective
from retune.contract.results import Verdict

_CLASSES_TOLD = 3
NOT_WORSE = "NotWorse"
"""Reason of a verdict that a newly delivered model takes the champion's place."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The checks of one finalist's limits, and its comparison with the champion."""

    contender: Contender
    checks: tuple[Check, ...]
    duel: Duel

    @property
    def refusal(self) -> Check | None:
        """The first limit that is not proven to be kept, or None."""
        return next((check for check in self.checks if not check.kept), None)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The verdict with its reason."""

    verdict: Verdict
    reason: str
    """One word in CamelCase, for a condition."""
    message: str
    """A few sentences."""
    subject: Finding | None
    """The finalist that the verdict is about: the winner, or the best one that was not promoted."""
    findings: tuple[Finding, ...]
    """All finalists."""


def decide(
    evidence: Evidence, *, objectives: Sequence[Objective], min_gain: float, delivered: bool = False
) -> Decision:
    """Return the verdict on the finalists.

    Args:
        evidence: All measurements.
        objectives: Objectives of the spec.
        min_gain: Required relative gain of objectives without their own.
        delivered: Whether the finalist is a newly delivered model, which need not gain anything.
    """
    findings = tuple(_finding(contender, evidence, objectives, min_gain) for contender in evidence.contenders)
    if not findings:
        return Decision(
            verdict=Verdict.NO_GAIN,
            reason="NoFinalist",
            subject=None,
            findings=(),
            message="The search found no candidate that differs from the champion; the champion stays.",
        )
    passed = [finding for finding in findings if finding.refusal is None]
    winners = [finding for finding in passed if delivered or finding.duel.wins]
    subject = _best(winners or passed or findings, evidence, objectives)
    verdict = Verdict.PROMOTE if winners else Verdict.NO_GAIN if passed else Verdict.GATE_FAILED
    reason = _reason(verdict, subject, evidence, objectives)
    sentences = _sentences(verdict, subject, evidence, objectives, min_gain)
    if delivered:
        reason = NOT_WORSE if winners else reason
        sentences = _of_delivered(subject, evidence, objectives)
    message = " ".join(sentences)
    return Decision(verdict=verdict, reason=reason, message=message, subject=subject, findings=findings)


def _finding(contender: Contender, evidence: Evidence, objectives: Sequence[Objective], min_gain: float) -> Finding:
    noise, memory = evidence.noise, evidence.memory
    return Finding(
        contender=contender,
        checks=gate(contender, evidence.champion, objectives=objectives, noise=noise, memory=memory),
        duel=duel(contender, evidence, objectives=objectives, min_gain=min_gain),
    )


def why(finding: Finding, decision: Decision, evidence: Evidence) -> str:
    """Return a sentence that says why a finalist was chosen or not."""
    refusal = finding.refusal
    if refusal is not None:
        return _refused(refusal, finding.contender, evidence)
    if decision.verdict is Verdict.PROMOTE and finding is decision.subject:
        if not finding.duel.gains:
            return "Keeps every limit beside the champion."
        return f"Better than the champion by {_metric_list(finding.duel.gains)}."
    if finding.duel.wins:
        return "Better than the champion too, but behind the chosen one."
    if finding.duel.decided_by is not None:
        return f"Worse than the champion by {words.LABELS[finding.duel.decided_by]}."
    return "No objective gains for sure what is asked for."


def _best(findings: Sequence[Finding], evidence: Evidence, objectives: Sequence[Objective]) -> Finding:
    chosen = best([finding.contender for finding in findings], evidence, objectives=objectives)
    return next(finding for finding in findings if finding.contender is chosen)


def _reason(verdict: Verdict, subject: Finding, evidence: Evidence, objectives: Sequence[Objective]) -> str:
    refusal = subject.refusal
    if verdict is Verdict.GATE_FAILED and refusal is not None and refusal.refusal is not None:
        return refusal.refusal.value
    if verdict is Verdict.NO_GAIN:
        timed = any(objective.metric in TIMED for objective in ranked(objectives))
        return "MeasurementUnreliable" if timed and evidence.noise is not None else "NoRelevantGain"
    return _promotion_reason(set(subject.duel.gains))


def _promotion_reason(gains: set[Metric]) -> str:
    """Return the reason of a promotion from the metrics that gain, such as `SmallerAndFasterAtEqualQuality`."""
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
    by_size, noise = _by_size(contender, evidence), _noise(evidence)
    losses = [*_class_losses(contender), *by_size]
    if verdict is Verdict.PROMOTE:
        return [f"{comparison[:1].upper()}{comparison[1:]}.", *losses, *noise]
    if refusal is not None:
        return [
            f"The best finalist ({contender.plan}) is {comparison}.",
            _refused(refusal, contender, evidence),
            *losses,
            *noise,
        ]
    return [_no_gain(subject, evidence, objectives, min_gain), f"It is {comparison}.", *by_size, *noise]


def _of_delivered(subject: Finding, evidence: Evidence, objectives: Sequence[Objective]) -> list[str]:
    """Return the sentences of a verdict on a newly delivered model."""
    contender, refusal = subject.contender, subject.refusal
    comparison = _comparison(subject, evidence, objectives)
    rest = [*_class_losses(contender), *_by_size(contender, evidence), *_noise(evidence)]
    if refusal is None:
        return [f"The delivered model keeps every limit; beside the champion it is {comparison}.", *rest]
    return [f"The delivered model is {comparison}.", _refused(refusal, contender, evidence), *rest]


def _by_size(contender: Contender, evidence: Evidence) -> list[str]:
    """Return sentences about what a mix of requests hides: sizes that are slower, answers that depend on the size."""
    said = []
    slower = [at for at in contender.sizes if at.slower and evidence.noise is None]
    if slower:
        sizes = [
            f"{_rows(at.size)} (p95 {words.milliseconds(at.champion.value)} → {words.milliseconds(at.candidate.value)})"
            for at in slower
        ]
        said.append(f"Slower in requests of {words.listed(sizes)}.")
    if contender.worst_size is not None:
        label = words.LABELS[contender.main]
        said.append(
            "Its answers depend on the rows beside them in a request: "
            f"{label} is that of requests of {_rows(contender.worst_size)}, the worst."
        )
    return said


def _rows(size: int) -> str:
    return f"{size} row{'' if size == 1 else 's'}"


def _class_losses(contender: Contender) -> list[str]:
    """Return a sentence about classes that lose, if any is proven to."""
    if not contender.class_losses:
        return []
    worst = [
        f"{loss.label} ({words.percent(loss.champion)} → {words.percent(loss.candidate)} right of {loss.rows})"
        for loss in contender.class_losses[:_CLASSES_TOLD]
    ]
    more = len(contender.class_losses) - len(worst)
    noun, others = "classes" if len(worst) > 1 else "class", f" and {more} more" if more else ""
    return [f"Worse in {noun} {words.listed(worst)}{others}."]


def _noise(evidence: Evidence) -> list[str]:
    """Return sentences about the noise of the node and about its threads, if there is anything to say."""
    threads = [] if evidence.threads is None else [f"{evidence.threads[:1].upper()}{evidence.threads[1:]}."]
    if evidence.noise is not None:
        return [f"MeasurementUnreliable: {evidence.noise}; latency did not count.", *threads]
    if evidence.doubt is not None:
        return [f"The node was restless: {evidence.doubt}; intervals of latency were widened by as much.", *threads]
    return threads


def _comparison(subject: Finding, evidence: Evidence, objectives: Sequence[Objective]) -> str:
    """Return `3.9x smaller (8.6 MB → 2.2 MB) and p95 1.8x faster at accuracy 0.987 → 0.986 (paired ...)`."""
    contender, champion = subject.contender, evidence.champion
    latency = [latency_of(objectives)] if evidence.noise is None else []
    judged = [objective.metric for objective in judged_objectives(objectives, evidence)]
    resources = [metric for metric in judged if metric in RESOURCES]
    compared = [
        f"{words.LABELS[metric]} {words.compared(metric, contender.ratios[metric])}"
        for metric in (*latency, *resources)
    ]
    parts = [_size_change(contender, champion), *compared]
    main = champion.main
    before, after = (words.value(main, model.metrics[main].value) for model in (champion, contender))
    return f"{words.listed(parts)} at {words.LABELS[main]} {before} → {after} ({_difference(subject)})"


def _size_change(contender: Contender, champion: Standing) -> str:
    """Return `3.9x smaller (8.6 MB → 2.2 MB)`."""
    sizes = f"({words.size(champion.size_bytes)} → {words.size(contender.size_bytes)})"
    change = words.compared(Metric.SIZE_BYTES, contender.ratios[Metric.SIZE_BYTES])
    return f"unchanged in size {sizes}" if change == "unchanged" else f"{change} {sizes}"


def _difference(subject: Finding) -> str:
    contender, main = subject.contender, subject.contender.main
    difference = contender.difference
    allowed = _margin(subject, main)
    limit = "" if allowed is None else f", margin {words.change(main, allowed)}"
    unit = " points" if main.is_share else ""
    value, low, high = (words.change(main, end) for end in (difference.value, difference.low, difference.high))
    return f"paired difference {value}{unit}, {words.percent(contender.confidence)} interval {low}..{high}{limit}"


def _margin(subject: Finding, main: Metric) -> float | None:
    """Return the change of quality that a limit relative to the champion allows, or None without such a limit."""
    contender = subject.contender
    base = contender.metrics[main].value - contender.difference.value
    for check in subject.checks:
        goal = check.objective.goal
        if check.objective.metric is main and goal is not None and goal.type is not GoalType.THRESHOLD:
            return check.limit - base
    return None


def _refused(check: Check, contender: Contender, evidence: Evidence) -> str:
    """Return why a limit is not proven to be kept, and what would help."""
    metric = check.objective.metric
    label, limit, worst = words.LABELS[metric], words.value(metric, check.limit), words.value(metric, check.pessimistic)
    side = "above" if metric.higher_is_better else "below"
    match check.refusal:
        case Refusal.NEARLY_CONSTANT:
            share = words.percent(contender.spread)
            return f"It answers nearly the same for every row: its answers vary by {share} of what the champion's do."
        case Refusal.TOO_FEW_TEST_ROWS:
            needed = f": about {check.rows_needed} are needed" if check.rows_needed else ""
            difference = contender.differences[metric]
            return (
                f"{difference.rows} {difference.unit} cannot show that {label} stays at or {side} {limit} (it may be "
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
    contender, decided_by = subject.contender, subject.duel.decided_by
    if decided_by is not None:
        gained = gain(decided_by, contender, evidence.champion)
        return (
            f"The best finalist that keeps every limit ({contender.plan}) loses to the champion by "
            f"{words.LABELS[decided_by]} (gain {_gain(gained)})."
        )
    judged = judged_objectives(objectives, evidence)
    gains = {objective.metric: gain(objective.metric, contender, evidence.champion) for objective in judged}
    shown = ", ".join(f"{words.LABELS[metric]} {_gain(gained)}" for metric, gained in gains.items())
    return f"No finalist gains {_required(judged, min_gain)}; the best ({contender.plan}): {shown}."


def _required(judged: Sequence[Objective], min_gain: float) -> str:
    """Return the required gain, such as `the 5 % asked for`; if objectives differ, for each of them."""
    required = {objective.metric: words.percent(required_gain(objective, min_gain)) for objective in judged}
    if len(set(required.values())) <= 1:
        return f"the {next(iter(required.values()), words.percent(min_gain))} asked for"
    return f"what is asked for ({', '.join(f'{words.LABELS[metric]} {share}' for metric, share in required.items())})"


def _gain(gained: Interval) -> str:
    """Return a relative gain such as `+1.2 % (-0.5..+2.9)`; an exact number has no interval."""
    ends = "" if gained.low == gained.high else f" ({words.points(gained.low)}..{words.points(gained.high)})"
    return f"{words.points(gained.value)} %{ends}"


def latency_of(objectives: Sequence[Objective]) -> Metric:
    """Return the first latency metric of the objectives; p95 when there is none."""
    named = (objective.metric for objective in objectives if objective.metric in LATENCIES)
    return next(named, Metric.LATENCY_P95_MS)


def _metric_list(metrics: Sequence[Metric]) -> str:
    return words.listed([words.LABELS[metric] for metric in metrics])
