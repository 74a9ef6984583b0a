"""The manifests of docs/running-servers.md as they stand there, for the tests' namespace.

Images, the claim of the delivered model and the model's name are others, and the servers get less CPU, because the
local cluster's node has two cores. A page that does not say what is replaced fails the tests.
"""

from collections.abc import Mapping
from typing import Any

import yaml

from tests.e2e.scenario import DATA, MODELS, NAMESPACE
from tests.neighbours.pods.built import RUNTIME, SERVER
from tools.docs.markdown import Page
from tools.localcluster.settings import REPOSITORY

Json = dict[str, Any]
PORT = 8000
"""Where a Triton of the page answers."""
PREPARED, FOLLOWED = "An init container", "Retune writes the key"
"""Sections whose specs Retune gives versions by."""
_NAME = "fraud"
_SWAPPED = {
    "registry.example/retune-runtime:1": RUNTIME.tag,
    "nvcr.io/nvidia/tritonserver:24.10-py3": SERVER,
    'requests: {cpu: "1", ': "requests: {cpu: 100m, ",
    'limits: {cpu: "2", ': 'limits: {cpu: "1", ',
}
_OF_DELIVERED = {
    f"pvc://models/{_NAME}.onnx": f"{MODELS}/good.onnx",
    "/mnt/pvc/models,": f"/mnt/pvc/{DATA},",
    "claimName: models,": f"claimName: {DATA},",
}


def prepared(name: str) -> list[Json]:
    """Return the Deployment with the init container; Deployment and model have the name."""
    return _objects(_block(PREPARED, "initContainers:"), name, _SWAPPED | _OF_DELIVERED)


def running(name: str, wanted: str) -> list[Json]:
    """Return ConfigMap and Deployment of a server that runs on, whose agent is to give it the bundle at a URI."""
    text = _block("A server that runs on", "kind: Deployment")
    config, deployment = _objects(text, name, _SWAPPED)
    return [config | {"data": dict.fromkeys(config["data"], wanted)}, deployment]


def target(name: str, *, section: str = PREPARED) -> Json:
    """Return what a section of the page says of the target and its server, as a part of a ModelOptimization's spec."""
    spec: Json = yaml.safe_load(_block(section, "inference:").replace(_NAME, name))["spec"]
    return spec


def judged_through(image: str) -> Json:
    """Return what docs/servers.md says of the server's image, with another image."""
    text = _block("Measured through the server itself", "image:", page="servers")
    serving: Json = yaml.safe_load(text)["spec"]["serving"]
    return {"serving": serving | {"image": image}}


def service(name: str) -> Json:
    """Return a Service in front of the page's pods."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"selector": {"app": name}, "ports": [{"port": PORT}]},
    }


def _block(section: str, word: str, *, page: str = "running-servers") -> str:
    """Return the only YAML of a section that has a word."""
    blocks = Page.read(REPOSITORY / "docs" / f"{page}.md").blocks("yaml")
    (found,) = [block.text for block in blocks if block.section == section and word in block.text]
    return found


def _objects(text: str, name: str, swapped: Mapping[str, str]) -> list[Json]:
    for old, new in swapped.items():
        assert old in text, f"the page does not say {old}"
        text = text.replace(old, new)
    documents: list[Json] = list(yaml.safe_load_all(text.replace(_NAME, name)))
    for document in documents:
        document["metadata"]["namespace"] = NAMESPACE
    return documents
