"""The study on disk: one journal file per run, read by workers, judge and report.

A study is never started over: whoever opens it finds what others finished. What a trial found lies in its user
attributes as one document, so that a study can be read without the models it speaks of.
"""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from optimizer_jobs.data.uris import resolve
from optimizer_jobs.errors import JobError
from optimizer_jobs.study.objectives import ranked
from retune.api.objectives import Metric, Objective
from retune.contract.paths import run_folder
from retune.contract.requests import BundleRef
from retune.contract.results import Reason

JOURNAL = "study.journal"
FOUND = "found"
"""User attribute of a trial that holds its `Found` as JSON."""
NUMBER = "number"
"""User attribute of a trial that holds its number for people, 1 to the budget."""
KEY = "key"
"""User attribute of a trial that holds the same text as every trial of the same combination."""
PLAN = "plan"
"""User attribute of a trial that holds its combination exactly, as its own key."""
LEFT_OUT = "left_out"
"""User attribute of a study that says why techniques and engines are not in it, by name."""
LOST = "lost:"
"""Prefix of the study's user attributes that name trials which must not count, with the reason."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a trial found. Fields that were not reached are empty."""

    plan: str
    """The combination, in words: `int8 static MinMax, all graph, 2 threads`."""
    steps: tuple[str, ...] = ()
    """Names of the techniques in it, as the spec or the recipe calls them."""
    techniques: tuple[str, ...] = ()
    """What changed the model, in order, one summary a step."""
    skipped: tuple[str, ...] = ()
    """Steps that were asked for and left the model as it was, with the reason."""
    idle: tuple[str, ...] = ()
    """Names of these steps."""
    broken: bool = False
    """Whether it answered so unlike the champion that it was not measured."""
    stopped: bool = False
    """Whether it was ended while it was built: training fell behind, or a budget was spent."""
    engine: dict[str, Any] = field(default_factory=dict)
    uri: str | None = None
    digest: str | None = None
    control: bool = False
    """The champion itself, measured as a candidate: it shows how noisy the numbers are, and is never proposed."""
    size_bytes: int | None = None
    agreement: float | None = None
    """Share of the proxy rows on which champion and candidate agree."""
    values: dict[str, float] = field(default_factory=dict)
    """Metric name to the candidate's number on validation, in the metric's unit."""
    champion: dict[str, float] = field(default_factory=dict)
    """Metric name to the champion's number, measured beside it."""
    shortfalls: dict[str, float] = field(default_factory=dict)
    """Metric name to how far its limit is missed; 0 or less keeps it."""
    errors: dict[str, float] = field(default_factory=dict)
    """Quality metric with a limit to the standard error, on validation, of what the judge holds against the limit."""
    rows: int | None = None
    """Validation rows that these numbers are of."""
    costs: tuple[float, ...] = ()
    """What the study minimized, in the order of the ranked objectives."""
    reason: str | None = None
    """Why the trial ended early: discarded by the proxy, stopped, nothing new to try, or an error."""

    @property
    def violation(self) -> float:
        """Sum of relative limit violations; 0 when every limit is kept."""
        return sum(
            max(0.0, missed) / max(abs(self.champion.get(name, 1.0)), 1e-12) for name, missed in self.shortfalls.items()
        )

    @property
    def words(self) -> str:
        """The numbers in words, as in `accuracy 0.981 (-0.002)  p95 x0.42  size x0.26`."""
        return "  ".join(_words(name, value, self.champion.get(name)) for name, value in self.values.items())


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A bundle that the judge may look at."""

    bundle: BundleRef
    trial: int
    found: Found

    @property
    def feasible(self) -> bool:
        """Whether every limit holds by the point estimates of the search."""
        return self.found.violation == 0

    @property
    def words(self) -> str:
        """The candidate in one line."""
        return f"{self.found.plan}: {self.found.words}"


@dataclass(frozen=True, kw_only=True)
class TrialRow:
    """One line of the report's trials table."""

    number: int
    outcome: str
    """`feasible`, `infeasible`, `discarded`, `failed` or `running`."""
    found: Found
    seconds: float | None


class _Lock(JournalFileOpenLock):
    """The journal's lock, which also cuts off a line that a killed writer left unfinished.

    Without that, the next line would be glued to it and nobody could read the journal again.
    """

    def __init__(self, journal: Path) -> None:
        super().__init__(str(journal))
        self._journal = journal

    def acquire(self) -> bool:
        held = super().acquire()
        if self._journal.exists():
            with self._journal.open("rb+") as file:
                _cut_unfinished_line(file)
        return held


