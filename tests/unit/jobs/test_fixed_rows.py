"""An engine that was told how many rows come answers the same, whatever number comes."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from optuna.trial import FixedTrial

from optimizer_jobs.commands.search.engines import EngineSpace
from optimizer_jobs.commands.search.space import Space
from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.engine import EngineError, EngineOptions
from optimizer_jobs.models.fixed import row_axis
from optimizer_jobs.models.golden import check, record
from optimizer_jobs.models.runtime import open_model, open_session
from tests.unit.jobs import models_for_tests as models

every_engine = pytest.mark.parametrize(
    "engine", [pytest.param("onnxruntime"), pytest.param("openvino", marks=pytest.mark.torch)]
)


@pytest.fixture(autouse=True)
def _engine(request: pytest.FixtureRequest) -> None:
    wanted = getattr(request.node, "callspec", None)
    if wanted is not None and wanted.params.get("engine") == "openvino":
        pytest.importorskip("openvino")


@every_engine
@pytest.mark.parametrize("count", [1, 7, 8, 9, 40])
def test_any_number_of_rows_gets_the_same_answers(
    engine: str, count: int, delivered: Path, splits: dict[str, Rows]
) -> None:
    """Fewer rows are filled up, more are split, and what was filled in is never answered."""
    rows = splits["test"].take(slice(0, count))
    told = EngineOptions.model_validate({"engine": engine, "rows": 8})
    plain = open_model(delivered / "conv.onnx", EngineOptions.model_validate({"engine": engine})).run(rows.inputs)
    found = open_model(delivered / "conv.onnx", told).run(rows.inputs)
    assert found["scores"].shape == (count, 10)
    np.testing.assert_allclose(found["scores"], plain["scores"], atol=1e-3)


@every_engine
def test_the_signature_stays_free(engine: str, delivered: Path) -> None:
    """Whoever serves the bundle still takes any number of rows."""
    told = EngineOptions.model_validate({"engine": engine, "rows": 4})
    free = open_model(delivered / "mlp.onnx", EngineOptions.model_validate({"engine": engine}))
    assert open_model(delivered / "mlp.onnx", told).signature == free.signature


def test_golden_requests_of_one_and_more_rows_hold(make: Callable[..., Bundle], splits: dict[str, Rows]) -> None:
    """A bundle with fixed rows proves itself like any other."""
    bundle = make(engine=EngineOptions(rows=3))
    session = open_session(bundle, threads_limit=1)
    recorded = record(session, splits["validation"])
    for request in recorded.requests:
        inputs = {one.name: np.asarray(one.data, np.float32).reshape(one.shape) for one in request.inputs}
        answered = session.run(inputs)
        outputs = [
            {"name": name, "shape": list(each.shape), "data": each.ravel().tolist()} for name, each in answered.items()
        ]
        assert check({"outputs": outputs}, request, golden=recorded) is None


@pytest.mark.parametrize("wrong", [{"x": np.zeros((0, 64), np.float32)}, {}, {"x": np.float32(1)}])
def test_no_rows_are_refused(wrong: dict[str, np.ndarray], delivered: Path) -> None:
    """An empty request is an error of whoever asks, not an endless wait."""
    with pytest.raises(EngineError, match="rows"):
        open_model(delivered / "mlp.onnx", EngineOptions(rows=4)).run(wrong)


def test_a_model_without_a_named_row_axis_is_left_alone(tmp_path: Path) -> None:
    """scikit-learn's converter names no axis: it is not offered, and a bundle that asks for it is refused."""
    network = models.fit_mlp(hidden=8)
    graph = onnx.load(models.save_sklearn(tmp_path / "sklearn.onnx", network))
    assert row_axis(graph) is None
    assert row_axis(onnx.load(models.save_mlp(tmp_path / "mlp.onnx", network))) == "N"
    with pytest.raises(EngineError, match="cannot be fixed"):
        open_model(tmp_path / "sklearn.onnx", EngineOptions(rows=4))


def test_an_axis_that_others_are_tied_to_is_left_alone(tmp_path: Path) -> None:
    """Where the same name stands for another axis too, fixing the rows would fix that one."""
    graph = onnx.load(models.save_mlp(tmp_path / "mlp.onnx", models.fit_mlp(hidden=8)))
    graph.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "N"
    assert row_axis(graph) is None


def test_fixed_rows_are_searched_where_they_can_be() -> None:
    """A study asks, and starts with free rows; a model that cannot be told is not asked about."""
    space = Space((), models.subject(), threads=1, rows=16)
    plain, told = space.first()[0], space.first()[0] | {"engine.shape": "Typical"}
    assert space.draw(FixedTrial(plain)).engine.rows is None
    assert space.draw(FixedTrial(told)).engine.rows == 16
    assert space.draw(FixedTrial(told)).words.endswith("16 rows a call")
    assert all("engine.shape" not in params for params in EngineSpace(threads=1).defaults())


def test_arm_multiplies_bfloat16_where_it_can() -> None:
    """The precision is offered with the processor's flags only, and the model as delivered stays in float32."""
    arm = EngineSpace(threads=1, cpu_flags=frozenset({"asimd", "bf16"}))
    (usual,) = arm.defaults()
    assert arm.draw(FixedTrial(usual)).precision == "float32"
    assert arm.draw(FixedTrial(usual | {"engine.precision": "bfloat16"})).precision == "bfloat16"
    x86 = EngineSpace(threads=1, cpu_flags=frozenset({"avx512_bf16", "bf16"}))
    assert all("engine.precision" not in params for params in x86.defaults())
