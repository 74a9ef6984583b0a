"""The study of a run, in its store, which workers, judge and report read.

A study is never started again from the beginning: a worker that opens it continues after the trials that are finished.
The result of a trial is stored in its user attributes, so that a study can be read without its models.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import optuna
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from optimizer_jobs.seal import Seal
from optimizer_jobs.study.objectives import ranked
from optimizer_jobs.study.storage import open_storage
from retune.api.metrics import Metric
from retune.api.objectives import Objective
from retune.contract.requests import BundleRef

RESULT = "found"
"""User attribute of a trial that holds its `TrialResult` as JSON."""
SEALED = "seal"
"""User attribute of a trial with the seal of its result. A result without it is no candidate."""
NUMBER = "number"
"""User attribute of a trial that holds its number for people, from 1 to the budget."""
KEY = "key"
"""User attribute of a trial with a text that is the same for all trials of the same combination."""
PLAN = "plan"
"""User attribute of a trial that holds its exact combination, as the plan's own key."""
ENDED = "ended"
"""User attribute of a study that says which budget ended it after how many trials, in words without a full stop."""
REJECTED = "this bundle was rolled back before"
"""Reason of a trial that has built a bundle again which must not be rolled out."""
LEFT_OUT = "left_out"
"""User attribute of a study that says why techniques and engines were left out, by name."""
UNCHANGED = "unchanged:"
"""Prefix of the study's user attributes that name trials which ran what an earlier one did, and so do not count."""
LOST = "lost:"
"""Prefix of the study's user attributes that name trials which must not count, with the reason."""


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """The result of a trial. Fields stay empty if the trial ended before they were known."""

    plan: str
    """The combination in words, such as `int8 static MinMax, all graph, 2 threads`."""
    steps: tuple[str, ...] = ()
    """Names of its techniques, as in the spec or the recipe."""
    techniques: tuple[str, ...] = ()
    """What changed the model, in order, with a summary for each step."""
    skipped: tuple[str, ...] = ()
    """Steps that left the model as it was, with the reason."""
    idle: tuple[str, ...] = ()
    """Names of the steps that left the model as it was."""
    broke: tuple[str, ...] = ()
    """Names of the techniques that were at work when one of them raised something."""
    broken: bool = False
    """Whether it was not measured because its answers differ too much from the champion's."""
    one_line: bool = False
    """Whether it is what a user would get in one line: a usual tool on the delivered file, in the usual engine."""
    stopped: bool = False
    """Whether it was ended while it was built, because training fell behind or a budget was spent."""
    engine: dict[str, Any] = field(default_factory=dict)
    runs: str | None = None
    """Digest of what it runs: the same for trials that differ in nothing that has an effect."""
    uri: str | None = None
    digest: str | None = None
    control: bool = False
    """Whether it is the champion itself, measured as a candidate to show the noise; it is never proposed."""
    size_bytes: int | None = None
    agreement: float | None = None
    """Share (0..1) of the proxy rows on which champion and candidate agree."""
    values: dict[str, float] = field(default_factory=dict)
    """By metric, the candidate's value on validation, in the metric's unit."""
    champion: dict[str, float] = field(default_factory=dict)
    """By metric, the champion's value, measured beside the candidate."""
    shortfalls: dict[str, float] = field(default_factory=dict)
    """By metric, how far its limit is missed; 0 or less keeps the limit."""
    errors: dict[str, float] = field(default_factory=dict)
    """By quality metric with a limit, the standard error on validation of the number that the limit applies to."""
    rows: int | None = None
    """Number of validation rows that were measured on."""
    costs: tuple[float, ...] = ()
    """What the study minimizes, in the order of the ranked objectives."""
    reason: str | None = None
    """Why the trial ended early: discarded by the proxy, stopped, nothing new to try, or an error."""

    @property
    def violation(self) -> float:
        """Sum of the relative violations of all limits; 0 when every limit is kept."""
        champion = {name: max(abs(self.champion.get(name, 1.0)), 1e-12) for name in self.shortfalls}
        return sum(max(0.0, missed) / champion[name] for name, missed in self.shortfalls.items())

    @property
    def words(self) -> str:
        """The numbers in words, as in `accuracy 0.981 (-0.002)  p95 x0.42  size x0.26`."""
        return "  ".join(_words(name, value, self.champion.get(name)) for name, value in self.values.items())


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A bundle that the judge may choose."""

    bundle: BundleRef
    trial: int
    """Number of its trial for people."""
    result: TrialResult

    @property
    def feasible(self) -> bool:
        """Whether every limit is kept by the point estimates of the search."""
        return self.result.violation == 0

    @property
    def words(self) -> str:
        """The candidate in one line."""
        return f"{self.result.plan}: {self.result.words}"


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """One line of the report's trials table."""

    number: int
    outcome: str
    """`feasible`, `infeasible`, `discarded`, `failed` or `running`."""
    result: TrialResult
    seconds: float | None
    """How long the trial took; None while it runs."""


