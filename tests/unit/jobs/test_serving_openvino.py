"""The same with OpenVINO itself: what is written for its servers is what it takes, and answers as recorded."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper

from optimizer_jobs.errors import JobError
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.golden import Golden, answered
from optimizer_jobs.models.openvino import inferred_outputs
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.models.version_numbers import number_of
from optimizer_jobs.serving.render import render
from retune.contract.requests import Server
from retune.contract.results import Reason
from tests.unit.jobs.served_for_tests import bundle_of, parsed, save

pytest.importorskip("openvino")
pytestmark = pytest.mark.torch

OPENVINO = EngineOptions(engine="openvino", threads=1, streams=2)


@pytest.mark.parametrize("engine", [EngineOptions(), OPENVINO], ids=["onnxruntime", "openvino"])
def test_openvino_takes_the_settings_and_answers_as_recorded(
    make: Callable[..., Bundle], tmp_path: Path, engine: EngineOptions
) -> None:
    """The properties of plugin_config, as they stand, compile the model for the device that is named."""
    import openvino

    bundle = make(engine=engine)
    made = render(bundle, Server.OVMS, name="digits", into=tmp_path / "serve")
    config = json.loads((tmp_path / "serve" / "config.json").read_text())["model_config_list"][0]["config"]
    folder = tmp_path / "serve" / config["base_path"] / str(number_of(bundle.digest))
    model = openvino.Core().read_model(folder / "model.onnx")
    compiled = openvino.Core().compile_model(model, config["target_device"], config["plugin_config"])
    streams = engine.streams if engine.engine == "openvino" else 1
    assert compiled.get_property("NUM_STREAMS") == streams
    assert compiled.get_property("INFERENCE_NUM_THREADS") == streams
    assert compiled.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    assert made.tried.endswith("and answered its 8 golden requests as recorded.")


def test_states_and_single_numbers_are_answered_too(tmp_path: Path) -> None:
    """OpenVINO has tensors without axes, and takes rows on any axis."""
    made = render(bundle_of("recurrent", tmp_path / "made"), Server.OVMS, name="digits", into=tmp_path / "serve")
    assert made.tried.endswith("and answered its 1 golden requests as recorded.")


def test_a_model_that_openvino_cannot_run_is_refused(make: Callable[..., Bundle], tmp_path: Path) -> None:
    """Trees, for which it has no operator."""
    attributes: dict[str, Any] = {
        "nodes_treeids": [0],
        "nodes_nodeids": [0],
        "nodes_featureids": [0],
        "nodes_values": [0.0],
        "nodes_modes": ["LEAF"],
        "nodes_truenodeids": [0],
        "nodes_falsenodeids": [0],
        "target_treeids": [0],
        "target_nodeids": [0],
        "target_ids": [0],
        "target_weights": [1.5],
    }
    node = helper.make_node("TreeEnsembleRegressor", ["x"], ["y"], domain="ai.onnx.ml", n_targets=1, **attributes)
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 1])]
    model = save(tmp_path / "trees.onnx", [node], inputs, outputs, domains={"ai.onnx.ml": 3})
    request = answered(open_model(model, EngineOptions()), {"x": np.zeros((1, 64), np.float32)})
    bundle = make(model=model, golden=Golden(requests=(request,)))
    with pytest.raises(JobError, match="OpenVINO cannot run this model") as caught:
        render(bundle, Server.OVMS, name="digits", into=tmp_path / "serve")
    assert caught.value.reason is Reason.MODEL_INVALID
    assert not (tmp_path / "serve").exists()


def test_a_bundle_of_openvino_stays_in_it_under_triton(make: Callable[..., Bundle], tmp_path: Path) -> None:
    """Its threads and streams are parameters of Triton's backend, which has as many instances as streams."""
    engine = OPENVINO.model_copy(update={"planned": {"x": (8, 64)}})
    made = render(make(engine=engine), Server.TRITON, name="digits", into=tmp_path / "serve")
    config = parsed(tmp_path / "serve" / "digits" / "config.pbtxt")
    given = {name: parameter.string_value for name, parameter in config.parameters.items()}
    assert (config.backend, config.default_model_filename) == ("openvino", "model.onnx")
    assert config.instance_group[0].count == 2
    assert given.items() >= {"NUM_STREAMS": "2", "INFERENCE_NUM_THREADS": "2", "PERFORMANCE_HINT": "LATENCY"}.items()
    assert [tuple(tensor.dims) for tensor in config.output] == [inferred_outputs(make("b").model)["scores"]]
    for word, lost in zip(("pinned", "second copy", "float32"), made.lost, strict=True):
        assert word in lost


def test_shapes_are_those_that_openvino_infers(tmp_path: Path) -> None:
    """Triton's backend compares outputs with these, whatever the file declares."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["M", "K"])]
    path = save(tmp_path / "loose.onnx", [helper.make_node("Relu", ["x"], ["y"])], inputs, outputs)
    assert open_model(path, OPENVINO).signature.outputs[0].shape == (-1, -1)
    assert inferred_outputs(path) == {"y": (-1, 3)}
