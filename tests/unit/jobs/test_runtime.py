"""Running a bundle: with exactly its own options, and never more threads than allowed."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.engine import EngineError, EngineOptions
from optimizer_jobs.models.ort import session_options
from optimizer_jobs.models.runtime import open_model, open_session


def threads_of_process() -> int:
    """Return how many threads the kernel counts for this process."""
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.parametrize(("name", "share"), [("mlp", 0.95), ("conv", 0.97)])
def test_a_model_answers_real_rows(delivered: Path, splits: dict[str, Rows], name: str, share: float) -> None:
    """All rows of a batch are answered, and a trained model is right on most of them."""
    rows = splits["test"]
    scores = open_model(delivered / f"{name}.onnx", EngineOptions()).run(rows.inputs)["scores"]
    assert scores.shape == (len(rows), 10)
    assert np.mean(scores.argmax(axis=1) == rows.labels) > share


@pytest.mark.parametrize("level", ["disabled", "basic", "extended", "all"])
@pytest.mark.parametrize("spinning", [True, False])
def test_options_change_speed_and_not_answers(
    delivered: Path,
    splits: dict[str, Rows],
    level: str,
    spinning: bool,  # noqa: FBT001
) -> None:
    """Every graph level, threaded or not, gives the same scores up to rounding."""
    options = EngineOptions.model_validate({"graphLevel": level, "spinning": spinning, "threads": 2})
    rows = splits["validation"]
    plain = open_model(delivered / "conv.onnx", EngineOptions()).run(rows.inputs)["scores"]
    np.testing.assert_allclose(
        open_model(delivered / "conv.onnx", options).run(rows.inputs)["scores"], plain, atol=1e-3
    )


def test_options_reach_the_engine() -> None:
    """Threads, spinning and graph level are set, and nothing is left to the number of cores of the node."""
    chosen = session_options(EngineOptions(threads=3, spinning=False, graph_level="basic"), Path("unused"))
    assert chosen.intra_op_num_threads == 3
    assert chosen.inter_op_num_threads == 1
    assert chosen.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert chosen.graph_optimization_level.name == "ORT_ENABLE_BASIC"


@pytest.mark.parametrize(("limit", "extra"), [(None, 3), (8, 3), (2, 1), (1, 0)])
def test_no_more_threads_than_allowed_are_started(make: Callable[..., Bundle], limit: int | None, extra: int) -> None:
    """A bundle for four threads uses what the container may have; the kernel counts the threads."""
    bundle = make(engine=EngineOptions(threads=4, spinning=False))
    before = threads_of_process()
    session = open_session(bundle, threads_limit=limit)
    assert threads_of_process() - before == extra
    assert session.signature == bundle.manifest.signature


def test_an_input_that_does_not_fit_is_an_engine_error(delivered: Path) -> None:
    """The engine's many exceptions come out as one."""
    session = open_model(delivered / "mlp.onnx", EngineOptions())
    for wrong in (np.zeros((1, 63), np.float32), np.zeros((1, 64), np.float64)):
        with pytest.raises(EngineError):
            session.run({"x": wrong})
    with pytest.raises(EngineError):
        session.run({})


def test_the_runtime_is_small_enough_for_a_server() -> None:
    """Importing the runtime brings neither training, nor tables, nor search, nor the ONNX graph library."""
    heavy = "onnx", "pandas", "pyarrow", "sklearn", "scipy", "optuna", "matplotlib", "torch"
    script = f"import optimizer_jobs.models.runtime, sys; print(sorted(set(sys.modules) & {set(heavy)!r}))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
