"""Journeys of models that are trained again and promoted: torch weights, an estimator, a user's own training program.

Both are served from ONNX bundles in the end: the server never sees what they were delivered as.
"""

from pathlib import Path
from typing import Any

import pytest

from tests.e2e import kube
from tests.e2e.kube import OPTIMIZER
from tests.e2e.scenario import MODELS, NAMESPACE, resource, server

pytestmark = pytest.mark.timeout(600)
PROGRAM = Path(__file__).parents[2] / "examples" / "custom_training" / "train.py"
INFERENCE = {"port": 8080, "modelName": "model"}
EXECUTION = {"resources": {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "3Gi"}}}
TORCH: dict[str, Any] = {
    "model": {
        "uri": f"{MODELS}/net.safetensors",
        "format": "SafeTensors",
        "factory": {
            "entryPoint": "optimizer_jobs.nets.catalogue:mlp",
            "arguments": [
                {"name": "inputs", "value": "30"},
                {"name": "outputs", "value": "2"},
                {"name": "width", "value": "256"},
            ],
        },
    },
    "techniques": [
        {"name": "prune", "type": "Pruning"},
        {"name": "quantize", "type": "Quantization", "quantization": {"schemes": ["Dynamic"]}},
    ],
}
SKLEARN: dict[str, Any] = {
    "model": {"uri": f"{MODELS}/forest.skops", "format": "Skops"},
    "techniques": [
        {"name": "shape", "type": "Architecture"},
        {"name": "prepare", "type": "DataPreparation", "preparation": {"kinds": ["Selection"]}},
    ],
}
CUSTOM: dict[str, Any] = {
    "model": {"uri": f"{MODELS}/good.onnx"},
    "techniques": [
        {
            "name": "mine",
            "type": "CustomTraining",
            "container": {
                "image": OPTIMIZER,
                "command": ["python", "-c", PROGRAM.read_text()],
                "parameters": [
                    {"name": "hidden", "min": "8", "max": "64", "integer": True},
                    {"name": "learning_rate", "min": "0.001", "max": "0.1", "log": True},
                ],
                "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}},
            },
        },
    ],
}


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize(("name", "spec"), [("torch", TORCH), ("sklearn", SKLEARN), ("custom", CUSTOM)])
def test_a_model_of_another_format_is_trained_again_and_goes_live(name: str, spec: dict[str, Any]) -> None:
    """Two workers share the study; the promoted bundle is smaller than version 1, which is the delivered model."""
    kube.apply(*server(name, model="good.onnx"))
    kube.kubectl("rollout", "status", f"deployment/{name}", "-n", NAMESPACE, "--timeout=3m")
    target = {"ref": {"name": name}, "inference": INFERENCE}
    search = {"maxTrials": 4, "parallelism": 2}
    kube.apply(resource(name, target=target, search=search, execution=EXECUTION, **spec))
    found = kube.wait_reason(name, "RolledOut", "Promoted", namespace=NAMESPACE)
    champion, original = found["status"]["champion"], found["status"]["original"]
    assert champion["version"] == 2
    assert champion["sizeBytes"] < original["sizeBytes"]
    assert champion["techniques"]
    (run,) = kube.ended_runs(name, namespace=NAMESPACE)
    assert run["status"]["outcome"] == "Promoted"
    assert run["status"]["trials"]["done"] == 4
