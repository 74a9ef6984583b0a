"""The search Job: one worker takes trials of a run's study until the budget is spent, by it or by others.

Every worker gets the same request; its index comes from the Indexed Job. Started again under the same run name, it
goes on where the study stands. Told to stop, it hands its trial back and leaves with a code that gets it restarted.
"""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import onnx
import optuna
from optuna.trial import Trial, TrialState

from optimizer_jobs.compress.registry import Recipe, asked_for, recipe
from optimizer_jobs.data.datasets import read_dataset
from optimizer_jobs.data.uris import resolve
from optimizer_jobs.errors import JobError, printable, store_error
from optimizer_jobs.measure.fingerprint import fingerprint
from optimizer_jobs.models.bundle import Bundle, Lineage, open_bundle
from optimizer_jobs.progress import say, step
from optimizer_jobs.search.claims import LEASE_SECONDS, POLL_SECONDS, Claims, Worker
from optimizer_jobs.search.objectives import limits
from optimizer_jobs.search.progress import Gauges, trial_line
from optimizer_jobs.search.space import Plan, Space, sampler
from optimizer_jobs.search.stop import undisturbed
from optimizer_jobs.search.study import Found, counted, finalists, journal_path, open_study
from optimizer_jobs.search.trial import Bench, Discarded
from retune.api.spec import Technique
from retune.contract.paths import METRICS_PORT, run_folder
from retune.contract.requests import SearchRequest
from retune.contract.results import SearchResult

INDEX_VARIABLE = "JOB_COMPLETION_INDEX"
PORT_VARIABLE = "RETUNE_METRICS_PORT"
LEASE_VARIABLE = "RETUNE_LEASE_SECONDS"
_LIBRARIES = ("onnx", "onnxruntime", "onnxslim")


def run(request: SearchRequest) -> SearchResult:
    """Take part in the run's search until its budget is spent.

    Raises:
        JobError: The store is no shared folder, the data or a bundle is unusable, or a technique cannot be used.
    """
    with tempfile.TemporaryDirectory() as scratch:
        return _search(request, Path(scratch))


def _search(request: SearchRequest, scratch: Path) -> SearchResult:
    worker = Worker(index=int(os.environ.get(INDEX_VARIABLE, "0")))
    journal = journal_path(request.store, request.run)
    step(1, 3, text="opening champion, original and data", about="10 s")
    bench, space = _prepare(request, scratch)
    step(2, 3, text="measuring the champion on validation", about="10 s")
    say(f"champion: accuracy {bench.reference.accuracy:.3f}, {bench.reference.size_bytes} bytes")
    study = open_study(request.store, request.run, create=request.objectives)
    study.sampler = sampler(request.search, worker=worker.index, started=len(study.get_trials(deepcopy=False)))
    claims = Claims(study, worker, journal=journal, budget=request.search.max_trials, first=space.first(),
                    lease_seconds=float(os.environ.get(LEASE_VARIABLE, LEASE_SECONDS)))  # fmt: skip
    step(3, 3, text=f"{request.search.max_trials} trials in all, worker {worker.index}", about="5 s a trial")
    _work(claims, bench, space=space, study=study, request=request)
    shutil.rmtree(bench.kept_steps, ignore_errors=True)
    return _result(request, study)


def _work(claims: Claims, bench: Bench, *, space: Space, study: optuna.Study, request: SearchRequest) -> None:
    gauges = Gauges(study, request.objectives, budget=request.search.max_trials)
    with ExitStack() as stack:
        stack.enter_context(gauges.served(int(os.environ.get(PORT_VARIABLE, METRICS_PORT))))
        stack.enter_context(claims.alive())
        while not claims.finished():
            gauges.refresh()
            _one(claims, bench=bench, space=space, budget=request.search.max_trials)
        gauges.refresh()


def _one(claims: Claims, *, bench: Bench, space: Space, budget: int) -> None:
    """Take a trial and run it to its end, or wait a little when others have the rest; a stop hands it back."""
    trial = None
    try:
        with undisturbed():
            trial = claims.take(space.draw, space.fresh)
        if trial is None:
            time.sleep(POLL_SECONDS)
            return
        found, state = _attempt(claims, trial, bench=bench, plan=space.draw(trial))
        with undisturbed():
            told = claims.tell(trial, found, state=state)
    except BaseException:
        if trial is not None:
            with undisturbed():
                claims.hand_back(trial, "its worker stopped")
        raise
    line = trial_line(claims.number(trial), budget, found=found, state=state)
    say(line if told else f"{line}  not recorded: another worker has taken it over")


