"""Regression and embedding from the delivered file to the verdict: real data, real search, real judge."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optimizer_jobs.commands import baseline
from optimizer_jobs.commands.judge import command
from optimizer_jobs.commands.judge.report.document import Report
from optimizer_jobs.commands.judge.report.render import render
from optimizer_jobs.commands.search import command as search
from optimizer_jobs.errors import JobError
from optimizer_jobs.measure import resources
from optimizer_jobs.measure.latency import Effort
from optimizer_jobs.models.bundle import open_bundle
from optimizer_jobs.models.runtime import open_session
from optimizer_jobs.study.trials import open_study, trials_table
from retune.api.metrics import Metric
from retune.api.model import Task
from retune.contract.requests import BaselineRequest, JudgeRequest, SearchRequest
from retune.contract.results import BaselineResult, JudgeResult, Reason, Verdict, encode_result
from tests.unit.jobs.tasks_for_tests import Delivered, diabetes, save_embedding, save_regression

SHORT = Effort(min_rounds=4, max_rounds=8, max_seconds=30, calls_per_block=10)
STORE, RUN = "pvc://retune-artifacts/models", "run-1"
SMALLER = {"metric": "size_bytes", "tolerance": "0.05"}
TECHNIQUES = [{"name": "graph", "type": "GraphOptimization"}, {"name": "quantize", "type": "Quantization"}]


class Life:
    """A model's way from delivery to verdict, in claims of one test."""

    def __init__(self, delivered: Delivered, root: Path) -> None:
        shutil.copytree(delivered.folder, root / "data")
        (root / "retune-artifacts").mkdir()
        splits = {split: {"uri": f"pvc://data/{split}.npz"} for split in ("training", "validation", "test")}
        self._folder = root / "retune-artifacts/models/runs" / RUN
        self._shared = {"resource": "demo/m", "spec_hash": "hash", "data": splits, "store": STORE, "threads": 1}
        self._model = {"uri": f"pvc://data/{delivered.model}", "task": delivered.task}

    def delivered(self, **changes: Any) -> BaselineResult:
        """Run the baseline Job."""
        request = {**self._shared, "model": {**self._model, **changes}}
        return baseline.run(BaselineRequest.model_validate(request))

    def judged(self, objectives: list[dict[str, Any]], *, trials: int = 5, **changes: Any) -> JudgeResult:
        """Run all three Jobs."""
        original = self.delivered().bundle.model_dump()
        asked = {
            **self._shared,
            "run": RUN,
            "objectives": objectives,
            "selection": {},
            "techniques": TECHNIQUES,
            "search": {"max_trials": trials, "finalists": 2},
            "champion": original,
            "original": original,
            **changes,
        }
        search.run(SearchRequest.model_validate(asked))
        return command.run(JudgeRequest.model_validate({**asked, "trigger": "Initial"}), effort=SHORT)

    @property
    def report(self) -> Report:
        """The report of the run."""
        return Report.model_validate_json((self._folder / "report.json").read_text())


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Delivered], Life]:
    """Return a function that puts what was delivered into claims of its own."""
    root = tmp_path / "claims"
    root.mkdir()
    monkeypatch.setenv("RETUNE_CLAIM_ROOT", str(root))
    monkeypatch.setenv("RETUNE_METRICS_PORT", "0")
    return lambda delivered: Life(delivered, root)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Delivered:
    """A network that predicts the progression of diabetes."""
    return save_regression(tmp_path_factory.mktemp("network"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Delivered:
    """A network that embeds images of digits."""
    return save_embedding(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def shrunk(network: Delivered, tmp_path_factory: pytest.TempPathFactory) -> tuple[JudgeResult, Report]:
    """The verdict on the regression when its error may grow by 1 % and size is ranked, and its report."""
    root = tmp_path_factory.mktemp("claims")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETUNE_CLAIM_ROOT", str(root))
        patch.setenv("RETUNE_METRICS_PORT", "0")
        life = Life(network, root)
        return life.judged([limit("rmse", "PercentMaxDegradation", "1"), SMALLER]), life.report


@pytest.fixture
def few_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resources are measured as always, but for a shorter time."""
    monkeypatch.setattr(resources, "TURNS", 3)


def limit(metric: str, kind: str, value: str) -> dict[str, Any]:
    """Return an objective that only refuses."""
    return {"metric": metric, "role": "Constrain", "goal": {"type": kind, "value": value}}


def numbers(result: BaselineResult) -> dict[str, float]:
    """Return the measured numbers by metric."""
    return {each.name: float(each.value) for each in result.metrics}


def test_a_regression_is_measured_by_its_errors(
    tmp_path_factory: pytest.TempPathFactory, live: Callable[[Delivered], Life]
) -> None:
    """The errors of a ridge regression are those that its answers have on the test split, with an interval each."""
    result = live(save_regression(tmp_path_factory.mktemp("ridge"), linear=True)).delivered()
    X, y = diabetes("test")
    session = open_session(open_bundle(result.bundle.uri, digest=result.bundle.digest))
    (answers,) = session.run({session.signature.inputs[0].name: X}).values()
    missed = answers.reshape(-1) - y

    assert numbers(result)["rmse"] == pytest.approx(np.sqrt(np.mean(missed**2)), rel=1e-3)
    assert numbers(result)["mae"] == pytest.approx(np.mean(np.abs(missed)), rel=1e-3)
    for each in result.metrics[:2]:
        assert each.low is not None
        assert each.high is not None
        assert float(each.low) < float(each.value) < float(each.high)
        assert each.samples == len(y)


def test_an_embedding_is_itself_at_first(encoder: Delivered, live: Callable[[Delivered], Life]) -> None:
    """Version 1 is as near to the model as delivered as can be; no label is needed for that."""
    found = numbers(live(encoder).delivered())

    assert found["cosine"] == pytest.approx(1.0)
    assert found["neighbor_agreement"] == 1.0


def test_a_task_that_does_not_fit_the_outputs_is_refused(
    encoder: Delivered, live: Callable[[Delivered], Life], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """32 numbers a row are no prediction of one; the sentence names the outputs with their shapes."""
    folder = tmp_path_factory.mktemp("labelled")
    for split in ("training", "validation", "test"):
        path = encoder.folder / f"{split}.npz"
        with np.load(path) as arrays:
            rows = arrays["x"]
        np.savez(folder / f"{split}.npz", x=rows, label=np.arange(len(rows)) / 7)
    shutil.copy(encoder.folder / encoder.model, folder / encoder.model)
    labelled = Delivered(folder, encoder.model, Task.REGRESSION)

    with pytest.raises(JobError, match=r"no output answers task Regression .*embedding float32\[\d+, 32\]") as caught:
        live(labelled).delivered()
    assert caught.value.reason is Reason.MODEL_INVALID


def test_a_regression_is_made_smaller_at_equal_error(shrunk: tuple[JudgeResult, Report]) -> None:
    """A quantized network keeps the margin of 1 % of its error, and the report shows where the residuals lie."""
    result, report = shrunk

    assert (result.verdict, result.reason) == (Verdict.PROMOTE, "SmallerAtEqualQuality"), result.message
    assert "at RMSE" in result.message
    assert [each.name for each in result.comparisons[:2]] == ["rmse", "mae"]
    assert report.distribution is not None
    assert report.distribution.what == "residual"
    assert sum(report.distribution.candidate.counts) == len(diabetes("test")[1])
    assert report.classes == ()
    assert any(line.chosen for line in report.margins)
    assert [each.outcome for each in report.techniques if each.name == "quantize"] == ["Used"]


def test_an_error_that_grows_too_much_is_refused(network: Delivered, live: Callable[[Delivered], Life]) -> None:
    """Nothing that is only quantized has half the error: the champion stays, and the sentence names the limit."""
    result = live(network).judged([limit("rmse", "PercentMinImprovement", "50"), SMALLER], trials=3)

    assert (result.verdict, result.reason) == (Verdict.GATE_FAILED, "QualityBelowMargin")
    assert "RMSE" in result.message
    assert "is above the limit of" in result.message


def test_an_embedding_is_made_smaller_and_stays_alike(encoder: Delivered, live: Callable[[Delivered], Life]) -> None:
    """The quantized encoder finds the same neighbours for most rows; similarities and numbers are in the report."""
    life = live(encoder)
    result = life.judged([limit("neighbor_agreement", "Threshold", "0.8"), SMALLER])

    assert (result.verdict, result.reason) == (Verdict.PROMOTE, "SmallerAtEqualQuality"), result.message
    assert "at neighbour agreement 1.0000 →" in result.message
    report = life.report
    assert report.main is Metric.NEIGHBOR_AGREEMENT
    assert report.distribution is not None
    assert report.distribution.what == "similarity"
    assert 0.9 < report.distribution.candidate.mean < 1
    assert len(set(report.distribution.edges)) == len(report.distribution.edges)
    assert sum(report.distribution.candidate.counts) == report.test_rows


@pytest.mark.slow
@pytest.mark.usefixtures("few_turns")
def test_resources_are_measured_when_asked_for_and_only_then(
    network: Delivered, live: Callable[[Delivered], Life]
) -> None:
    """Throughput and memory are in the comparisons, cost is not; the result still fits a termination message."""
    objectives = [
        limit("rmse", "PercentMaxDegradation", "5"),
        SMALLER,
        {"metric": "throughput_rps"},
        {"metric": "peak_memory_bytes"},
    ]
    result = live(network).judged(objectives, trials=2)
    names = {each.name for each in result.comparisons}

    assert {"throughput_rps", "peak_memory_bytes"} < names
    assert "cost_per_1000" not in names
    assert "peak memory" in result.message
    assert len(encode_result(result)) <= 4096


@pytest.mark.slow
@pytest.mark.usefixtures("few_turns")
def test_memory_that_no_process_gets_along_with_refuses_every_candidate(
    network: Delivered, live: Callable[[Delivered], Life]
) -> None:
    """A process with an engine needs more than 16 MiB; the verdict says how much, and search has seen it before."""
    life = live(network)
    result = life.judged([SMALLER], trials=2, serving={"memory": "16Mi"})

    assert (result.verdict, result.reason) == (Verdict.GATE_FAILED, "MemoryAboveLimit")
    assert "more than the 16.8 MB of serving.memory" in result.message
    measured = [each for each in trials_table(open_study(STORE, RUN)) if each.result.values]
    assert measured
    assert all(each.result.shortfalls["peak_memory_bytes"] > 0 for each in measured)


def test_every_task_has_a_page(shrunk: tuple[JudgeResult, Report]) -> None:
    """The page of a regression says so in its own words, and shows steps, techniques and residuals."""
    page = render(shrunk[1])

    assert "Residuals" in page
    assert "Quality by class" not in page
    assert "What became of every technique" in page
    assert page.count("<svg") == 4
