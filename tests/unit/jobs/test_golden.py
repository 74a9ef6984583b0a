"""Golden requests tell a server that runs the bundle from one that does not."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.models import golden as golden_module
from optimizer_jobs.models.engine import EngineError, EngineOptions
from optimizer_jobs.models.golden import Golden, GoldenRequest, check, record, replay
from optimizer_jobs.models.runtime import open_model
from tests.unit.jobs.models_for_tests import save_graph
from tests.unit.jobs.served_for_tests import KINDS, bundle_of


@pytest.fixture
def golden(delivered: Path, splits: dict[str, Rows]) -> Golden:
    """Golden requests of the converted estimator: an integer output and a float output."""
    session = open_model(delivered / "sklearn.onnx", EngineOptions())
    rows = splits["validation"]
    return record(session, Rows(inputs={"X": rows.inputs["x"]}, labels=rows.labels, digest=rows.digest))


def answer(request: GoldenRequest) -> dict[str, Any]:
    """Return the answer of a server that gives exactly what was recorded, through JSON as on the wire."""
    outputs = [tensor.model_dump(mode="json") for tensor in request.outputs]
    decoded: dict[str, Any] = json.loads(json.dumps({"model_name": "digits", "outputs": outputs}))
    return decoded


def test_requests_have_the_form_of_the_protocol(golden: Golden, splits: dict[str, Rows]) -> None:
    """Name, shape, datatype and flat data of each input; inputs are the real rows, unrounded."""
    body = golden.requests[0].body()["inputs"][0]
    assert (body["name"], body["shape"], body["datatype"]) == ("X", [1, 64], "FP32")
    np.testing.assert_array_equal(np.float32(body["data"]), splits["validation"].inputs["x"][0])
    assert [tensor.datatype for tensor in golden.requests[0].outputs] == ["INT64", "FP32"]


def test_requests_survive_their_file(golden: Golden) -> None:
    """Whole numbers stay whole, and floats are the same floats."""
    assert Golden.model_validate_json(golden.model_dump_json(by_alias=True)) == golden


def test_the_recorded_answer_is_accepted(golden: Golden) -> None:
    """So are nested data and differences within the tolerance."""
    for request in golden.requests:
        given = answer(request)
        assert check(given, request, golden=golden) is None
        scores = given["outputs"][1]
        scores["data"] = [[value + 0.0005 for value in scores["data"]]]
        assert check(given, request, golden=golden) is None


def test_a_session_is_asked_as_a_server_would_be(tmp_path: Path) -> None:
    """A missing number, texts, and an output that is a single number are what they were."""
    for kind in KINDS:
        bundle = bundle_of(kind, tmp_path / kind)
        session, (request,) = open_model(bundle.model, EngineOptions(spinning=False)), bundle.golden.requests
        assert replay(session, request, golden=bundle.golden) is None
        other = request.outputs[-1]
        changed = other.model_copy(update={"data": (17, *other.data[1:])})
        wrong = request.model_copy(update={"outputs": (*request.outputs[:-1], changed)})
        assert f"output {other.name!r} is" in (replay(session, wrong, golden=bundle.golden) or "")


def test_another_model_is_found_out(golden: Golden, delivered: Path, splits: dict[str, Rows]) -> None:
    """Two models that are both right on most rows still answer differently."""
    mlp, conv = (
        record(open_model(delivered / f"{name}.onnx", EngineOptions()), splits["validation"])
        for name in ("mlp", "conv")
    )
    reasons = [check(answer(conv.requests[i]), mlp.requests[i], golden=mlp) for i in range(len(mlp.requests))]
    assert any(reasons)
    assert golden.requests


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda given: given.pop("outputs"), "no list of outputs"),
        (lambda given: given.update(outputs=[1, None, {"name": 3}]), "'label' is missing"),
        (lambda given: given["outputs"][0].pop("data"), "has no data"),
        (lambda given: given["outputs"][0].update(data=[-1]), "'label' is -1"),
        (lambda given: given["outputs"][1].update(data=[0.0] * 9), "not the expected 10 values"),
        (lambda given: given["outputs"][1].update(data=[[0.5] * 1000] * 1000), "not the expected 10 values"),
        (lambda given: given["outputs"][1].update(data=["x"] * 10), "is 'x'"),
        (lambda given: given["outputs"][1].update(data=[float("nan")] * 10), "is nan"),
    ],
)
def test_a_wrong_answer_is_described(golden: Golden, change: Any, reason: str) -> None:
    """Whatever is wrong with an answer, the reason says where."""
    given = answer(golden.requests[0])
    change(given)
    found = check(given, golden.requests[0], golden=golden)
    assert found is not None
    assert reason in found


def test_few_rows_and_large_inputs_give_fewer_requests(delivered: Path, splits: dict[str, Rows]) -> None:
    """Requests are spread over the rows that there are."""
    session = open_model(delivered / "mlp.onnx", EngineOptions())
    assert len(record(session, splits["test"].take(slice(0, 3))).requests) == 3
    assert len(record(session, splits["test"], count=5).requests) == 5


def test_requests_have_the_sizes_that_serve(
    delivered: Path, splits: dict[str, Rows], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes come in turn; where their numbers are too many, they are cut, and each still comes."""
    session, rows = open_model(delivered / "mlp.onnx", EngineOptions()), splits["test"]

    def sizes(*wanted: int) -> list[int]:
        return [request.inputs[0].shape[0] for request in record(session, rows, sizes=wanted).requests]

    assert sizes(1, 32) == [1, 32] * 4
    assert sizes(100_000) == [len(rows)]
    monkeypatch.setattr(golden_module, "_NUMBERS_LIMIT", 64 * 40)
    assert sizes(1, 32) == [1, 20, 1]


