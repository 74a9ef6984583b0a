"""KServe for tests: its CRDs and settings, and its controller with its webhooks as a process beside any API server.

The API server has to be on this machine, because it asks the webhooks at the loopback address.
"""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from retune.api.crd import modeloptimization_crd, optimizationrun_crd
from tests.cluster.crds import install
from tools.localcluster import binaries
from tools.localcluster.api import Api
from tools.localcluster.certs import LOOPBACK, Identity, ensure
from tools.localcluster.controlplane import ControlPlane, control_plane, free_ports
from tools.localcluster.settings import load
from tools.localcluster.shell import run

Json = dict[str, Any]
NAMESPACE = "kserve"
NEEDED = ("defaulter", "pod-mutator")
"""The webhooks without which KServe does not do its work: the others only refuse."""
_MODULE = "github.com/kserve/kserve"
_HOOK = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/inferenceservice.serving.kserve.io"


def crds() -> list[Json]:
    """The CustomResourceDefinitions of the pinned release."""
    return _rendered("kserve-crd")


def settings() -> list[Json]:
    """The namespace, the settings in Standard mode without an ingress, and how KServe fetches models."""
    chart = {document["kind"]: document for document in _resources()}
    configuration = chart["ConfigMap"]
    ingress = json.loads(configuration["data"]["ingress"]) | {"disableIngressCreation": True}
    configuration["data"]["ingress"] = json.dumps(ingress)
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    return [namespace, configuration, chart["ClusterStorageContainer"]]


@contextmanager
def beside_an_api_server(folder: Path) -> Iterator[ControlPlane]:
    """Run the controller beside a control plane that makes pods of Deployments, with our CRDs and KServe's.

    Args:
        folder: Where keys and the log go.
    """
    definitions = crds()
    with control_plane(controllers=("deployment-controller", "replicaset-controller")) as started:
        api = Api(started.kubeconfig)
        install(api, [modeloptimization_crd(), optimizationrun_crd(), *definitions])
        for document in settings():
            started.kubectl("apply", "--server-side", "-f", "-", stdin=text(document))
        with controller(started.kubeconfig, folder, api.apply):
            yield started


def text(document: Json) -> str:
    """Return a document as kubectl reads it."""
    return yaml.safe_dump(document)


def _rendered(name: str, *settings: str) -> list[Json]:
    """Return the documents of one of the release's charts."""
    chart = binaries.source_folder(load(), binaries.KSERVE, _MODULE) / "charts" / name
    helm = binaries.ensure(load(), ["helm"])["helm"]
    rendered = run([helm, "template", binaries.KSERVE, chart, "-n", NAMESPACE, *settings])
    return [document for document in yaml.safe_load_all(rendered) if document]


def _resources() -> list[Json]:
    return _rendered("kserve-resources", "--set", "kserve.controller.deploymentMode=Standard")


@contextmanager
def controller(kubeconfig: Path, folder: Path, apply: Callable[[str, Json], object]) -> Iterator[None]:
    """Run the controller of the pinned release; its CRDs and settings must be there already.

    Args:
        kubeconfig: The API server's administrator.
        folder: Where keys and the log go.
        apply: Applies the webhooks, by path and document.
    """
    program = binaries.ensure(load(), [binaries.KSERVE])["manager"]
    hooks, metrics, health = free_ports(3)
    authority = _keys(folder)
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment |= {"KUBECONFIG": str(kubeconfig), "POD_NAMESPACE": NAMESPACE, "TMPDIR": str(folder)}
    flags = [f"--webhook-port={hooks}", f"--metrics-addr=127.0.0.1:{metrics}"]
    argv = [str(program), *flags, f"--health-probe-addr=127.0.0.1:{health}"]
    with (folder / "log").open("wb") as sink:
        process = subprocess.Popen(argv, stdout=sink, stderr=sink, env=environment)
        try:
            apply(_HOOK, _webhooks(hooks, authority))
            yield
        finally:
            process.kill()
            process.wait()


def _keys(folder: Path) -> bytes:
    """Make the webhooks' key and certificate where the controller looks for them; returns the authority's."""
    ensure(folder / "pki", [Identity("server", "localhost", names=LOOPBACK)])
    place = folder / "k8s-webhook-server" / "serving-certs"
    place.mkdir(parents=True)
    for name in ("crt", "key"):
        shutil.copyfile(folder / "pki" / f"server.{name}", place / f"tls.{name}")
    return (folder / "pki" / "ca.crt").read_bytes()


def _webhooks(port: int, authority: bytes) -> Json:
    """Return the chart's own configuration, with addresses of this machine."""
    (configuration,) = [entry for entry in _resources() if entry["kind"] == "MutatingWebhookConfiguration"]
    bundle = base64.b64encode(authority).decode()
    for hook in configuration["webhooks"]:
        address = f"https://127.0.0.1:{port}{hook['clientConfig']['service']['path']}"
        hook["clientConfig"] = {"url": address, "caBundle": bundle}
    configuration["webhooks"] = [hook for hook in configuration["webhooks"] if hook["name"].endswith(NEEDED)]
    meta = {"name": configuration["metadata"]["name"]}
    return configuration | {"metadata": meta}
