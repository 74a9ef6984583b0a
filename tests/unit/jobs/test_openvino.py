"""The engine OpenVINO: the same model, the same answers, and nothing repaired in silence."""

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, save

from optimizer_jobs.commands.search.engines import unplannable, usable
from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.fingerprint import fingerprint
from optimizer_jobs.measure.mix import only
from optimizer_jobs.measure.resources import Conditions, Served, measure_resources
from optimizer_jobs.models.bundle import Bundle, Manifest
from optimizer_jobs.models.engine import Array
from optimizer_jobs.models.golden import check, record
from optimizer_jobs.models.names import MANIFEST
from optimizer_jobs.models.onnx_file import check_onnx
from optimizer_jobs.models.runtime import EngineError, EngineOptions, open_model, open_session, precisions
from retune.api.metrics import Metric
from retune.api.search import Serving
from retune.api.servers import EngineName

pytest.importorskip("openvino")
pytestmark = pytest.mark.torch

OPENVINO = EngineOptions(engine="openvino")
HERE = precisions("openvino", frozenset(fingerprint().features))


@pytest.mark.parametrize("name", ["mlp", "conv"])
@pytest.mark.parametrize("precision", HERE)
def test_both_engines_give_the_same_labels(delivered: Path, splits: dict[str, Rows], name: str, precision: str) -> None:
    """Every image of the test split gets one label, whichever engine and precision answers."""
    model, rows = delivered / f"{name}.onnx", splits["test"]
    options = EngineOptions.model_validate({"engine": "openvino", "precision": precision, "threads": 2})
    expected = open_model(model, EngineOptions()).run(rows.inputs)["scores"]
    found = open_model(model, options).run(rows.inputs)["scores"]
    assert found.dtype == expected.dtype
    assert np.mean(found.argmax(axis=1) == expected.argmax(axis=1)) >= (1.0 if precision == "float32" else 0.99)


@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_the_signature_is_that_of_the_file(delivered: Path, name: str) -> None:
    """Names, types, free axes and order do not depend on the engine."""
    assert open_model(delivered / f"{name}.onnx", OPENVINO).signature == check_onnx(delivered / f"{name}.onnx")


def test_inputs_and_outputs_are_told_apart_by_name(tmp_path: Path) -> None:
    """Several inputs, one of them unused, and outputs that are one tensor under two names keep their places."""
    sides = {
        name: helper.make_tensor_value_info(name, kind, ["N", 2])
        for name, kind in {
            "b": TensorProto.FLOAT,
            "a": TensorProto.FLOAT,
            "spare": TensorProto.INT64,
            "z": TensorProto.FLOAT,
            "y": TensorProto.FLOAT,
            "same": TensorProto.FLOAT,
        }.items()
    }
    nodes = [
        helper.make_node("Sub", ["b", "a"], ["z"]),
        helper.make_node("Mul", ["a", "a"], ["y"]),
        helper.make_node("Identity", ["z"], ["same"]),
    ]
    graph = helper.make_graph(
        nodes, "g", [sides["b"], sides["a"], sides["spare"]], [sides["z"], sides["y"], sides["same"]]
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "model.onnx")
    one = np.arange(6, dtype=np.float32).reshape(3, 2)
    feed: dict[str, Array] = {"spare": np.zeros((3, 2), np.int64), "a": one, "b": 10 * one}
    theirs = open_model(tmp_path / "model.onnx", EngineOptions())
    ours = open_model(tmp_path / "model.onnx", OPENVINO)
    assert ours.signature == theirs.signature
    for name, values in theirs.run(feed).items():
        np.testing.assert_array_equal(ours.run(feed)[name], values)


@pytest.mark.parametrize("count", [1, 7, 8, 9])
def test_a_plan_for_one_shape_answers_like_the_plan_for_any(
    delivered: Path, splits: dict[str, Rows], count: int
) -> None:
    """Whatever shape a request has, it gets the same answers, and whoever serves still takes any number of rows."""
    rows = splits["test"].take(slice(0, count))
    planned = {"x": (8, *rows.inputs["x"].shape[1:])}
    free, told = (
        open_model(delivered / "conv.onnx", options)
        for options in (OPENVINO, EngineOptions(engine="openvino", planned=planned))
    )
    assert told.signature == free.signature
    np.testing.assert_allclose(told.run(rows.inputs)["scores"], free.run(rows.inputs)["scores"], atol=1e-3)


def test_a_bundle_keeps_its_plan(make: Callable[..., Bundle], splits: dict[str, Rows]) -> None:
    """Who opens the bundle finds the shape in its manifest file, and gets the delivered model's answers."""
    made = make(engine=EngineOptions(engine="openvino", planned={"x": (1, 64)}))
    read = Manifest.model_validate_json((made.folder / MANIFEST).read_bytes())
    assert read.engine.planned == {"x": (1, 64)}
    one = splits["test"].take(slice(0, 1)).inputs
    exact = open_model(made.model, EngineOptions()).run(one)["scores"]
    found = open_session(dataclasses.replace(made, manifest=read)).run(one)["scores"]
    np.testing.assert_allclose(found, exact, atol=1e-3)


