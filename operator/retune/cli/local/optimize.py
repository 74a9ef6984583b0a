"""One run of a ModelOptimization on this machine: baseline, search, judge, as the operator would start them.

Nothing goes live: the result says how good a winner is and where it lies. A run that was interrupted goes on where it
stood; after a finished one comes the next, which starts from the best combinations of those before.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from retune.api.objects import ModelOptimization, OptimizationRun
from retune.api.status import Outcome
from retune.api.triggers import TriggerReason
from retune.cli.access import AccessError
from retune.cli.local.beside import measuring, working
from retune.cli.local.jobs import Job, job_environment, run
from retune.cli.local.place import Place
from retune.cli.local.progress import Progress
from retune.contract.requests import BaselineRequest, BundleRef, JudgeRequest, SearchRequest
from retune.contract.results import BaselineResult, JudgeResult, Verdict
from retune.plan.hashing import baseline_hash, snapshot, snapshot_hash
from retune.plan.run.requests import asked_of

OUTCOMES = {
    Verdict.PROMOTE: Outcome.RECOMMENDED,
    Verdict.NO_GAIN: Outcome.NO_GAIN,
    Verdict.GATE_FAILED: Outcome.GATE_FAILED,
}
REPORT = "report.json"
"""File in a run's folder that says that the run is finished."""


@dataclass(frozen=True)
class Finished:
    """How a local run ended."""

    run: OptimizationRun
    """The run as the operator would record it."""
    result: JudgeResult
    report: Path
    """Path of the report."""
    bundle: Path | None
    """Folder of the winner; None when the champion stays."""
    kept: Path | None
    """Folder of a candidate that is not proven but was kept, so that a person may accept it."""
    original: Path
    """Folder of the model as delivered."""


def read_manifest(path: Path) -> ModelOptimization:
    """Return the one ModelOptimization in a YAML file, which may hold other objects too.

    Raises:
        AccessError: The file cannot be read, does not hold just one, or has wrong fields, each of which is named.
    """
    try:
        documents = [document for document in yaml.safe_load_all(path.read_text()) if isinstance(document, dict)]
    except (OSError, yaml.YAMLError) as error:
        raise AccessError(f"{path} cannot be read: {error}") from error
    resources = [document for document in documents if document.get("kind") == "ModelOptimization"]
    if len(resources) != 1:
        raise AccessError(f"{path} holds {len(resources)} ModelOptimizations; it must hold one")
    try:
        return ModelOptimization.model_validate(_with_metadata(resources[0]))
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)
        words = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults)
        raise AccessError(f"{path} is no ModelOptimization: {words}") from error


def _with_metadata(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return metadata and spec of a manifest, with what an API server would have added."""
    resource = {key: value for key, value in document.items() if key in {"metadata", "spec"}}
    metadata = {"namespace": "local", "uid": "local", "generation": 1} | resource.get("metadata", {})
    return resource | {"metadata": metadata}


def optimize(resource: ModelOptimization, place: Place, *, threads: int, progress: Progress) -> Finished:
    """Run baseline, search and judge.

    Args:
        resource: What is optimized.
        place: Where its files lie.
        threads: Threads of the serving process.
        progress: Shows what the Jobs print.

    Raises:
        AccessError: A Job failed; the message is its own sentence.
    """
    if resource.spec.data.test is None:
        raise AccessError("there is nothing to judge by: set spec.data.test to a data set that nothing else uses")
    environment = job_environment(place.claims, place.code)
    progress.stage("baseline: checking model and data, measuring the model as delivered", about="30 s")
    with measuring(resource, threads=threads) as more:
        first = Job(_baseline(resource, place, threads), environment={**environment, **more})
        (baseline,) = run([first], heard=progress.heard)
    if not isinstance(baseline, BaselineResult):
        raise AccessError(f"the baseline answered with {baseline.kind}")
    name, earlier = next_run(place)
    common = _common(resource, place, threads=threads, original=baseline.bundle, run=name, earlier=earlier)
    _search(resource, SearchRequest.model_validate(common), environment, progress)
    progress.stage("judge: champion and finalists side by side on the test data", about="1 min")
    judging = JudgeRequest.model_validate(common | {"trigger": "started by hand"})
    with measuring(resource, threads=threads) as more:
        (verdict,) = run([Job(judging, environment={**environment, **more})], heard=progress.heard)
    if not isinstance(verdict, JudgeResult):
        raise AccessError(f"the judge answered with {verdict.kind}")
    return _finished(resource, place, verdict, name, original=baseline.bundle)


def _search(
    resource: ModelOptimization, request: SearchRequest, environment: Mapping[str, str], progress: Progress
) -> None:
    """Run every worker of the search, with the owner's own commands beside each where the spec names some."""
    search = resource.spec.search
    progress.stage(f"search: {search.max_trials} trials", about="5 s to a minute a trial")
    with working(resource, workers=search.parallelism, threads=request.threads) as beside:
        workers = [Job(request, {**environment, **more}, index=number) for number, more in enumerate(beside)]
        run(workers, heard=progress.heard)


def _baseline(resource: ModelOptimization, place: Place, threads: int) -> BaselineRequest:
    spec = resource.spec
    return BaselineRequest(
        resource=resource.key,
        spec_hash=baseline_hash(spec),
        model=spec.model,
        data=spec.data,
        serving=spec.serving,
        store=place.store_uri,
        threads=threads,
        seed=spec.search.seed,
    )


def next_run(place: Place) -> tuple[str, tuple[str, ...]]:
    """Return the run to do, which is the last one if it was not finished, and the finished ones, newest first."""
    done = [name for name in place.runs() if place.local(f"{place.store_uri}/runs/{name}/{REPORT}").exists()]
    last = int(done[-1].rpartition("-r")[2]) if done else 0
    return f"{place.name}-r{last + 1}", tuple(reversed(done))


def _common(
    resource: ModelOptimization, place: Place, *, threads: int, original: BundleRef, run: str, earlier: tuple[str, ...]
) -> dict[str, Any]:
    spec = resource.spec
    return {
        "resource": resource.key,
        "run": run,
        "spec_hash": snapshot_hash(spec),
        **asked_of(spec),
        "champion": original,
        "original": original,
        "warm_start": earlier if spec.search.warm_start else (),
        "store": place.store_uri,
        "threads": threads,
    }


def _finished(
    resource: ModelOptimization, place: Place, result: JudgeResult, name: str, *, original: BundleRef
) -> Finished:
    """Return the run as the operator would record it."""
    status = {
        "outcome": OUTCOMES[result.verdict],
        "message": result.message,
        "comparisons": result.comparisons,
        "candidate_digest": result.candidate.bundle.digest if result.candidate else None,
    }
    spec = {
        "number": int(name.rpartition("-r")[2]),
        "trigger": {"reason": TriggerReason.MANUAL, "message": "started by hand"},
        "spec_generation": 1,
        "spec_hash": result.spec_hash,
        "champion_version": 1,
        "champion_digest": result.champion_digest,
        "snapshot": snapshot(resource.spec),
    }
    metadata = resource.metadata.model_copy(update={"name": name})
    candidate = place.local(result.candidate.bundle.uri) if result.candidate else None
    won = result.verdict is Verdict.PROMOTE
    return Finished(
        run=OptimizationRun.model_validate({"metadata": metadata, "spec": spec, "status": status}),
        result=result,
        report=place.local(result.report),
        bundle=candidate if won else None,
        kept=candidate if candidate is not None and not won and candidate.is_dir() else None,
        original=place.local(original.uri),
    )