def test_a_fixed_batch_is_kept(tmp_path: Path, splits: dict[str, Rows]) -> None:
    """A model for four rows a call is asked with four rows."""
    node = helper.make_node("Gemm", ["x", "w"], ["scores"])
    path = save_graph(tmp_path / "four.onnx", [node], {"w": np.eye(64, 10)}, batch=4)
    requests = record(open_model(path, EngineOptions()), splits["test"]).requests
    assert {request.inputs[0].shape for request in requests} == {(4, 64)}


def _with_missing(rows: Rows, *, everywhere: bool) -> Rows:
    """Return the rows with one number missing in each of them, or in half of them."""
    X = rows.inputs["x"].copy()
    step = 1 if everywhere else 2
    X[::step, 5] = np.nan
    return Rows(inputs={"x": X}, labels=rows.labels, digest=rows.digest)


@pytest.fixture
def imputing(tmp_path: Path) -> Path:
    """A model that takes missing numbers for zero."""
    nodes = [
        helper.make_node(
            "Imputer", ["x"], ["full"], domain="ai.onnx.ml", imputed_value_floats=[0.0], replaced_value_float=np.nan
        ),
        helper.make_node("Gemm", ["full", "w"], ["scores"]),
    ]
    return save_graph(tmp_path / "imputing.onnx", nodes, {"w": np.eye(64, 10)})


def test_rows_without_missing_values_are_preferred(imputing: Path, splits: dict[str, Rows]) -> None:
    """A server that cannot read null is asked without it, where there are such rows."""
    recorded = record(open_model(imputing, EngineOptions()), _with_missing(splits["test"], everywhere=False))
    assert not any(None in request.inputs[0].data for request in recorded.requests)


def test_missing_numbers_are_null_where_every_row_has_some(imputing: Path, splits: dict[str, Rows]) -> None:
    """The requests are valid JSON, survive their file, and ask the session what was recorded."""
    session = open_model(imputing, EngineOptions())
    recorded = record(session, _with_missing(splits["test"], everywhere=True))
    assert Golden.model_validate_json(recorded.model_dump_json(by_alias=True)) == recorded
    for request in recorded.requests:
        (tensor,) = json.loads(json.dumps(request.body(), allow_nan=False))["inputs"]
        assert tensor["data"][5] is None
        asked = np.asarray(tensor["data"], dtype=np.float32).reshape(tensor["shape"])
        (given,) = session.run({"x": asked}).values()
        recorded_answer = np.asarray(request.outputs[0].data, dtype=np.float32)
        np.testing.assert_allclose(given.ravel(), recorded_answer, rtol=1e-5)


def test_an_answer_that_json_cannot_hold_is_refused(tmp_path: Path, splits: dict[str, Rows]) -> None:
    """A model that answers infinity cannot be asked over the protocol, and that is said when it is recorded."""
    node = helper.make_node("Gemm", ["x", "w"], ["scores"])
    path = save_graph(tmp_path / "inf.onnx", [node], {"w": np.full((64, 10), np.inf)})
    with pytest.raises(EngineError, match="not finite"):
        record(open_model(path, EngineOptions()), splits["test"])
