"""The server in the spec: which engines and which version go with it, said alike by API server and Jobs."""

from typing import Any

import pytest

from retune.api.crd import modeloptimization_crd
from retune.api.search import Serving
from retune.api.servers import RULES, EngineName, ServerRuntime, written_for
from retune.contract.requests import encode_request, parse_request
from retune.plan.hashing import attempt_hash, baseline_hash, snapshot_hash
from tests import samples

REFUSED: tuple[tuple[dict[str, Any], str], ...] = (
    ({"runtime": "OVMS"}, "OVMS computes with OpenVINO alone"),
    ({"runtime": "OVMS", "engines": ["OpenVINO", "ONNXRuntime"]}, "OVMS computes with OpenVINO alone"),
    ({"runtime": "Triton", "engines": ["OpenVINO"]}, "leave it out of serving.engines"),
    ({"runtime": "KServe", "engines": ["ONNXRuntime", "OpenVINO"]}, "KServe is one server"),
    ({"engines": ["ONNXRuntime", "OpenVINO"], "engineVersion": "1.20"}, "is that of one engine"),
    ({"runtime": "Triton", "engineVersion": "2.60"}, "is that of ONNX Runtime, 1.15 or later"),
    ({"runtime": "Triton", "engineVersion": "25.08"}, "is that of ONNX Runtime, 1.15 or later"),
    ({"engineVersion": "1.14.1"}, "is that of ONNX Runtime, 1.15 or later"),
    ({"engines": ["OpenVINO"], "engineVersion": "1.20"}, "is that of OpenVINO, 2023.0 or later"),
    ({"engineVersion": "1.2x"}, "the version of an engine is a quoted string"),
    ({"engineVersion": 1.2}, "valid string"),
    ({"image": "triton:1"}, "set serving.runtime to Triton, OVMS or KServe"),
    ({"runtime": "Custom", "image": "own:1"}, "set serving.runtime to Triton, OVMS or KServe"),
    ({"runtime": "Triton", "image": ""}, "at least 1 character"),
    ({"runtime": "triton"}, "'Retune', 'Triton', 'OVMS', 'KServe' or 'Custom'"),
)
ACCEPTED: tuple[dict[str, Any], ...] = (
    {"runtime": "Triton", "engineVersion": "1.20"},
    {"runtime": "Triton", "engines": ["ONNXRuntime", "TensorRT"], "engineVersion": "1.23.2"},
    {"runtime": "OVMS", "engines": ["OpenVINO"], "engineVersion": "2025.4"},
    {"runtime": "KServe", "engines": ["OpenVINO"]},
    {"runtime": "Triton", "image": "registry.example/triton:26.08"},
    {"runtime": "OVMS", "engines": ["OpenVINO"], "image": "registry.example/ovms:2026.2"},
    {"runtime": "KServe", "image": "registry.example/triton:1"},
    {"runtime": "Custom", "engines": ["OpenVINO", "ONNXRuntime"]},
)


@pytest.mark.parametrize(("fields", "words"), REFUSED)
def test_what_cannot_be_meant_is_refused(fields: dict[str, Any], words: str) -> None:
    """A version of the server in place of the engine's is the usual mistake."""
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        Serving.model_validate(fields)


@pytest.mark.parametrize("fields", ACCEPTED)
def test_what_goes_together_is_taken_and_asked_of_every_job(fields: dict[str, Any]) -> None:
    """Baseline, search and judge learn of it; what is at its default is not written."""
    serving = Serving.model_validate(fields)
    for request in (samples.baseline_request(), samples.search_request(), samples.judge_request()):
        asked = request.model_copy(update={"serving": serving})
        assert parse_request(encode_request(asked)) == asked
        assert "runtime" in encode_request(asked)
        assert "runtime" not in encode_request(request)


def test_the_api_server_says_the_same() -> None:
    """Each sentence is a rule on serving."""
    schema = modeloptimization_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    serving = schema["properties"]["spec"]["properties"]["serving"]
    rules = {rule["rule"]: rule["message"] for rule in serving["x-kubernetes-validations"]}
    assert dict(RULES).items() <= rules.items()
    assert serving["properties"]["runtime"]["default"] == "Retune"
    assert "default" not in serving["properties"]["engineVersion"]


def test_a_named_server_is_a_change_of_the_spec_and_the_default_is_none() -> None:
    """Baseline, attempt and run are of another spec then; what was stored before the field was known stays as it is."""
    before = samples.resource().spec
    default = samples.resource(serving={"runtime": "Retune", "cores": 2}).spec
    assert baseline_hash(default) == baseline_hash(before)
    assert attempt_hash(default) == attempt_hash(before)
    seen = {snapshot_hash(before): "before"}
    for fields in ({"runtime": "Triton"}, {"engineVersion": "1.20"}, {"runtime": "Triton", "engineVersion": "1.20"}):
        spec = samples.resource(serving=fields).spec
        assert baseline_hash(spec) != baseline_hash(before)
        assert attempt_hash(spec) != attempt_hash(before)
        seen[snapshot_hash(spec)] = str(fields)
    assert len(seen) == 4


def test_what_else_is_said_of_serving_does_not_measure_the_delivered_model_again() -> None:
    """Cores, sizes of requests and the server's image are a run's business, with a named server too."""
    one = samples.resource(serving={"runtime": "Triton"}).spec
    for more in ({"batchSize": 8, "cores": 4}, {"image": "registry.example/triton:1"}):
        other = samples.resource(serving={"runtime": "Triton", **more}).spec
        assert baseline_hash(one) == baseline_hash(other)
        assert snapshot_hash(one) != snapshot_hash(other)


@pytest.mark.parametrize(
    ("runtime", "engines", "server"),
    [
        (ServerRuntime.TRITON, [EngineName.ONNX_RUNTIME], ServerRuntime.TRITON),
        (ServerRuntime.OVMS, [EngineName.OPENVINO], ServerRuntime.OVMS),
        (ServerRuntime.KSERVE, [EngineName.ONNX_RUNTIME, EngineName.TENSORRT], ServerRuntime.TRITON),
        (ServerRuntime.KSERVE, [EngineName.OPENVINO], ServerRuntime.OVMS),
    ],
)
def test_kserve_has_a_stock_server_for_each_engine(
    runtime: ServerRuntime, engines: list[EngineName], server: ServerRuntime
) -> None:
    """A bundle is written for that one."""
    assert written_for(runtime, engines) is server
