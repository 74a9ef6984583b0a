"""The search Job: a worker runs trials of a run's study until all workers together have spent the budget.

Every worker gets the same request; its index comes from the Indexed Job. A worker that is started again for the same
run continues the study. A worker that is stopped hands its trial back and exits with a code that gets it restarted.
"""

import os
import shutil
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import optuna
from optuna.trial import Trial, TrialState

from optimizer_jobs.commands.search.budget import Budget
from optimizer_jobs.commands.search.early_stopping import Watch
from optimizer_jobs.commands.search.equivalence import DrawnPlan, Equivalence
from optimizer_jobs.commands.search.estimate import Estimate, estimate
from optimizer_jobs.commands.search.grid import Grid
from optimizer_jobs.commands.search.leases import LEASE_SECONDS, Leases, Worker
from optimizer_jobs.commands.search.leaving import breaking
from optimizer_jobs.commands.search.leftovers import remove_leftovers
from optimizer_jobs.commands.search.measuring import SideBySide
from optimizer_jobs.commands.search.preparation import prepare
from optimizer_jobs.commands.search.progress import Gauges, trial_line
from optimizer_jobs.commands.search.samplers import refuse, replaced, sampler
from optimizer_jobs.commands.search.sharing import POLL_SECONDS, Shared, as_kept, open_shared, require_usable
from optimizer_jobs.commands.search.space import Space
from optimizer_jobs.commands.search.termination import given_up_when, termination_held_back
from optimizer_jobs.commands.search.trial import Bench, Discarded, Unchanged
from optimizer_jobs.commands.search.warm_start import warm_start
from optimizer_jobs.errors import JobError, printable, store_error
from optimizer_jobs.measure.mix import mean_rows, served_mix
from optimizer_jobs.progress import duration_words, say, step
from optimizer_jobs.quota import Room
from optimizer_jobs.seal import study_seal
from optimizer_jobs.study.finalists import finalists
from optimizer_jobs.study.protection import fitted
from optimizer_jobs.study.trials import (
    LEFT_OUT,
    PLAN,
    TrialResult,
    counted,
    number_of,
    read_result,
)
from optimizer_jobs.technique import Params, StoppedEarlyError
from optimizer_jobs.techniques.containment import BrokenTechniqueError
from retune.contract.paths import METRICS_PORT
from retune.contract.requests import SearchRequest
from retune.contract.results import SearchResult

INDEX_VARIABLE = "JOB_COMPLETION_INDEX"
PORT_VARIABLE = "RETUNE_METRICS_PORT"
LEASE_VARIABLE = "RETUNE_LEASE_SECONDS"
_STOPPED = "its worker stopped"


def run(request: SearchRequest) -> SearchResult:
    """Take part in the search of a run until its budget is spent.

    Raises:
        JobError: The store cannot be used, the data or a bundle is unusable, or a technique cannot be used.
    """
    with tempfile.TemporaryDirectory() as scratch:
        return _search(fitted(request), Path(scratch), began=time.time())


def _search(request: SearchRequest, scratch: Path, *, began: float) -> SearchResult:
    worker = Worker(index=int(os.environ.get(INDEX_VARIABLE, "0")))
    refuse(request.search)
    require_usable(request.store)
    removed = remove_leftovers(request)
    step(1, 3, text="opening champion, original and data", about="10 s")
    bench, space, left_out = prepare(request, scratch)
    step(2, 3, text="measuring the champion on validation", about="10 s")
    quality = ", ".join(f"{metric} {value:.4g}" for metric, value in bench.reference.quality.items())
    say(f"champion: {quality}, {bench.reference.size_bytes} bytes")
    study, shared = open_shared(request, lease_seconds=_lease_seconds())
    before = study.user_attrs.get(LEFT_OUT, {})
    if not left_out.items() <= before.items():
        study.set_user_attr(LEFT_OUT, {**before, **left_out})
    search = _Search(request, study, worker, shared=shared, bench=bench, space=space, began=began)
    step(
        3,
        3,
        text=f"{search.trials} trials in all, worker {worker.index}",
        about=search.estimate.words(search.budget.left()),
    )
    search.work()
    shutil.rmtree(bench.kept_steps, ignore_errors=True)
    if bench.elsewhere is not None:
        bench.elsewhere.forget()
    ended = search.budget.spent() if not search.all_done() else None
    return _result(request, as_kept(request, study), ended=ended, removed=removed)


def _lease_seconds() -> float:
    return float(os.environ.get(LEASE_VARIABLE, LEASE_SECONDS))


