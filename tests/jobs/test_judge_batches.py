"""A whole verdict on requests of two sizes, about a candidate that is as fast at one and much slower at the other.

Times are those of this thread's own CPU, which neighbours on a busy machine do not move.
"""

import shutil
import time
from pathlib import Path

import pytest
from optuna.trial import create_trial

from optimizer_jobs.commands import baseline
from optimizer_jobs.commands.judge import command
from optimizer_jobs.commands.judge.report.document import Report
from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure import latency
from optimizer_jobs.measure.latency import Effort
from optimizer_jobs.models.bundle import make_bundle, open_bundle, publish
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.golden import record as record_golden
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.seal import study_seal
from optimizer_jobs.study.trials import NUMBER, RESULT, SEALED, TrialResult, open_study, record
from retune.contract.requests import BaselineRequest, BundleRef, JudgeRequest
from retune.contract.results import JudgeResult, encode_result

SHORT = Effort(min_rounds=20, max_rounds=400, max_seconds=30, calls_per_block=10)
STORE, RUN = "pvc://retune-artifacts/digits", "digits-1"
ROWS = 256
MARGIN = {"metric": "accuracy", "role": "Constrain", "goal": {"type": "MaxDegradation", "value": "0.05"}}
OBJECTIVES = [MARGIN, {"metric": "latency_p95_ms"}]


def padded(champion: BundleRef, folder: Path, rows: Rows) -> BundleRef:
    """Publish the champion's file as a candidate that computes ROWS rows whatever it is asked."""
    bundle = open_bundle(champion.uri, digest=champion.digest, into=folder / "champion")
    engine = EngineOptions(rows=ROWS)
    made = make_bundle(
        folder / "padded",
        model=bundle.model,
        engine=engine,
        signature=bundle.manifest.signature,
        classes=bundle.manifest.classes,
        techniques=("fixed rows",),
        lineage=bundle.manifest.lineage,
        golden=record_golden(open_model(bundle.model, engine), rows),
    )
    return publish(made, uri=f"{STORE}/runs/{RUN}/candidates")


@pytest.fixture(scope="module")
def verdict(
    delivered: Path, splits: dict[str, Rows], tmp_path_factory: pytest.TempPathFactory
) -> tuple[JudgeResult, Path]:
    """The verdict, and the folder of its report."""
    root, scratch = tmp_path_factory.mktemp("claims"), tmp_path_factory.mktemp("scratch")
    shutil.copytree(delivered, root / "digits")
    (root / "retune-artifacts").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETUNE_CLAIM_ROOT", str(root))
        patch.setattr(latency, "perf_counter_ns", time.thread_time_ns)
        data = {split: {"uri": f"pvc://digits/{split}.npz"} for split in ("training", "validation", "test")}
        serving = {"batches": [{"size": 1}, {"size": ROWS}]}
        shared = {"resource": "demo/digits", "spec_hash": "hash", "data": data, "store": STORE, "threads": 1}
        asked = {**shared, "serving": serving}
        model = {"uri": "pvc://digits/mlp.onnx"}
        champion = baseline.run(BaselineRequest.model_validate({**asked, "model": model})).bundle
        request = JudgeRequest.model_validate(
            {
                **asked,
                "run": RUN,
                "objectives": OBJECTIVES,
                "selection": {},
                "search": {"finalists": 1},
                "champion": champion,
                "original": champion,
                "trigger": "Initial",
                "cpu_limit": 0.5,
            }
        )
        study = open_study(STORE, RUN, create=request.objectives)
        candidate = padded(champion, scratch, splits["validation"])
        trial = TrialResult(
            plan="fixed rows",
            uri=candidate.uri,
            digest=candidate.digest,
            size_bytes=1,
            shortfalls={"accuracy": -0.05},
            errors={"accuracy": 0.001},
            rows=400,
            costs=(0.5,),
        )
        attributes = {RESULT: record(trial), SEALED: study_seal().of(record(trial)), NUMBER: 1}
        study.add_trial(create_trial(values=[0.5], user_attrs=attributes))
        return command.run(request, effort=SHORT), root / "retune-artifacts/digits/runs" / RUN


def test_the_size_that_got_slower_is_in_the_verdict(verdict: tuple[JudgeResult, Path]) -> None:
    """p95 of all requests is that of the large ones and does not change; the sentence has the small ones."""
    result, _ = verdict
    assert "Slower in requests of 1 row (p95 " in result.message
    assert len(encode_result(result)) <= 4096


def test_a_line_for_each_size_is_in_the_result(verdict: tuple[JudgeResult, Path]) -> None:
    """What `retune compare` shows: before, after and ratio at 1 row and at many."""
    lines = {line.name: line for line in verdict[0].comparisons}
    small, large, mixed = (lines[f"latency_p95_ms{at}"] for at in ("@1", f"@{ROWS}", ""))
    assert small.change is not None
    assert large.change is not None
    assert mixed.change is not None
    assert float(small.change.low or 0) > 2
    assert float(large.change.value) < 2
    assert float(mixed.change.value) < 2
    assert float(small.champion.value) < float(large.champion.value)


def test_the_report_has_a_table_of_sizes(verdict: tuple[JudgeResult, Path]) -> None:
    """Both sizes with their shares; the slower one is marked."""
    report = Report.model_validate_json((verdict[1] / "report.json").read_bytes())
    (finalist,) = report.finalists
    assert [(at.size, at.share) for at in finalist.sizes] == [(1, 0.5), (ROWS, 0.5)]
    assert finalist.sizes[0].slower
    assert "Latency by size of the request" in (verdict[1] / "report.html").read_text()


def test_a_container_with_less_cpu_than_threads_is_told(verdict: tuple[JudgeResult, Path]) -> None:
    """The request says what the serving container may use; the verdict says that it is less than what was judged."""
    assert "1 thread was judged, and the serving container may use 0.5 CPU only." in verdict[0].message