def _attempt(claims: Claims, trial: Trial, *, bench: Bench, plan: Plan) -> tuple[Found, TrialState]:
    """Return how a trial ended. A store that cannot be written ends the Job, anything else only the trial."""
    if claims.repeats(trial):
        return Found(plan=plan.words, reason="every combination has been tried"), TrialState.PRUNED
    try:
        return bench.run(plan, number=claims.number(trial)), TrialState.COMPLETE
    except Discarded as discarded:
        return discarded.found, TrialState.PRUNED
    except JobError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and store_error(error, uri=bench.candidates_uri) is not None:
            raise
        reason = printable(f"{type(error).__name__}: {error}", limit=300)
        return Found(plan=plan.words, reason=reason), TrialState.FAIL


def _prepare(request: SearchRequest, scratch: Path) -> tuple[Bench, Space]:
    """Open and check everything that the trials need."""
    original = open_bundle(request.original.uri, digest=request.original.digest, into=scratch / "original")
    champion = open_bundle(request.champion.uri, digest=request.champion.digest, into=scratch / "champion")
    signature = original.manifest.signature
    validation = read_dataset(request.data.validation, signature, into=scratch / "validation")
    source = request.data.calibration or request.data.training
    calibration = read_dataset(source, signature, into=scratch / "calibration") if source else None
    chosen = _techniques(request, original, calibration=calibration is not None)
    folder = run_folder(request.store, request.run)
    flags = frozenset(fingerprint().features)
    data = {"validation": validation.digest} | ({"calibration": calibration.digest} if calibration else {})
    bench = Bench(
        original=original, champion=champion, validation=validation, calibration=calibration,
        objectives=request.objectives, threads=request.threads, seed=request.search.seed, cpu_flags=flags,
        scratch=scratch, kept_steps=resolve(f"{folder}/steps").local, candidates_uri=f"{folder}/candidates",
        rejected=frozenset(request.rejected), lineage=_lineage(request, original, data),
        identity=_identity(request, data),
    )  # fmt: skip
    useful = _useful(bench, chosen)
    return bench, Space(useful, threads=request.threads, calibration=calibration is not None, seed=request.search.seed)


def _techniques(request: SearchRequest, original: Bundle, *, calibration: bool) -> Recipe:
    """Return the techniques that the user lists, or else those that model and data allow."""
    model = onnx.load(original.model, load_external_data=False)
    if request.techniques is None:
        return recipe(model, calibration=calibration)
    return asked_for(model, request.techniques, calibration=calibration)


def _useful(bench: Bench, chosen: Recipe) -> tuple[Technique, ...]:
    """Return the techniques that do anything to this model, having said which they are and what is left out."""
    idle = {spec.name: bench.does_nothing(spec) for spec in chosen.techniques}
    useful = tuple(spec for spec in chosen.techniques if idle[spec.name] is None)
    say(f"techniques: {', '.join(f'{spec.name} ({spec.type})' for spec in useful) or 'none, engine options only'}")
    for name, reason in {**chosen.left_out, **idle}.items():
        if reason is not None:
            say(f"technique {name} is left out: {reason}")
    return useful


def _lineage(request: SearchRequest, original: Bundle, data: Mapping[str, str]) -> Lineage:
    return Lineage(
        resource=request.resource, run=request.run, parent=original.digest,
        original_model=original.manifest.lineage.original_model, data=data, seed=request.search.seed,
        versions={name: version(name) for name in _LIBRARIES},
    )  # fmt: skip


def _identity(request: SearchRequest, data: Mapping[str, str]) -> str:
    """Return the digest of what a step's result depends on besides model, parameters and seed."""
    goals = [objective.to_dict() for objective in limits(request.objectives)]
    parts = [goals, dict(data), request.champion.digest, {name: version(name) for name in _LIBRARIES}]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _result(request: SearchRequest, study: optuna.Study) -> SearchResult:
    trials = [trial for trial in counted(study) if trial.state.is_finished()]
    best = finalists(study, request.objectives, count=1, exclude_digests=request.rejected)
    words = None
    if best:
        words = best[0].words if best[0].feasible else f"none keeps every limit; the closest is {best[0].words}"
    say(f"search done: {len(trials)} trials, best: {words or 'none'}")
    return SearchResult(
        spec_hash=request.spec_hash, run=request.run, trials=len(trials),
        failed=sum(trial.state is TrialState.FAIL for trial in trials), best=words,
    )  # fmt: skip
