"""A bundle for OpenVINO Model Server: the configuration's keys, what is refused, and what is lost."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from optimizer_jobs.errors import JobError
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.models.version_numbers import number_of
from optimizer_jobs.serving import trial
from optimizer_jobs.serving.render import Rendered, render
from retune.contract.requests import Server
from retune.contract.results import Reason
from tests.unit.jobs.served_for_tests import bundle_of, judged_in

KEYS = {
    "name",
    "base_path",
    "batch_size",
    "graph_path",
    "subconfig",
    "model_version_policy",
    "shape",
    "layout",
    "nireq",
    "target_device",
    "allow_cache",
    "plugin_config",
    "custom_loader_options",
}
"""Keys of a model that the server's own JSON schema allows; it refuses any other: MODEL_CONFIG_DEFINITION in
src/schema.cpp of openvinotoolkit/model_server, August 2026. Values of plugin_config are texts, numbers or booleans."""


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO is not installed."""
    monkeypatch.setattr(trial, "unavailable", lambda _: "the package openvino is not installed")


def rendered(bundle: Bundle, into: Path) -> tuple[Rendered, dict[str, Any]]:
    """Write a bundle as `digits`, and return the one model's configuration too."""
    made = render(bundle, Server.OVMS, name="digits", into=into)
    document = json.loads((into / "config.json").read_text())
    ((entry,),) = document.values()
    assert document.keys() == {"model_config_list"}
    assert entry.keys() == {"config"}
    config: dict[str, Any] = entry["config"]
    return made, config


@pytest.mark.usefixtures("absent")
def test_the_configuration_has_keys_that_the_server_knows(make: Callable[..., Bundle], tmp_path: Path) -> None:
    """The device is always named; the model's folder is named from the configuration's own."""
    engine = EngineOptions(engine="openvino", threads=2, streams=3, precision="bfloat16")
    bundle = judged_in(engine, make(), tmp_path / "judged")
    made, config = rendered(bundle, tmp_path / "serve")
    version = number_of(bundle.digest)
    assert config.keys() <= KEYS
    assert config == {
        "name": "digits",
        "base_path": "digits",
        "model_version_policy": {"specific": {"versions": [version]}},
        "target_device": "CPU",
        "plugin_config": {
            "NUM_STREAMS": "3",
            "INFERENCE_NUM_THREADS": 6,
            "INFERENCE_PRECISION_HINT": "bf16",
            "ENABLE_CPU_PINNING": False,
        },
    }
    assert made.files == ("config.json", f"digits/{version}/model.onnx")
    assert made.lost == ("This server has no warm-up, so that golden requests are not asked before it is ready.",)
    assert made.tried == "Nothing was tried, because the package openvino is not installed here."


@pytest.mark.usefixtures("absent")
def test_a_bundle_of_onnx_runtime_keeps_its_threads_and_little_else(
    make: Callable[..., Bundle], tmp_path: Path
) -> None:
    """The verdict's numbers are another engine's; streams and precision are ours to choose, and stay plain."""
    made, config = rendered(make(engine=EngineOptions(threads=2, streams=4, rows=8)), tmp_path / "serve")
    assert config["plugin_config"] == {
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": 2,
        "INFERENCE_PRECISION_HINT": "f32",
        "ENABLE_CPU_PINNING": False,
    }
    assert "was judged in ONNX Runtime" in made.lost[0]
    assert "calls of 8 rows" in made.lost[1]


@pytest.mark.usefixtures("absent")
def test_a_planned_shape_is_said_to_be_lost(make: Callable[..., Bundle], tmp_path: Path) -> None:
    """The server has one copy of the model."""
    engine = EngineOptions(engine="openvino", planned={"x": (8, 64)})
    made, _ = rendered(judged_in(engine, make(), tmp_path / "judged"), tmp_path / "serve")
    assert "second copy of the model" in made.lost[0]


@pytest.mark.usefixtures("absent")
@pytest.mark.parametrize(
    ("engine", "fault"), [("onnxruntime", "'words' is text"), ("tensorrt", "made for TensorRT on an NVIDIA GPU")]
)
def test_what_the_server_can_never_serve_is_refused(tmp_path: Path, engine: str, fault: str) -> None:
    """With what to do instead; nothing is written."""
    bundle = bundle_of("typed", tmp_path / "made", engine=EngineOptions.model_validate({"engine": engine}))
    with pytest.raises(JobError, match=fault) as caught:
        rendered(bundle, tmp_path / "serve")
    assert caught.value.next_step.startswith("Render it for Triton")
    assert not (tmp_path / "serve").exists()


def test_an_engine_that_answers_otherwise_is_refused(
    make: Callable[..., Bundle], delivered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle of ONNX Runtime is asked its golden requests in OpenVINO; played here by another model."""
    bundle = make()
    monkeypatch.setattr(trial, "unavailable", lambda _: None)
    monkeypatch.setattr(trial, "open_model", lambda *_: open_model(delivered / "conv.onnx", EngineOptions()))
    with pytest.raises(JobError, match="OpenVINO does not answer as the bundle does: golden request 1") as caught:
        rendered(bundle, tmp_path / "serve")
    assert caught.value.reason is Reason.GOLDEN_MISMATCH
    assert not (tmp_path / "serve").exists()
