"""Robust accuracy from the baseline to the verdict: a real network, search and judge, and a real attack on the rows."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sklearn.ensemble import RandomForestClassifier

from optimizer_jobs.commands import baseline
from optimizer_jobs.commands.judge import command
from optimizer_jobs.commands.judge.report.document import Report
from optimizer_jobs.commands.search import command as search
from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.machinery.robust import attack
from optimizer_jobs.measure.latency import Effort
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.study.trials import open_study, trials_table
from retune.api.metrics import Metric
from retune.api.techniques import Adversarial
from retune.contract.requests import BaselineRequest, JudgeRequest, SearchRequest
from retune.contract.results import JudgeResult, Verdict
from tests.unit.jobs import models_for_tests as models

SHORT = Effort(min_rounds=4, max_rounds=8, max_seconds=30, calls_per_block=10)
STORE = "pvc://retune-artifacts/digits"
SEARCH = {"max_trials": 2, "finalists": 1}
SMALLER = {"metric": "size_bytes", "tolerance": "0.05"}
QUANTIZED = [{"name": "quantize", "type": "Quantization"}]
HARDENED = [{"name": "harden", "type": "AdversarialTraining"}]
CLASSES = tuple(range(10))


def robust(kind: str, value: str) -> dict[str, Any]:
    """Return a limit on robust accuracy."""
    return {"metric": "robust_accuracy", "role": "Constrain", "goal": {"type": kind, "value": value}}


class Digits:
    """The delivered network in claims of its own, measured, with as many runs as are asked for."""

    def __init__(self, delivered: Path, root: Path) -> None:
        shutil.copytree(delivered, root / "digits")
        (root / "retune-artifacts").mkdir()
        self._runs = root / "retune-artifacts/digits/runs"
        data = {split: {"uri": f"pvc://digits/{split}.npz"} for split in ("training", "validation", "test")}
        shared = {"resource": "demo/digits", "spec_hash": "hash", "data": data, "store": STORE, "threads": 1}
        model = {"uri": "pvc://digits/mlp.onnx"}
        champion = baseline.run(BaselineRequest.model_validate({**shared, "model": model})).bundle.model_dump()
        self._asked = {**shared, "selection": {}, "search": SEARCH, "champion": champion, "original": champion}

    def judged(self, run: str, **parts: Any) -> JudgeResult:
        """Search, then judge."""
        request = {**self._asked, "run": run, **parts}
        search.run(SearchRequest.model_validate(request))
        return command.run(JudgeRequest.model_validate({**request, "trigger": "Initial"}), effort=SHORT)

    def report(self, run: str) -> Report:
        """Return the report of a run."""
        return Report.model_validate_json((self._runs / run / "report.json").read_bytes())

    def page(self, run: str) -> str:
        """Return the page of a run."""
        return (self._runs / run / "report.html").read_text()


@pytest.fixture(scope="module")
def digits(delivered: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Digits]:
    """The claims, made once."""
    root = tmp_path_factory.mktemp("claims")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RETUNE_CLAIM_ROOT", str(root))
        patch.setenv("RETUNE_METRICS_PORT", "0")
        yield Digits(delivered, root)


@pytest.fixture(scope="module")
def quantized(digits: Digits) -> JudgeResult:
    """The verdict of run `quantized`: rounding may cost five points of robust accuracy."""
    return digits.judged("quantized", techniques=QUANTIZED, objectives=[robust("MaxDegradation", "0.05"), SMALLER])


def test_a_quantized_network_that_withstands_as_much_is_promoted(digits: Digits, quantized: JudgeResult) -> None:
    """Champion and candidates meet one and the same attack, the one that all can be put to, and it costs accuracy."""
    found = digits.report("quantized")

    assert (quantized.verdict, quantized.reason) == (Verdict.PROMOTE, "SmallerAtEqualQuality"), quantized.message
    assert "robust accuracy" in quantized.message
    assert [each.name for each in quantized.comparisons[:2]] == ["robust_accuracy", "accuracy"]
    assert found.environment.attack == attack.BLACK_BOX
    assert attack.BLACK_BOX in digits.page("quantized")
    assert found.finalists
    for model in (found.champion, *found.finalists):
        assert 0 < model.metrics[Metric.ROBUST_ACCURACY].value < model.metrics[Metric.ACCURACY].value


@pytest.mark.usefixtures("quantized")
def test_the_search_measures_champion_and_candidate_alike() -> None:
    """Every measured trial has both numbers, and what it misses the limit by is the difference between the two."""
    measured = [each.result for each in trials_table(open_study(STORE, "quantized")) if each.result.values]

    assert measured
    for found in measured:
        champion, candidate = found.champion["robust_accuracy"], found.values["robust_accuracy"]
        assert found.shortfalls["robust_accuracy"] == pytest.approx(champion - candidate - 0.05, abs=1e-9)


def test_a_limit_that_nobody_withstands_keeps_the_champion(digits: Digits) -> None:
    """Rounding hardens nothing: a threshold above all of them refuses every candidate by name."""
    result = digits.judged("refused", techniques=QUANTIZED, objectives=[robust("Threshold", "0.999"), SMALLER])

    assert (result.verdict, result.reason) == (Verdict.GATE_FAILED, "QualityBelowMargin")
    assert "robust accuracy" in result.message


@pytest.mark.torch
def test_networks_that_train_are_attacked_by_their_own_gradient(digits: Digits) -> None:
    """A network hardened by adversarial training withstands more of an attack by gradients than the delivered one."""
    pytest.importorskip("torch")
    result = digits.judged("hardened", techniques=HARDENED, objectives=[{"metric": "robust_accuracy"}])
    found = digits.report("hardened")

    assert (result.verdict, found.environment.attack) == (Verdict.PROMOTE, attack.WHITE_BOX), result.message
    gained = found.finalists[0].differences[Metric.ROBUST_ACCURACY]
    assert gained.low > 0


@pytest.mark.torch
def test_one_model_without_gradient_puts_all_to_the_other_attack(
    delivered: Path, splits: dict[str, Rows], tmp_path: Path
) -> None:
    """Numbers of two attacks are never mixed: trees beside a network mean corners for both."""
    pytest.importorskip("torch")
    from skl2onnx import to_onnx

    rows = splits["training"]
    X = rows.inputs["x"]
    forest = RandomForestClassifier(n_estimators=3, max_depth=4, random_state=0).fit(X, rows.answers)
    network, trees = delivered / "mlp.onnx", tmp_path / "trees.onnx"
    trees.write_bytes(to_onnx(forest, X[:1], target_opset=models.OPSET).SerializeToString())

    assert attack.method_for([network]) == attack.WHITE_BOX
    assert attack.method_for([network, trees]) == attack.BLACK_BOX


@pytest.mark.torch
def test_the_gradient_finds_more_than_corners_do(delivered: Path, splits: dict[str, Rows]) -> None:
    """The reason why the two are not compared; neither leaves the box that the settings allow."""
    pytest.importorskip("torch")
    model, rows = delivered / "mlp.onnx", splits["test"]
    session, settings = open_model(model, EngineOptions()), Adversarial()
    right = {
        method: attack.withstood(model, session, rows, method=method, settings=settings, classes=CLASSES, seed=0)
        for method in (attack.WHITE_BOX, attack.BLACK_BOX)
    }

    assert right[attack.WHITE_BOX].mean() < right[attack.BLACK_BOX].mean() < 1
