"""What is refused before anything is spent: inputs that are no rows, and models that a later stage cannot use."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.errors import JobError
from optimizer_jobs.machinery.compress.quantization import unreadable
from optimizer_jobs.machinery.formats.delivery import Opened
from optimizer_jobs.models.onnx_file import check_onnx
from optimizer_jobs.preflight.reading import check_chance, with_reading
from optimizer_jobs.preflight.rehearsal import rehearse, techniques
from optimizer_jobs.techniques import pruning
from retune.api.model import Model, Task
from retune.api.techniques import TechniqueType
from retune.contract.results import Reason

URI = "pvc://models/model.onnx"


def rows(labels: np.ndarray | None, **inputs: np.ndarray) -> dict[str, Rows]:
    """Return a test split of these inputs."""
    return {"test": Rows(inputs=inputs, labels=labels, digest="sha256:0")}


def saved(path: Path, nodes: list[onnx.NodeProto], *, width: int = 4, **weights: np.ndarray) -> Opened:
    """Write a graph from `x` (N, width) to `y` (N, 2) and return it as delivered."""
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return Opened(path, check_onnx(path))


def test_a_model_that_takes_one_row_only_is_refused_with_the_size_that_fails(tmp_path: Path) -> None:
    """An exporter that bakes a batch of one into a Reshape leaves a signature that promises any."""
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    opened = saved(tmp_path / "m.onnx", nodes, shape=np.array([1, 4]), w=np.ones((4, 2), np.float32))
    with pytest.raises(JobError, match="a request of 8 rows fails"):
        rehearse(opened, rows(np.arange(8) % 2, x=np.ones((8, 4), np.float32)), uri=URI, task=Task.CLASSIFICATION)


def test_labels_that_the_model_never_answers_are_refused_with_the_numbers(tmp_path: Path) -> None:
    """Right on no row at all means that labels and answers are numbered differently."""
    opened = saved(tmp_path / "m.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], w=np.eye(4, 2, dtype="f4"))
    labels = np.arange(100) % 2
    asked = rows(1 - labels, x=np.eye(4, dtype=np.float32)[labels])
    model = Model(uri=URI)
    with pytest.raises(JobError, match=r"balanced_accuracy 0 \(.*chance is 0.5; roc_auc 0 ") as caught:
        check_chance(with_reading(opened, model, asked["test"]), model, asked)
    assert caught.value.reason is Reason.BASELINE_NOT_BETTER_THAN_CHANCE


@pytest.mark.parametrize(("rises", "told"), [(True, "If it forecasts a quantile"), (False, "Name the right output")])
def test_a_regression_far_from_the_mean_is_told_what_to_do_if_it_forecasts_a_quantile(
    tmp_path: Path, told: str, *, rises: bool
) -> None:
    """Every answer is above its value, and follows it; or is that of another row."""
    opened = saved(tmp_path / "m.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], w=np.eye(4, 2, dtype="f4"))
    values = np.random.default_rng(0).uniform(0, 10, size=(200, 4)).astype(np.float32)
    answered = values + 3.0
    if not rises:
        answered = np.random.default_rng(1).permutation(answered)
    asked = rows(values[:, :2], x=answered.astype(np.float32))
    model = Model(uri=URI, task=Task.REGRESSION)
    with pytest.raises(JobError, match="r2 -") as caught:
        check_chance(with_reading(opened, model, asked["test"]), model, asked)
    assert caught.value.next_step.startswith(told)


def test_answers_that_are_not_finite_are_refused_before_golden_requests_are_written(tmp_path: Path) -> None:
    """JSON has no infinity, so no server could be asked."""
    opened = saved(
        tmp_path / "m.onnx", [helper.make_node("Div", ["x", "zero"], ["y"])], width=2, zero=np.zeros(2, "f4")
    )
    with pytest.raises(JobError, match="8 rows have scores without a value"):
        rehearse(opened, rows(np.arange(8) % 2, x=np.eye(8, 2, dtype="f4") + 1), uri=URI, task=Task.CLASSIFICATION)


def test_a_model_without_labels_may_answer_images(tmp_path: Path) -> None:
    """A detector's map is compared with the delivered model's map, number by number."""
    opened = saved(tmp_path / "m.onnx", [helper.make_node("Reshape", ["x", "s"], ["y"])], s=np.array([-1, 2, 2]))
    rehearse(opened, rows(None, x=np.eye(4, dtype="f4")), uri=URI, task=Task.EMBEDDING)


def test_a_technique_that_breaks_leaves_the_others(
    delivered: Path, splits: dict[str, Rows], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it raises is the reason why it cannot be used."""

    def broken(*_: object) -> str | None:
        raise AttributeError("'NoneType' object has no attribute 'opset_import'")

    monkeypatch.setattr(pruning, "unavailable", broken)
    opened = Opened(delivered / "mlp.onnx", check_onnx(delivered / "mlp.onnx"))
    reasons = techniques(opened, splits, task=Task.CLASSIFICATION)
    assert "AttributeError: 'NoneType'" in (reasons[TechniqueType.PRUNING] or "")
    assert reasons[TechniqueType.QUANTIZATION] is None


def test_a_graph_that_the_quantizer_cannot_read_says_why(tmp_path: Path, delivered: Path) -> None:
    """What its passes raise is said in words, not thrown at a search."""
    assert unreadable(delivered / "mlp.onnx", into=tmp_path) is None
    model = onnx.load(delivered / "mlp.onnx")
    del model.opset_import[:]
    onnx.save(model, tmp_path / "none.onnx")
    assert "quantizer cannot read the graph" in (unreadable(tmp_path / "none.onnx", into=tmp_path) or "")