def open_study(store: str, run: str, *, create: Sequence[Objective] | None = None) -> optuna.Study:
    """Open the study of a run.

    Args:
        store: URI of the store.
        run: Name of the run.
        create: Objectives of the study, which is created with them if there is none; None never creates it.

    Raises:
        JobError: The store cannot be used, or there is no study and it may not be created.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return study_in(open_storage(store, run, create=create is not None), run, create=create)


def study_in(storage: BaseStorage, run: str, *, create: Sequence[Objective] | None = None) -> optuna.Study:
    """Return what `open_study` does, from an open storage."""
    if create is None:
        return optuna.load_study(study_name=run, storage=storage)
    directions = [StudyDirection.MINIMIZE] * len(ranked(create))
    return optuna.create_study(study_name=run, storage=storage, directions=directions, load_if_exists=True)


def record(result: TrialResult) -> dict[str, Any]:
    """Return a result as it is stored in the trial's user attributes."""
    return asdict(result)


def constrain(trial: Trial, result: TrialResult) -> None:
    """Tell the sampler which limits a trial keeps; call it before the study is told that the trial ended."""
    for name, missed in result.shortfalls.items():
        trial.set_constraint(name, missed)


def read_result(trial: FrozenTrial) -> TrialResult:
    """Return the stored result of a trial, or an empty result if none is stored."""
    stored = dict(trial.user_attrs.get(RESULT, {"plan": ""}))
    for name in ("steps", "techniques", "skipped", "idle", "broke", "costs"):
        stored[name] = tuple(stored.get(name, ()))
    if trial.state is TrialState.FAIL and not stored.get("reason"):
        stored["reason"] = "workers died while they ran it; perhaps the Job needs more memory"
    return TrialResult(**stored)


def number_of(trial: FrozenTrial) -> int:
    """Return a trial's number for people; raises KeyError for a trial that no worker has started."""
    return int(trial.user_attrs[NUMBER])


def counted(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that count against the budget: those that `known` returns and that ran something new."""
    marked = study.user_attrs
    return [
        trial for trial in known(study) if not trial.state.is_finished() or f"{UNCHANGED}{trial.number}" not in marked
    ]


def known(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials from which something is known: all except those handed back or lost with their worker."""
    marked = study.user_attrs
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if not (trial.state is TrialState.FAIL and f"{LOST}{trial.number}" in marked)
    ]


def failures(study: optuna.Study) -> str | None:
    """Return how many trials failed and why the last one failed, as a sentence; None when none failed."""
    trials = counted(study)
    failed = [trial for trial in trials if trial.state is TrialState.FAIL]
    if not failed:
        return None
    return f"{len(failed)} of {len(trials)} trials failed, the last one so: {read_result(failed[-1]).reason}."


def was_rejected(study: optuna.Study) -> bool:
    """Whether some trial has built a bundle again that was rolled back before."""
    return any(read_result(trial).reason == REJECTED for trial in counted(study) if trial.state.is_finished())


def trials_table(study: optuna.Study) -> tuple[TrialRow, ...]:
    """Return every counted trial that a worker has started, in the order of their numbers."""
    rows = [
        TrialRow(
            number=number_of(trial),
            outcome=_outcome(trial),
            result=read_result(trial),
            seconds=trial.duration.total_seconds() if trial.duration else None,
        )
        for trial in counted(study)
        if NUMBER in trial.user_attrs
    ]
    return tuple(sorted(rows, key=lambda row: row.number))


def foreign_trials(study: optuna.Study, seal: Seal) -> int:
    """Return how many complete trials the search that has this seal did not record."""
    complete = (trial for trial in counted(study) if trial.state is TrialState.COMPLETE)
    return sum(not _is_sealed(trial, seal) for trial in complete)


def _is_sealed(trial: FrozenTrial, seal: Seal) -> bool:
    return seal.fits(trial.user_attrs.get(RESULT), trial.user_attrs.get(SEALED))


def candidates(study: optuna.Study, exclude: Sequence[str] = (), *, seal: Seal | None = None) -> list[Candidate]:
    """Return a candidate for each bundle of a complete trial.

    Args:
        study: The study.
        exclude: Digests of bundles that are none.
        seal: Seal of the search that wrote the study: what has another one is left out. None believes everything, for
            readers that measure anew whatever they take from it.
    """
    unique: dict[str, Candidate] = {}
    for trial in counted(study):
        if trial.state is not TrialState.COMPLETE or not (seal is None or _is_sealed(trial, seal)):
            continue
        result = read_result(trial)
        if result.control or result.digest in exclude:
            continue
        if result.digest and result.uri:
            bundle = BundleRef(uri=result.uri, digest=result.digest)
            unique.setdefault(result.digest, Candidate(bundle=bundle, trial=number_of(trial), result=result))
    return list(unique.values())


def _outcome(trial: FrozenTrial) -> str:
    match trial.state:
        case TrialState.COMPLETE:
            return "feasible" if read_result(trial).violation == 0 else "infeasible"
        case TrialState.PRUNED:
            return "discarded"
        case TrialState.FAIL:
            return "failed"
        case _:
            return "running"


def _words(name: str, value: float, champion: float | None) -> str:
    metric = Metric(name)
    label = {Metric.LATENCY_P50_MS: "p50", Metric.LATENCY_P95_MS: "p95", Metric.SIZE_BYTES: "size"}.get(metric, name)
    if not champion:
        return f"{label} {value:.4g}"
    if metric.is_share:
        return f"{label} {value:.3f} ({value - champion:+.3f})"
    return f"{label} x{value / champion:.2f}"
