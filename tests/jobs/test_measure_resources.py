"""Memory, CPU time and throughput: properties of the numbers, never their size in seconds."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import helper

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure import resources
from optimizer_jobs.measure.mix import ONE_ROW, only
from optimizer_jobs.measure.resources import Conditions, Served, Usage, measure_resources
from optimizer_jobs.measure.subject_process import load_feeds, save_feeds
from optimizer_jobs.models.runtime import EngineError, EngineOptions
from retune.api.metrics import Metric
from retune.api.search import Serving
from tests.unit.jobs.models_for_tests import save_graph

MEASURED = {
    Metric.THROUGHPUT_RPS,
    Metric.PEAK_MEMORY_BYTES,
    Metric.CPU_SECONDS_PER_1000,
    Metric.ENERGY_JOULES_PER_1000,
    Metric.COST_PER_1000,
}
WIDE = 4_000_000


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A digits model with 16 MB of weights that it really reads."""
    folder, random = tmp_path_factory.mktemp("wide"), np.random.default_rng(0)
    weights = {"w1": random.normal(0, 0.1, (64, WIDE // 64)), "w2": random.normal(0, 0.1, (WIDE // 64, 10))}
    nodes = [helper.make_node("MatMul", ["x", "w1"], ["h"]), helper.make_node("MatMul", ["h", "w2"], ["scores"])]
    return save_graph(folder / "wide.onnx", nodes, weights)


@pytest.fixture(scope="module")
def found(delivered: Path, wide: Path, splits: dict[str, Rows]) -> dict[str, Usage]:
    """A small and a wide model measured side by side."""
    subjects = {"small": Served(delivered / "mlp.onnx", EngineOptions()), "wide": Served(wide, EngineOptions())}
    serving = Serving(watts_per_cpu="20", price_per_cpu_hour="0.36")
    conditions = Conditions(mix=only(4), threads=1, serving=serving, repeats=2, seed=0)
    return measure_resources(subjects, splits["validation"], reference="small", conditions=conditions)


def test_every_number_has_an_interval_and_a_ratio(found: dict[str, Usage]) -> None:
    """Five metrics for each model, each inside its interval, and the reference is exactly itself."""
    for usage in found.values():
        assert set(usage.metrics) == set(usage.ratios) == MEASURED
        for interval in (*usage.metrics.values(), *usage.ratios.values()):
            assert 0 < interval.low <= interval.value <= interval.high
    assert {(one.low, one.value, one.high) for one in found["small"].ratios.values()} == {(1.0, 1.0, 1.0)}


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_plan_for_a_request_is_for_the_inputs_of_the_model_alone(
    engine: str, delivered: Path, splits: dict[str, Rows], tmp_path: Path
) -> None:
    """A model whose inputs are named as those of no other model is measured as it is served, shape planned or not."""
    if engine == "openvino":
        pytest.importorskip("openvino")
    model = onnx.load(delivered / "mlp.onnx")
    model.graph.input[0].name = model.graph.node[0].input[0] = "pixels"
    onnx.save(model, tmp_path / "pixels.onnx")
    rows = Rows(inputs={"pixels": splits["validation"].inputs["x"]}, labels=None, digest="")
    served = Served(tmp_path / "pixels.onnx", EngineOptions(engine=engine, planned={"pixels": (4, 64)}))
    conditions = Conditions(mix=only(4), threads=1, serving=Serving(), repeats=1, seed=0)
    (usage,) = measure_resources({"planned": served}, rows, reference="planned", conditions=conditions).values()
    assert set(usage.metrics) == MEASURED


def test_weights_count_as_memory(found: dict[str, Usage]) -> None:
    """The wide model needs at least its weights more; the small one far less, so the engine itself is not counted."""
    small, wide = (found[name].metrics[Metric.PEAK_MEMORY_BYTES].value for name in ("small", "wide"))
    assert wide >= 4 * (WIDE + WIDE // 64 * 10)
    assert small < wide / 4
    assert found["wide"].process_bytes > wide


def test_a_model_that_computes_more_costs_more(found: dict[str, Usage]) -> None:
    """A hundred times the work shows in CPU time and throughput, beyond any noise."""
    assert found["wide"].ratios[Metric.CPU_SECONDS_PER_1000].low > 1
    assert found["wide"].ratios[Metric.THROUGHPUT_RPS].high < 1


def test_energy_and_cost_are_cpu_time_times_a_factor(found: dict[str, Usage]) -> None:
    """20 W and 0.36 an hour turn CPU seconds into joules and a price."""
    for usage in found.values():
        cpu = usage.metrics[Metric.CPU_SECONDS_PER_1000].value
        assert usage.metrics[Metric.ENERGY_JOULES_PER_1000].value == pytest.approx(20 * cpu)
        assert usage.metrics[Metric.COST_PER_1000].value == pytest.approx(cpu * 0.36 / 3600)


def test_a_model_that_refuses_the_rows_is_named(delivered: Path, splits: dict[str, Rows]) -> None:
    """The engine's words come back from the other process, with the model they are about."""
    rows = splits["test"]
    narrow = Rows(inputs={"x": rows.inputs["x"][:, :63]}, labels=rows.labels, digest=rows.digest)
    subjects = {"candidate": Served(delivered / "mlp.onnx", EngineOptions())}
    conditions = Conditions(mix=ONE_ROW, threads=1, serving=Serving(), repeats=1, seed=0)
    with pytest.raises(EngineError, match=r"candidate: [\s\S]*64"):
        measure_resources(subjects, narrow, reference="candidate", conditions=conditions)


def test_a_process_that_is_killed_is_told() -> None:
    """A candidate that the kernel ends for lack of memory is a finding, not a hang."""
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as child:
        child.send_signal(signal.SIGKILL)
        with pytest.raises(EngineError, match=r"candidate: .* -9, most likely for lack of memory"):
            resources._Process("candidate", child).ask({"seconds": 1})


@given(arrays.arrays(np.float64, st.integers(2, 30), elements=st.floats(1e-6, 1e6)), st.floats(0.5, 0.99))
def test_intervals_hold_their_estimate_and_widen_with_confidence(values: np.ndarray, confidence: float) -> None:
    """More confidence is never a narrower interval."""
    narrow, wide = resources._mean(values, confidence), resources._mean(values, confidence + 0.005)
    assert wide.low <= narrow.low <= narrow.value <= narrow.high <= wide.high


def test_text_and_numbers_survive_the_way_to_the_process(tmp_path: Path) -> None:
    """Requests arrive as they were, text included, without pickled objects."""
    feeds = [
        {"a/b": np.array([["x"], ["yz"]], dtype=object), "n": np.array([[1], [number]], np.int64)} for number in (2, 3)
    ]
    save_feeds(tmp_path / "feeds.npz", feeds, ["a/b", "n"])
    for given_feed, feed in zip(feeds, load_feeds(tmp_path / "feeds.npz", ["a/b", "n"]), strict=True):
        for name, values in given_feed.items():
            assert feed[name].dtype == values.dtype
            np.testing.assert_array_equal(feed[name], values)
