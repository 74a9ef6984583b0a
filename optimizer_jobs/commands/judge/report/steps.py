"""What each step of the candidate bought, and what became of every technique that the search could use.

Arithmetic on what search and judge measured; a step that no trial stopped after is said to be unknown, not guessed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from optimizer_jobs.commands.judge.evidence import Contender
from optimizer_jobs.commands.judge.report.document import StepLine, TechniqueLine
from optimizer_jobs.commands.judge.verdict import Finding
from optimizer_jobs.commands.judge.words import LABELS, listed, value
from optimizer_jobs.errors import printable
from optimizer_jobs.study.trials import TrialRow
from retune.api.objectives import Metric

TEXT_LIMIT = 200
NOTHING = 0.01
"""Relative change below which a step is said to have bought nothing."""
SEARCH_NOISE = 0.10
"""The same for a latency that only the search's short measurement saw."""
ENGINE_ONLY = "engine options only"


@dataclass(frozen=True)
class Told:
    """The metrics that a report tells a trial by."""

    main: Metric
    latency: Metric
    ranked: Sequence[Metric]
    """What the search optimized, the most important first."""


@dataclass(frozen=True)
class Searched:
    """What is left of a search: its trials, and name to reason of techniques and engines that were not in it."""

    trials: Sequence[TrialRow]
    left_out: Mapping[str, str]


def ratios(trial: TrialRow) -> dict[Metric, float]:
    """Return candidate divided by champion for what is no share."""
    champion = trial.result.champion
    return {
        Metric(name): value / champion[name]
        for name, value in trial.result.values.items()
        if not Metric(name).is_share and champion.get(name)
    }


def steps(
    subject: Finding, findings: Sequence[Finding], trials: Sequence[TrialRow], *, latency: Metric
) -> tuple[StepLine, ...]:
    """Return one line per step of the subject, each compared with the last trial that stopped before it.

    `latency` is the metric that speed is told by.
    """
    return tuple(_Chain(subject, findings, trials, latency).lines())


def techniques(
    searched: Searched, *, chosen: int | None, said: Mapping[int, str], told: Told
) -> tuple[TechniqueLine, ...]:
    """Return one line per technique of the run: in the candidate, tried without success, without effect, or left out.

    `chosen` is the candidate's trial, and `said` what the judge said of each finalist, by trial.
    """
    names = dict.fromkeys(name for trial in searched.trials for name in trial.result.steps)
    fates = _Fates(searched.trials, chosen, said, told)
    reasons = {name: reason for name, reason in searched.left_out.items() if name not in names}
    dropped = [fates.line(name, "LeftOut", (), note=f"{reason}.") for name, reason in reasons.items()]
    return (*map(fates.technique, names), *dropped)


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


@dataclass(frozen=True)
class _Chain:
    """The trials that stopped after one, two and more steps of the subject."""

    subject: Finding
    findings: Sequence[Finding]
    trials: Sequence[TrialRow]
    latency: Metric

    def lines(self) -> Iterator[StepLine]:
        """Return what each step changed since the last one that is known."""
        done = self.subject.contender.techniques
        before, unknown = _Reached(None, None, size=1.0, latency=1.0, noise=0.0, judged=True), False
        for count, name in enumerate((ENGINE_ONLY, *done)):
            reached = self._after(done[:count])
            yield _step(name, reached, before, together=unknown)
            before, unknown = (reached, False) if reached else (before, True)

    def _after(self, names: tuple[str, ...]) -> _Reached | None:
        """Return where the fastest measured trial with exactly these steps stands; the subject's own for all."""
        contender = self.subject.contender
        if names == contender.techniques:
            same = [trial for trial in self.trials if trial.number == contender.trial]
        else:
            same = [trial for trial in self.trials if trial.result.techniques == names and ratios(trial)]
        trial = min(same, key=lambda each: (ratios(each).get(self.latency, 1.0), each.number), default=None)
        return self._reached(trial) if trial else None

    def _reached(self, trial: TrialRow) -> _Reached:
        judged = next((each.contender for each in self.findings if each.contender.trial == trial.number), None)
        quality = trial.result.values.get(self.subject.contender.main.value)
        if judged is None:
            found, noise = ratios(trial), SEARCH_NOISE
        else:
            found, noise = {metric: each.value for metric, each in judged.ratios.items()}, self._noise(judged)
        size, latency = found.get(Metric.SIZE_BYTES), found.get(self.latency)
        return _Reached(trial.number, quality, size, latency, noise, judged=judged is not None)

    def _noise(self, judged: Contender) -> float:
        found = judged.ratios[self.latency]
        return max(NOTHING, found.high / found.value - 1, 1 - found.low / found.value)


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
    found = ", ".join(parts) or "Nothing measurable"
    return f"{found}, together with the steps before that were not tried on their own." if together else f"{found}."


