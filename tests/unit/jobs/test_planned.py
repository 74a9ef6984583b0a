"""A second plan for the calls that come most often: which calls it gets, and when a search may ask for one."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from optuna.trial import FixedTrial

from optimizer_jobs.commands.search.engines import EngineSpace
from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.mix import typical_request
from optimizer_jobs.models.engine import Array, EngineOptions
from optimizer_jobs.models.onnx_file import check_onnx
from optimizer_jobs.models.planned import PlannedSession
from optimizer_jobs.models.runtime import open_model


class Counting:
    """A real session that counts its calls."""

    def __init__(self, model: Path) -> None:
        self._session = open_model(model, EngineOptions())
        self.signature = self._session.signature
        self.calls = 0

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Answer, and count."""
        self.calls += 1
        return self._session.run(inputs)


@pytest.mark.parametrize(("count", "calls"), [(4, (0, 1)), (1, (1, 0)), (5, (1, 0)), (8, (1, 0))])
def test_only_calls_of_the_planned_shape_take_its_plan(delivered: Path, count: int, calls: tuple[int, int]) -> None:
    """All others go to the plan for any shape, as one call: nothing is split or filled up."""
    free, planned = Counting(delivered / "mlp.onnx"), Counting(delivered / "mlp.onnx")
    session = PlannedSession(free, planned, {"x": (4, 64)})
    assert session.run({"x": np.zeros((count, 64), np.float32)})["scores"].shape == (count, 10)
    assert (free.calls, planned.calls) == calls


def test_a_typical_request_has_the_batch_of_the_spec_and_the_shape_of_the_data(
    delivered: Path, splits: dict[str, Rows]
) -> None:
    """The rows are those that the spec's serving part names; the other axes are what the data sets have."""
    signature = check_onnx(delivered / "mlp.onnx")
    assert typical_request(splits["validation"], signature, batch=3) == {"x": (3, 64)}
    fixed = signature.model_copy(
        update={"inputs": tuple(spec.model_copy(update={"shape": (3, 64)}) for spec in signature.inputs)}
    )
    assert typical_request(splits["validation"], fixed, batch=1) == {}


def test_openvino_starts_with_the_plan_and_onnx_runtime_is_not_asked_for_it() -> None:
    """A study's first question to OpenVINO has the plan, as it is nearly always faster; without it is searched too."""
    space = EngineSpace(threads=1, names=("onnxruntime", "openvino"), planned={"x": (1, 64)})
    usual, told = space.defaults()
    assert space.draw(FixedTrial(usual)).planned is None
    assert space.draw(FixedTrial(told)).planned == {"x": (1, 64)}
    assert space.draw(FixedTrial(told | {"engine.shape": "Free"})).planned is None
    assert space.draw(FixedTrial(usual | {"engine.shape": "Typical"})).planned is None