@pytest.mark.parametrize(("planned", "said"), [({"y": (1, 64)}, r"inputs \['y'\]"), ({"x": (1, 63)}, "63")])
def test_a_plan_for_what_the_model_cannot_take_is_refused(
    delivered: Path, planned: dict[str, tuple[int, ...]], said: str
) -> None:
    """It is an error when the model is opened, not when the first such request comes, and the search hears why."""
    with pytest.raises(EngineError, match=said):
        open_model(delivered / "mlp.onnx", EngineOptions(engine="openvino", planned=planned))
    assert unplannable(delivered / "mlp.onnx", planned)
    assert unplannable(delivered / "mlp.onnx", {"x": (4, 64)}) is None


def test_what_openvino_would_repair_is_refused(delivered: Path) -> None:
    """Another type, width or name is an error, and a missing input is not taken from the call before."""
    session = open_model(delivered / "mlp.onnx", OPENVINO)
    good = np.zeros((1, 64), np.float32)
    session.run({"x": good})
    wrong: list[dict[str, Array]] = [
        {},
        {"x": good.astype(np.float64)},
        {"x": good[:, :63]},
        {"y": good},
        {"x": good, "y": good},
    ]
    for inputs in wrong:
        with pytest.raises(EngineError):
            session.run(inputs)
    assert session.run({"x": good})["scores"].shape == (1, 10)


def test_a_precision_that_the_processor_lacks_is_refused(delivered: Path) -> None:
    """OpenVINO falls back to another precision, or emulates it, in silence; a bundle must not be judged as that."""
    for precision in {"float32", "bfloat16", "float16"} - set(HERE):
        options = EngineOptions.model_validate({"engine": "openvino", "precision": precision})
        with pytest.raises(EngineError, match=precision):
            open_model(delivered / "mlp.onnx", options)


def test_an_operator_that_openvino_lacks_is_named(delivered: Path) -> None:
    """The search leaves the engine out for such a model and says why."""
    found = usable((EngineName.ONNX_RUNTIME, EngineName.OPENVINO), delivered / "sklearn.onnx")
    assert found.names == ("onnxruntime",)
    assert "ai.onnx.ml" in found.left_out["OpenVINO"]


@pytest.mark.parametrize("streams", [1, 2])
def test_callers_at_the_same_time_get_their_own_answers(delivered: Path, splits: dict[str, Rows], streams: int) -> None:
    """Eight callers with batches of different sizes never see each other's rows."""
    options = OPENVINO.model_copy(update={"streams": streams})
    session, rows = open_model(delivered / "mlp.onnx", options), splits["test"]
    expected = session.run(rows.inputs)["scores"]

    def ask(number: int) -> bool:
        part = slice(number % 300, number % 300 + 1 + number % 7)
        found = session.run({"x": rows.inputs["x"][part]})["scores"]
        return bool(np.allclose(found, expected[part], atol=1e-5))

    with ThreadPoolExecutor(8) as callers:
        assert all(callers.map(ask, range(800)))


def test_a_bundle_answers_its_golden_requests(make: Callable[..., Bundle], splits: dict[str, Rows]) -> None:
    """What OpenVINO recorded, OpenVINO repeats with the options of the bundle."""
    options = EngineOptions(engine="openvino", precision=HERE[0], threads=2)
    first = make("plain")
    session = open_model(first.model, options)
    bundle = make("bundle", engine=options, golden=record(session, splits["validation"]))
    served = open_session(bundle, threads_limit=1)
    for request in bundle.golden.requests:
        inputs = {
            spec["name"]: np.asarray(spec["data"], np.float32).reshape(spec["shape"])
            for spec in request.body()["inputs"]
        }
        scores = served.run(inputs)["scores"]
        answer = {
            "outputs": [
                {"name": "scores", "shape": list(scores.shape), "datatype": "FP32", "data": scores.reshape(-1).tolist()}
            ]
        }
        assert check(answer, request, golden=bundle.golden) is None


def test_resources_of_both_engines_are_measured_side_by_side(delivered: Path, splits: dict[str, Rows]) -> None:
    """OpenVINO's numbers come in the same units, with its ratio to ONNX Runtime's."""
    model = delivered / "conv.onnx"
    subjects = {"ort": Served(model, EngineOptions()), "openvino": Served(model, OPENVINO)}
    conditions = Conditions(mix=only(4), threads=1, serving=Serving(), repeats=1, seed=0)
    found = measure_resources(subjects, splits["test"], reference="ort", conditions=conditions)
    ratio = found["openvino"].ratios[Metric.PEAK_MEMORY_BYTES].value
    peaks = {name: usage.metrics[Metric.PEAK_MEMORY_BYTES].value for name, usage in found.items()}
    assert ratio == pytest.approx(peaks["openvino"] / peaks["ort"])
    assert found["openvino"].metrics.keys() == found["ort"].metrics.keys()
