"""Retune's own version of a model: baseline, search and judge as the Jobs run them, told nothing but the objectives."""

import time
from dataclasses import dataclass
from pathlib import Path

from optimizer_jobs import baseline
from optimizer_jobs.data.uris import resolve
from optimizer_jobs.judge import command as judge
from optimizer_jobs.models.bundle import open_bundle
from optimizer_jobs.search import command as search
from retune.api.objectives import Selection
from retune.api.search import EngineName, Search, Serving
from retune.contract.requests import BaselineRequest, JudgeRequest
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
    report: Path


def optimize(
    subject: Subject, *, store: str, threads: int, minutes: float, trials: int, selection: Selection
) -> Outcome:  # fmt: skip
    """Return the outcome of one run within a time budget for the search, told nothing but the objectives."""
    began = time.monotonic()
    first = baseline.run(
        BaselineRequest(
            resource=f"bench/{subject.name}", spec_hash="bench", model=subject.model, data=subject.data,
            serving=SERVING, store=store, threads=threads, seed=SEED,
        )
    )  # fmt: skip
    request = JudgeRequest(
        resource=f"bench/{subject.name}", run=f"{subject.name}-r1", spec_hash="bench", data=subject.data,
        objectives=subject.objectives, selection=selection, serving=SERVING, champion=first.bundle,
        search=Search(max_trials=trials, max_duration=f"{round(minutes * 60)}s", seed=SEED),
        techniques=None, original=first.bundle, store=store, threads=threads, trigger="bench",
    )  # fmt: skip
    search.run(request)
    verdict = judge.run(request)
    chosen = first.bundle
    if verdict.verdict is Verdict.PROMOTE and verdict.candidate:
        chosen = verdict.candidate.bundle
    bundle = open_bundle(chosen.uri, digest=chosen.digest)
    done = ", ".join(bundle.manifest.techniques) or "as delivered"
    options = bundle.manifest.engine
    words = f"{verdict.verdict}: {done}; {options.engine}, {options.threads} threads, {options.precision}"
    return Outcome(
        Made(bundle.model, options), words=words, seconds=time.monotonic() - began, report=resolve(verdict.report).local
    )
