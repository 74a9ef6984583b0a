"""What the optimizer bench says of our versions beside the mark."""

import numpy as np
import onnxruntime
import pytest
from skl2onnx import to_onnx
from sklearn.ensemble import GradientBoostingRegressor

from optimizer_jobs.measure.stats import Interval
from tests.bench.optimizer.__main__ import engine_words
from tests.bench.optimizer.race import Line, beside_mark
from tests.bench.optimizer.trees import forms, missing, opening
from tests.unit.jobs.trees_for_tests import answered

MARK = "NNCF"


def line(name: str, *ratios: tuple[float, float], size: float = 0.26) -> Line:
    """Return a version with an interval of its latency for each shape."""
    return Line(
        name, {}, [Interval(value=(low + high) / 2, low=low, high=high, samples=20) for low, high in ratios], size, None
    )


@pytest.mark.parametrize(
    ("mine", "standing"),
    [
        (line("ours", (0.20, 0.25), (0.29, 0.31)), "beats"),
        (line("ours", (0.28, 0.33), (0.29, 0.31)), "as good as"),
        (line("ours", (0.20, 0.25), (0.33, 0.35)), "behind"),
        (line("ours", (0.20, 0.25), (0.29, 0.31), size=0.5), "behind"),
    ],
)
def test_beaten_means_faster_somewhere_and_worse_nowhere(mine: Line, standing: str) -> None:
    """Intervals that overlap are no difference, and neither a larger file nor one slow shape is made up for."""
    mark = line(MARK, (0.29, 0.31), (0.29, 0.31))
    assert beside_mark([mark, mine], MARK, ours=("ours",)) == [f"ours: {standing} {MARK}"]


def test_without_a_mark_nothing_is_said() -> None:
    """A peer that failed has no latency to stand beside."""
    assert beside_mark([line("ours", (0.2, 0.3)), line(MARK)], MARK, ours=("ours",)) == []


def test_trees_are_not_measured_with_a_slow_engine_unnoticed() -> None:
    """The bench names the version of ONNX Runtime, and warns of one that is slow at trees where it measures some."""
    assert (
        engine_words(["digits-net"], "1.32.0") == engine_words(["boosted-trees"], "1.32.0") == ["ONNX Runtime 1.32.0"]
    )
    assert engine_words(["digits-net"], "1.23.2") == ["ONNX Runtime 1.23.2"]
    (version, warning) = engine_words(["digits-net", "boosted-trees"], "1.23.2")
    assert version == "ONNX Runtime 1.23.2"
    assert "slow at trees" in warning
    assert engine_words([]) == [f"ONNX Runtime {onnxruntime.__version__}"]


def test_trees_are_not_measured_with_an_engine_that_cannot_run_them() -> None:
    """The installed one runs version 5 of the operator; one that does not is named, with what to do."""

    def refused(_: object) -> None:
        raise RuntimeError("ai.onnx.ml opset 5 is under development")

    assert missing() is None
    words = missing(refused)
    assert words is not None
    assert words.startswith(
        f"ONNX Runtime {onnxruntime.__version__} does not run operator TreeEnsemble of ai.onnx.ml 5"
    )
    assert "opset 5 is under development" in words


def test_trees_compare_floats_and_nothing_shorter() -> None:
    """What docs/techniques.md says of thresholds in few bits; a version that takes more asks for new measurements."""
    opened = {kind: {dtype for dtype, opens in by_type.items() if opens} for kind, by_type in opening().items()}
    assert opened == {
        "TreeEnsemble": {"float32", "float64"},
        "TreeEnsembleRegressor": {"float32", "float64"},
        "TreeEnsembleClassifier": {"float32", "float64", "int64", "int32"},
    }


def test_bins_answer_as_the_numbers_did() -> None:
    """Whole numbers in place of thresholds, beforehand or in the graph, are the same trees."""
    X = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    trees = GradientBoostingRegressor(n_estimators=5, random_state=0).fit(X, X[:, 0] * X[:, 1])
    made = forms(to_onnx(trees, X[:1], target_opset={"": 18, "ai.onnx.ml": 3}), X)
    assert len(made) == 6
    answers = [answered(form.model, {form.model.graph.input[0].name: form.rows}) for form in made.values()]
    one, *others = [values for values in answers if values.dtype.kind == "f"]
    assert len(others) == 4
    assert all(np.allclose(one, other, atol=1e-6) for other in others)
