"""What each step of the candidate changed, and the outcome of every technique that the search could use.

Computed from the measurements of search and judge. If no trial ends with a step, its effect is reported as unknown.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from optimizer_jobs.commands.judge.evidence import Contender
from optimizer_jobs.commands.judge.report.document import StepLine, TechniqueLine
from optimizer_jobs.commands.judge.verdict import Finding
from optimizer_jobs.commands.judge.words import LABELS, listed, value
from optimizer_jobs.errors import printable
from optimizer_jobs.study.trials import TrialRow
from retune.api.metrics import Metric

TEXT_LIMIT = 200
NOTHING = 0.01
"""Relative change below which a step is reported to have changed nothing."""
SEARCH_NOISE = 0.10
"""Relative change of latency that may be noise if only the search has measured it."""
ENGINE_ONLY = "engine options only"


@dataclass(frozen=True)
class ShownMetrics:
    """The metrics that the report shows of a trial."""

    main: Metric
    """The main quality metric."""
    latency: Metric
    ranked: Sequence[Metric]
    """The metrics that the search optimized, the most important first."""


@dataclass(frozen=True)
class Searched:
    """What remains of a search."""

    trials: Sequence[TrialRow]
    left_out: Mapping[str, str]
    """Reason by the name of each technique and engine that was not part of it."""


def ratios(trial: TrialRow) -> dict[Metric, float]:
    """Return candidate divided by champion for every metric that is not a share."""
    champion = trial.result.champion
    return {
        Metric(name): value / champion[name]
        for name, value in trial.result.values.items()
        if not Metric(name).is_share and champion.get(name)
    }


def steps(
    subject: Finding, findings: Sequence[Finding], trials: Sequence[TrialRow], *, latency: Metric
) -> tuple[StepLine, ...]:
    """Return a line for each step of the candidate, compared with the last known step before it.

    Args:
        subject: The candidate.
        findings: All finalists.
        trials: All trials of the search.
        latency: The latency metric that is shown.
    """
    return tuple(_Chain(subject, findings, trials, latency).lines())


def techniques(
    searched: Searched, *, chosen: int | None, judgements: Mapping[int, str], metrics: ShownMetrics
) -> tuple[TechniqueLine, ...]:
    """Return a line for each technique of the run: used, tried without success, without effect, or left out.

    Args:
        searched: What remains of the search.
        chosen: Number of the candidate's trial.
        judgements: Why each finalist was chosen or not, by the number of its trial.
        metrics: The metrics that are shown.
    """
    names = dict.fromkeys(name for trial in searched.trials for name in trial.result.steps)
    outcomes = _Outcomes(searched.trials, chosen, judgements, metrics)
    reasons = {name: reason for name, reason in searched.left_out.items() if name not in names}
    left_out = [outcomes.line(name, "LeftOut", (), note=f"{reason}.") for name, reason in reasons.items()]
    return (*map(outcomes.technique, names), *left_out)


@dataclass(frozen=True)
class _Reached:
    """Quality, size and latency after some steps; ratios to the champion by the judge, or else by the search."""

    trial: int | None
    quality: float | None
    size: float | None
    latency: float | None
    noise: float
    """Relative difference of latency that may be noise."""
    judged: bool
    """Whether the judge measured the ratios."""


@dataclass(frozen=True)
class _Chain:
    """Finds, for each step of the candidate, a trial whose techniques end with this step."""

    subject: Finding
    findings: Sequence[Finding]
    trials: Sequence[TrialRow]
    latency: Metric

    def lines(self) -> Iterator[StepLine]:
        """Yield what each step changed since the last step whose effect is known."""
        done = self.subject.contender.techniques
        before, unknown = _Reached(None, None, size=1.0, latency=1.0, noise=0.0, judged=True), False
        for count, name in enumerate((ENGINE_ONLY, *done)):
            reached = self._after(done[:count])
            yield _step(name, reached, before, together=unknown)
            before, unknown = (reached, False) if reached else (before, True)

    def _after(self, names: tuple[str, ...]) -> _Reached | None:
        """Return what the fastest measured trial with exactly these steps reached, or None without such a trial.

        For all steps of the candidate, it is the candidate's own trial.
        """
        contender = self.subject.contender
        if names == contender.techniques:
            same = [trial for trial in self.trials if trial.number == contender.trial]
        else:
            same = [trial for trial in self.trials if trial.result.techniques == names and ratios(trial)]
        fastest = min(same, key=lambda trial: (ratios(trial).get(self.latency, 1.0), trial.number), default=None)
        return self._reached(fastest) if fastest else None

    def _reached(self, trial: TrialRow) -> _Reached:
        contenders = (finding.contender for finding in self.findings)
        judged = next((contender for contender in contenders if contender.trial == trial.number), None)
        quality = trial.result.values.get(self.subject.contender.main.value)
        if judged is None:
            values, noise = ratios(trial), SEARCH_NOISE
        else:
            values, noise = {metric: ratio.value for metric, ratio in judged.ratios.items()}, self._noise(judged)
        size, latency = values.get(Metric.SIZE_BYTES), values.get(self.latency)
        return _Reached(trial.number, quality, size, latency, noise, judged=judged is not None)

    def _noise(self, judged: Contender) -> float:
        latency = judged.ratios[self.latency]
        return max(NOTHING, latency.high / latency.value - 1, 1 - latency.low / latency.value)


def _step(name: str, reached: _Reached | None, before: _Reached, *, together: bool) -> StepLine:
    shown = printable(name, limit=TEXT_LIMIT)
    if reached is None:
        return StepLine(
            step=shown,
            trial=None,
            judged=False,
            quality=None,
            size_ratio=None,
            latency_ratio=None,
            noise=0.0,
            bought="Not tried on its own: see the next step.",
        )
    return StepLine(
        step=shown,
        trial=reached.trial,
        judged=reached.judged,
        quality=reached.quality,
        size_ratio=reached.size,
        latency_ratio=reached.latency,
        noise=max(reached.noise, before.noise),
        bought=_bought(reached, before, together=together),
    )


def _bought(reached: _Reached, before: _Reached, *, together: bool) -> str:
    """Return what a step changed, in words, without changes that may be noise.

    Args:
        reached: Quality, size and latency after the step.
        before: The same after the last known step before it.
        together: Whether the effect of steps in between is not known on its own.
    """
    noise = max(reached.noise, before.noise)
    changes = (
        (_factor(reached.size, before.size), NOTHING, "smaller", "larger"),
        (_factor(reached.latency, before.latency), noise, "faster", "slower"),
    )
    parts = [
        f"{1 / factor:.2f}x {better}" if factor < 1 else f"{factor:.2f}x {worse}"
        for factor, threshold, better, worse in changes
        if factor is not None and abs(factor - 1) > threshold
    ]
    text = ", ".join(parts) or "Nothing measurable"
    return f"{text}, together with the steps before that were not tried on their own." if together else f"{text}."


def _factor(now: float | None, before: float | None) -> float | None:
    return now / before if now is not None and before else None


@dataclass(frozen=True)
class _Outcomes:
    """The outcomes of the techniques of a run."""

    trials: Sequence[TrialRow]
    chosen: int | None
    judgements: Mapping[int, str]
    metrics: ShownMetrics

    def technique(self, name: str) -> TechniqueLine:
        """Return the line of a technique that at least one trial tried."""
        tried = [trial for trial in self.trials if name in trial.result.steps]
        effective = [trial for trial in tried if name not in trial.result.idle]
        measured = [trial for trial in effective if trial.result.values]
        used = next((trial for trial in measured if trial.number == self.chosen), None)
        if used is not None:
            return self.line(name, "Used", effective, best=used)
        if measured:
            best = min(measured, key=lambda trial: (trial.result.violation, trial.result.costs, trial.number))
            return self.line(name, "Tried", effective, best=best, note=self._why(best))
        if effective:
            return self.line(name, "Tried", effective, note=f"{effective[0].result.reason or 'not finished'}.")
        alone = min(tried, key=lambda trial: (len(trial.result.idle), trial.number))
        return self.line(name, "NoEffect", tried, note=f"{'; '.join(alone.result.skipped)}.")

    def line(
        self, name: str, outcome: str, trials: Sequence[TrialRow], *, best: TrialRow | None = None, note: str = ""
    ) -> TechniqueLine:
        """Return a line with the numbers of the best trial, if there is one."""
        values = ratios(best) if best else {}
        return TechniqueLine.model_validate(
            {
                "name": printable(name, limit=TEXT_LIMIT),
                "outcome": outcome,
                "trials": len(trials),
                "trial": best.number if best else None,
                "quality": best.result.values.get(self.metrics.main.value) if best else None,
                "latency_ratio": values.get(self.metrics.latency),
                "size_ratio": values.get(Metric.SIZE_BYTES),
                "note": printable(f"{note[:1].upper()}{note[1:]}", limit=TEXT_LIMIT),
            }
        )

    def _why(self, trial: TrialRow) -> str:
        """Return why the best trial with a technique is not the candidate."""
        if trial.number in self.judgements:
            return f"Judged: {self.judgements[trial.number]}"
        missed = [LABELS[Metric(name)] for name, amount in trial.result.shortfalls.items() if amount > 0]
        if missed:
            return f"Misses the limit on {listed(missed)}."
        if trial.result.control:
            return "The model is the champion."
        candidate = next((candidate for candidate in self.trials if candidate.number == self.chosen), None)
        return "No finalist." if candidate is None else self._behind(trial, candidate)

    def _behind(self, trial: TrialRow, candidate: TrialRow) -> str:
        """Return the most important objective in which a trial is worse than the candidate, as a sentence."""
        costs = zip(self.metrics.ranked, trial.result.costs, candidate.result.costs, strict=False)
        worse = next((metric for metric, mine, theirs in costs if mine > theirs), None)
        if worse is None:
            return "As good as the candidate in the search, but no finalist."
        mine, theirs = self._shown(worse, trial), self._shown(worse, candidate)
        return f"Behind the candidate by {LABELS[worse]}: {mine} against {theirs}."

    def _shown(self, metric: Metric, trial: TrialRow) -> str:
        ratio = ratios(trial).get(metric)
        return f"x{ratio:.2f}" if ratio is not None else value(metric, trial.result.values[metric.value])