class _Search:
    """The work of one worker on a study."""

    def __init__(
        self,
        request: SearchRequest,
        study: optuna.Study,
        worker: Worker,
        *,
        shared: Shared,
        bench: Bench,
        space: Space,
        began: float,
    ) -> None:
        self._request, self._study, self._bench, self._space = request, study, bench, space
        self._room, self._told = Room(request.store), set[str]()
        self._equivalence = Equivalence(study, space)
        grid = Grid(space) if request.search.sampler == "Grid" else None
        first = grid.first if grid else _first(request, space)
        self._source: Grid | Space = grid or space
        self.trials = min(request.search.max_trials, len(grid.first)) if grid else request.search.max_trials
        self.estimate = _estimate(request, bench, space, trials=self.trials)
        self.budget = Budget(
            study,
            request.search,
            owner=worker.owner,
            began=began,
            estimated=self.estimate.limit,
            trials=self.trials,
            workers=self.estimate.workers,
        )
        started = len(study.get_trials(deepcopy=False))
        if (words := replaced(request.search, request.objectives)) is not None:
            say(words)
        study.sampler = sampler(request.search, request.objectives, worker=worker.index, started=started)
        self._longest_poll, self._poll = shared.longest_poll, POLL_SECONDS
        self._leases = Leases(
            study,
            worker,
            shared=shared,
            budget=self.trials,
            first=first,
            lease_seconds=_lease_seconds(),
            closed=self.budget.spent,
        )

    def work(self) -> None:
        """Run trials until the budget is spent and no worker runs a trial any more."""
        gauges = Gauges(self._study, self._request.objectives, budget=self.trials)
        with ExitStack() as stack:
            stack.enter_context(gauges.served(int(os.environ.get(PORT_VARIABLE, METRICS_PORT))))
            stack.enter_context(self._leases.alive(also=self.budget.account))
            try:
                while not self._leases.finished():
                    gauges.refresh()
                    self._next_trial()
                gauges.refresh()
            except BaseException:
                with termination_held_back():
                    self._leases.release(_STOPPED)
                raise
        self.budget.account()

    def all_done(self) -> bool:
        """Return whether all trials of the budget are finished."""
        return sum(trial.state.is_finished() for trial in counted(self._study)) >= self.trials

    def _let_go(self) -> None:
        """Have techniques that broke leave the search; say which and why, here and in the study."""
        left, before = self._space.left, self._study.user_attrs.get(LEFT_OUT, {})
        left |= {name: reason for name, reason in breaking(self._study).items() if name not in left}
        new = {name: reason for name, reason in left.items() if name not in before}
        if new:
            self._study.set_user_attr(LEFT_OUT, {**before, **new})
        for name in new.keys() - self._told:
            say(f"technique {name} leaves the search: {new[name]}")
        self._told |= new.keys()

    def _next_trial(self) -> None:
        """Take a trial and run it, or wait a little when none is left. A stopped worker hands its trial back."""
        trial = None
        try:
            with termination_held_back():
                trial = self._leases.take(self._draw, self._fresh)
            if trial is None:
                self._wait()
                return
            self._poll = POLL_SECONDS
            began = time.monotonic()
            result, state, unchanged = self._attempt(trial)
            with termination_held_back():
                then = (self._draw, self._fresh)
                recorded = self._leases.tell(trial, result, state=state, counts=not unchanged, then=then)
                self.budget.account()
                self.budget.first_ended()
                if state is TrialState.COMPLETE and not result.steps:
                    self._pace(time.monotonic() - began)
        except BaseException:
            if trial is not None:
                with termination_held_back():
                    self._leases.hand_back(trial, _STOPPED)
            raise
        line = trial_line(self._leases.number(trial), self.trials, result=result, state=state, unchanged=unchanged)
        say(line if recorded else f"{line}  not recorded: another worker has taken it over")

    def _draw(self, trial: Trial) -> DrawnPlan:
        """Draw a trial's plan and record it, together with the taking of the trial; broken techniques leave first."""
        self._let_go()
        drawn = self._equivalence.draw(trial)
        trial.set_user_attr(PLAN, drawn.exact)
        return drawn

    def _wait(self) -> None:
        """Wait before looking again, longer each time that there is nothing to do, where looking costs something."""
        time.sleep(self._poll)
        self._poll = min(2 * self._poll, self._longest_poll)

    def _pace(self, seconds: float) -> None:
        """Lengthen an estimated budget where the delivered model itself took longer, or fewer workers run."""
        paced = self.estimate.after(seconds, workers=self._leases.workers())
        if self.budget.lengthen(paced.limit):
            asked, run = self.estimate.workers, paced.workers
            few = f", and {run} of {asked} workers run" if run < asked else ""
            may = f"the search may take {duration_words(paced.limit)} now"
            say(f"a trial takes ~{duration_words(seconds)} here{few}: {may}")

    def _fresh(self, tried: set[str]) -> Params | None:
        return self._source.fresh(tried, key=self._equivalence.key)

    def _attempt(self, trial: Trial) -> tuple[TrialResult, TrialState, bool]:
        """Return the result of a trial, how it ended, and whether it ran nothing new.

        A store that cannot be written ends the Job; any other error only the trial.
        """
        try:
            return *self._result_of(trial), False
        except Unchanged as unchanged:
            return unchanged.result, TrialState.PRUNED, True

    def _result_of(self, trial: Trial) -> tuple[TrialResult, TrialState]:
        self._room.require()
        plan, bench = self._space.draw(trial), self._bench
        ended = partial(TrialResult, plan=plan.words, steps=plan.names)
        if self._leases.repeats(trial):
            return ended(reason="every combination has been tried"), TrialState.PRUNED
        rule = self._request.search.early_stopping
        watch = Watch(
            trial,
            self._study,
            rule=rule,
            budget=self.budget,
            enough=bench.enough,
            note=partial(self._leases.note, trial),
            every_seconds=self._longest_poll - POLL_SECONDS,
        )
        try:
            with given_up_when(self.budget.look):
                number = self._leases.number(trial)
                return bench.run(plan, number=number, watch=watch, earlier=self._earlier), TrialState.COMPLETE
        except Unchanged:
            raise
        except Discarded as discarded:
            return discarded.result, TrialState.PRUNED
        except StoppedEarlyError as stopped:
            return ended(reason=str(stopped), stopped=True), TrialState.PRUNED
        except BrokenTechniqueError as broken:
            return ended(reason=str(broken), broke=broken.names), TrialState.FAIL
        except JobError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and store_error(error, uri=bench.candidates_uri) is not None:
                raise
            return ended(reason=printable(f"{type(error).__name__}: {error}", limit=300)), TrialState.FAIL

    def _earlier(self, runs: str) -> int | None:
        """Return the number of a finished trial that runs what has this digest, or None; a grid tries everything."""
        if isinstance(self._source, Grid):
            return None
        with termination_held_back():
            finished = [trial for trial in counted(self._study) if trial.state.is_finished()]
        return next((number_of(trial) for trial in finished if read_result(trial).runs == runs), None)