def journal_path(store: str, run: str) -> Path:
    """Return the local path of a run's journal; raises JobError when the store is not a shared folder."""
    location = resolve(f"{run_folder(store, run)}/{JOURNAL}")
    if "file" not in _protocols(location.fs):
        raise JobError(
            reason=Reason.REQUEST_INVALID,
            object=store,
            message="the workers of a search share one journal file, which needs a store that is a shared folder.",
            next_step="Use a pvc:// store.",
        )
    return Path(location.path)


def open_study(store: str, run: str, *, create: Sequence[Objective] | None = None) -> optuna.Study:
    """Open a run's study; `create` gives the objectives of a study that may not exist yet.

    Raises JobError when the store is not a shared folder, or when there is no study and none may be created.
    """
    path = journal_path(store, run)
    if create is None and not path.exists():
        raise JobError(
            reason=Reason.NO_FEASIBLE_CANDIDATE,
            object=f"{run_folder(store, run)}/{JOURNAL}",
            message="the run has no study.",
            next_step="Run the search before the judge.",
        )
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    path.parent.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(path), lock_obj=_Lock(path)))
    if create is None:
        return optuna.load_study(study_name=run, storage=storage)
    return optuna.create_study(
        study_name=run, storage=storage, directions=["minimize"] * len(ranked(create)), load_if_exists=True
    )


def record(found: Found) -> dict[str, Any]:
    """Return what is stored of a trial."""
    return asdict(found)


def constrain(trial: Trial, found: Found) -> None:
    """Tell the sampler which limits a trial keeps; must come before the trial is told."""
    for name, missed in found.shortfalls.items():
        trial.set_constraint(name, missed)


def read_found(trial: FrozenTrial) -> Found:
    """Return what a trial found; a trial without a record has an empty one."""
    stored = dict(trial.user_attrs.get(FOUND, {"plan": ""}))
    for name in ("steps", "techniques", "skipped", "idle", "costs"):
        stored[name] = tuple(stored.get(name, ()))
    if trial.state is TrialState.FAIL and not stored.get("reason"):
        stored["reason"] = "workers died while they ran it; perhaps the Job needs more memory"
    return Found(**stored)


def number_of(trial: FrozenTrial) -> int:
    """Return a trial's number for people; raises KeyError for a trial that nobody has taken yet."""
    return int(trial.user_attrs[NUMBER])


def counted(study: optuna.Study) -> list[FrozenTrial]:
    """Return the trials that count against the budget: all but those handed back or lost with their worker."""
    marked = study.user_attrs
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if not (trial.state is TrialState.FAIL and f"{LOST}{trial.number}" in marked)
    ]


def failures(study: optuna.Study) -> str | None:
    """Return how many trials failed and why the last one did, as a sentence; None when none did."""
    trials = counted(study)
    failed = [trial for trial in trials if trial.state is TrialState.FAIL]
    if not failed:
        return None
    return f"{len(failed)} of {len(trials)} trials failed, the last one so: {read_found(failed[-1]).reason}."


def trials_table(study: optuna.Study) -> tuple[TrialRow, ...]:
    """Return every counted trial that somebody has taken, by number."""
    rows = [
        TrialRow(
            number=number_of(trial),
            outcome=_outcome(trial),
            found=read_found(trial),
            seconds=trial.duration.total_seconds() if trial.duration else None,
        )
        for trial in counted(study)
        if NUMBER in trial.user_attrs
    ]
    return tuple(sorted(rows, key=lambda row: row.number))


def candidates(study: optuna.Study, exclude: Sequence[str] = ()) -> list[Candidate]:
    """Return one candidate per bundle, none of them excluded."""
    unique: dict[str, Candidate] = {}
    for trial in counted(study):
        found = read_found(trial)
        if trial.state is not TrialState.COMPLETE or found.control or found.digest in exclude:
            continue
        if found.digest and found.uri:
            bundle = BundleRef(uri=found.uri, digest=found.digest)
            unique.setdefault(found.digest, Candidate(bundle=bundle, trial=number_of(trial), found=found))
    return list(unique.values())


def _outcome(trial: FrozenTrial) -> str:
    match trial.state:
        case TrialState.COMPLETE:
            return "feasible" if read_found(trial).violation == 0 else "infeasible"
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


def _protocols(filesystem: Any) -> tuple[str, ...]:
    protocol = filesystem.protocol
    return (protocol,) if isinstance(protocol, str) else tuple(protocol)


def _cut_unfinished_line(file: Any) -> None:
    """Truncate after the last newline."""
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return
    file.seek(end - 1)
    if file.read(1) == b"\n":
        return
    file.seek(0)
    file.truncate(file.read(end).rfind(b"\n") + 1)
