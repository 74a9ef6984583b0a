"""The recipe for KServe's logger, as the documentation has it, through KServe's own controller and webhooks."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.neighbours import kserve
from tests.neighbours.kserve_logger import ANNOTATION
from tools.localcluster.controlplane import ControlPlane
from tools.localcluster.settings import REPOSITORY
from tools.localcluster.shell import wait_for

pytestmark = pytest.mark.timeout(400)
Json = dict[str, Any]
PAGE = REPOSITORY / "docs" / "production-data.md"
NAMESPACE = "ml"
RUNTIME: Json = {
    "apiVersion": "serving.kserve.io/v1alpha1",
    "kind": "ServingRuntime",
    "metadata": {"name": "retune", "namespace": NAMESPACE},
    "spec": {
        "supportedModelFormats": [{"name": "retune", "version": "1", "autoSelect": True}],
        "containers": [{"name": "kserve-container", "image": "server:test", "resources": {"limits": {"cpu": "1"}}}],
    },
}
KEYS: tuple[Json, ...] = (
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
    {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "keys", "namespace": NAMESPACE},
        "stringData": {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"},
    },
    {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "logger-sa", "namespace": NAMESPACE},
        "secrets": [{"name": "keys"}],
    },
)


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane with KServe."""
    with kserve.beside_an_api_server(tmp_path_factory.mktemp("kserve")) as started:
        yield started


def recipe() -> Json:
    """Return the documentation's InferenceService that logs into a bucket."""
    blocks = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL))
    services = [block for block in blocks if block.get("kind") == "InferenceService"]
    (found,) = [service for service in services if "storage" in service["spec"]["predictor"]["logger"]]
    return dict(found)


def test_the_agent_is_told_what_the_recipe_says(plane: ControlPlane) -> None:
    """Its bucket, format and batches, and the pod's storageUri; its files lie where the page says."""
    service = recipe()
    service["metadata"]["namespace"] = NAMESPACE
    for document in (*KEYS, RUNTIME, service):
        plane.kubectl("apply", "--server-side", "-f", "-", stdin=kserve.text(document))
    wait_for(lambda: agent(plane) is not None, what="a pod with KServe's agent", seconds=90)
    told = agent(plane)
    assert told is not None
    given = dict(zip(told["args"][::2], told["args"][1::2], strict=False))
    uri = service["spec"]["predictor"]["model"]["storageUri"]
    assert given["--metadata-annotations"] == f"{ANNOTATION}={uri}"
    assert (given["--log-batch-size"], given["--log-batch-interval"]) == ("100", "10s")
    assert (given["--log-mode"], given["--log-store-format"]) == ("all", "parquet")
    assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= {entry["name"] for entry in told["env"]}
    named = [
        given[f"--{name}"] for name in ("log-url", "namespace", "inference-service", "component", "log-store-path")
    ]
    assert f"{{uri: {'/'.join(named)}, format: KServe}}" in PAGE.read_text()


def agent(plane: ControlPlane) -> Json | None:
    """Return the container of KServe's agent in a pod, or None while there is none."""
    pods = json.loads(plane.kubectl("get", "pods", "-n", NAMESPACE, "-o", "json"))["items"]
    containers = [container for pod in pods for container in pod["spec"]["containers"]]
    return next((container for container in containers if container["name"] == "agent"), None)