def _estimate(request: SearchRequest, bench: Bench, space: Space, *, trials: int) -> Estimate:
    """Return how long the search will take, from how fast the champion answers."""
    mix = served_mix(request.serving, bench.original.manifest.signature)
    every_size = bench.reference.seconds / len(bench.validation)
    row_seconds = every_size / len(mix)
    return estimate(
        trials=trials,
        workers=request.search.parallelism,
        techniques=space.techniques,
        row_seconds=every_size,
        bulk_seconds=bench.bulk_seconds() if bench.training else row_seconds,
        latency_seconds=SideBySide.latency_seconds(row_seconds * mean_rows(mix)),
        validation=len(bench.validation),
        training=len(bench.training or ()),
    )


def _first(request: SearchRequest, space: Space) -> tuple[Params, ...]:
    """Return what is tried before sampling begins: the control, the best of earlier runs, and the space's defaults.

    What may bring quality back in seconds comes before all but the control, on top of the best earlier one too.
    """
    control, *defaults = space.first(request.search.max_trials)
    earlier = warm_start(request, space)
    cured = [params for best in earlier[:1] if (params := space.cured(best)) is not None]
    cures = [params for params in defaults if space.is_cure(params)]
    return (control, *cures, *cured, *earlier, *(params for params in defaults if params not in cures))


def _result(request: SearchRequest, study: optuna.Study, *, ended: str | None, removed: str | None) -> SearchResult:
    trials = [trial for trial in counted(study) if trial.state.is_finished()]
    best = finalists(study, request.objectives, count=1, exclude_digests=request.rejected, seal=study_seal())
    words = None
    if best:
        words = best[0].words if best[0].feasible else f"none keeps every limit; the closest is {best[0].words}"
    say(f"search done: {len(trials)} trials{f' ({ended})' if ended else ''}, best: {words or 'none'}")
    return SearchResult(
        spec_hash=request.spec_hash,
        run=request.run,
        trials=len(trials),
        failed=sum(trial.state is TrialState.FAIL for trial in trials),
        best=words,
        ended=ended,
        removed=removed,
    )
