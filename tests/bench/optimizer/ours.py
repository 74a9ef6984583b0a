"""Retune's own version of a model: baseline, search and judge as the Jobs run them, told nothing but the objectives."""

import time
from dataclasses import dataclass

from optimizer_jobs.commands import baseline
from optimizer_jobs.commands.judge import command as judge
from optimizer_jobs.commands.search import command as search
from optimizer_jobs.models.bundle import open_bundle
from optimizer_jobs.study.finalists import finalists
from optimizer_jobs.study.trials import open_study
from retune.api.objectives import Selection
from retune.api.search import Search, Serving
from retune.api.servers import EngineName
from retune.contract.requests import BaselineRequest, BundleRef, JudgeRequest
from retune.contract.results import Verdict
from tests.bench.optimizer.peers import Made
from tests.bench.optimizer.subjects import SEED, Subject

SERVING = Serving(engines=(EngineName.ONNX_RUNTIME, EngineName.OPENVINO))


@dataclass(frozen=True)
class Outcome:
    """What came of it: the winner, or the model as delivered when nothing was better."""

    made: Made
    words: str
    """The verdict and what was done."""
    seconds: float


def optimize(subject: Subject, *, store: str, threads: int, minutes: float, trials: int, judged: bool) -> Outcome:
    """Return the outcome of one run within a time budget for the search, told nothing but the objectives.

    Not judged, it is what the search found best on validation, proven or not.
    """
    began = time.monotonic()
    first = baseline.run(
        BaselineRequest(
            resource=f"bench/{subject.name}",
            spec_hash="bench",
            model=subject.model,
            data=subject.data,
            serving=SERVING,
            store=store,
            threads=threads,
            seed=SEED,
        )
    )
    request = JudgeRequest(
        resource=f"bench/{subject.name}",
        run=f"{subject.name}-r1",
        spec_hash="bench",
        data=subject.data,
        objectives=subject.objectives,
        selection=Selection(),
        serving=SERVING,
        champion=first.bundle,
        search=Search(max_trials=trials, max_duration=f"{round(minutes * 60)}s", seed=SEED),
        techniques=None,
        original=first.bundle,
        store=store,
        threads=threads,
        trigger="bench",
    )
    search.run(request)
    chosen, said = _proven(request) if judged else _best(request)
    bundle = open_bundle(chosen.uri, digest=chosen.digest)
    done, options = ", ".join(bundle.manifest.techniques) or "as delivered", bundle.manifest.engine
    words = f"{said}: {done}; {options.engine}, {options.threads} threads, {options.precision}"
    return Outcome(Made(bundle.model, options), words=words, seconds=time.monotonic() - began)


def _proven(request: JudgeRequest) -> tuple[BundleRef, str]:
    """Return what the judge promotes, or the champion."""
    result = judge.run(request)
    promoted = result.candidate if result.verdict is Verdict.PROMOTE else None
    return (promoted.bundle if promoted else request.champion), str(result.verdict)


def _best(request: JudgeRequest) -> tuple[BundleRef, str]:
    """Return what the search found best, or the champion."""
    best = finalists(open_study(request.store, request.run), request.objectives, count=1)
    return (best[0].bundle, f"trial {best[0].trial}") if best else (request.champion, "nothing found")
