"""What the optimizer bench says of our versions beside the mark."""

import onnxruntime
import pytest

from optimizer_jobs.measure.stats import Interval
from tests.bench.optimizer.__main__ import engine_words
from tests.bench.optimizer.race import Line, beside_mark

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