def _factor(now: float | None, before: float | None) -> float | None:
    return now / before if now is not None and before else None


@dataclass(frozen=True)
class _Fates:
    """What became of the techniques of a run."""

    trials: Sequence[TrialRow]
    chosen: int | None
    said: Mapping[int, str]
    told: Told

    def technique(self, name: str) -> TechniqueLine:
        """Return the line of a technique that at least one trial had."""
        asked = [trial for trial in self.trials if name in trial.result.steps]
        did = [trial for trial in asked if name not in trial.result.idle]
        measured = [trial for trial in did if trial.result.values]
        used = next((trial for trial in measured if trial.number == self.chosen), None)
        if used is not None:
            return self.line(name, "Used", did, best=used)
        if measured:
            best = min(measured, key=lambda trial: (trial.result.violation, trial.result.costs, trial.number))
            return self.line(name, "Tried", did, best=best, note=self._why(best))
        if did:
            return self.line(name, "Tried", did, note=f"{did[0].result.reason or 'not finished'}.")
        alone = min(asked, key=lambda trial: (len(trial.result.idle), trial.number))
        return self.line(name, "NoEffect", asked, note=f"{'; '.join(alone.result.skipped)}.")

    def line(
        self, name: str, outcome: str, trials: Sequence[TrialRow], *, best: TrialRow | None = None, note: str = ""
    ) -> TechniqueLine:
        """Return a line with the numbers of the best trial, if there is one."""
        found = ratios(best) if best else {}
        return TechniqueLine.model_validate(
            {
                "name": printable(name, limit=TEXT_LIMIT),
                "outcome": outcome,
                "trials": len(trials),
                "trial": best.number if best else None,
                "quality": best.result.values.get(self.told.main.value) if best else None,
                "latency_ratio": found.get(self.told.latency),
                "size_ratio": found.get(Metric.SIZE_BYTES),
                "note": printable(f"{note[:1].upper()}{note[1:]}", limit=TEXT_LIMIT),
            }
        )

    def _why(self, trial: TrialRow) -> str:
        """Return why the best trial with a technique is not the candidate."""
        if trial.number in self.said:
            return f"Judged: {self.said[trial.number]}"
        missed = [LABELS[Metric(name)] for name, amount in trial.result.shortfalls.items() if amount > 0]
        if missed:
            return f"Misses the limit on {listed(missed)}."
        if trial.result.control:
            return "The model is the champion."
        candidate = next((each for each in self.trials if each.number == self.chosen), None)
        return "No finalist." if candidate is None else self._behind(trial, candidate)

    def _behind(self, trial: TrialRow, candidate: TrialRow) -> str:
        """Return by which objective a trial stands behind the candidate, the most important first."""
        costs = zip(self.told.ranked, trial.result.costs, candidate.result.costs, strict=False)
        worse = next((metric for metric, mine, theirs in costs if mine > theirs), None)
        if worse is None:
            return "As good as the candidate in the search, but no finalist."
        shown = [self._shown(worse, each) for each in (trial, candidate)]
        return f"Behind the candidate by {LABELS[worse]}: {shown[0]} against {shown[1]}."

    def _shown(self, metric: Metric, trial: TrialRow) -> str:
        ratio = ratios(trial).get(metric)
        return f"x{ratio:.2f}" if ratio is not None else value(metric, trial.result.values[metric.value])
