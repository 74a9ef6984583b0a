"""KServe for tests: its CRDs and settings, and its controller with its webhooks as a process beside any API server.

The API server has to be on this machine, because it asks the webhooks at the loopback address.
"""

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
from tools.localcluster import binaries, kserve
from tools.localcluster.api import Api
from tools.localcluster.certs import LOOPBACK, Identity, ensure
from tools.localcluster.controlplane import ControlPlane, control_plane, free_ports
from tools.localcluster.settings import load

Json = dict[str, Any]
_HOOK = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/inferenceservice.serving.kserve.io"


@contextmanager
def beside_an_api_server(folder: Path) -> Iterator[ControlPlane]:
    """Run the controller beside a control plane that makes pods of Deployments, with our CRDs and KServe's.

    Args:
        folder: Where keys and the log go.
    """
    settings = load()
    definitions = kserve.crds(settings)
    with control_plane(controllers=("deployment-controller", "replicaset-controller")) as started:
        api = Api(started.kubeconfig)
        install(api, [modeloptimization_crd(), optimizationrun_crd(), *definitions])
        for document in kserve.configuration(settings):
            started.kubectl("apply", "--server-side", "-f", "-", stdin=text(document))
        with controller(started.kubeconfig, folder, api.apply):
            yield started


def text(document: Json) -> str:
    """Return a document as kubectl reads it."""
    return yaml.safe_dump(document)


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
    environment |= {"KUBECONFIG": str(kubeconfig), "POD_NAMESPACE": kserve.NAMESPACE, "TMPDIR": str(folder)}
    flags = [f"--webhook-port={hooks}", f"--metrics-addr=127.0.0.1:{metrics}"]
    argv = [str(program), *flags, f"--health-probe-addr=127.0.0.1:{health}"]
    with (folder / "log").open("wb") as sink:
        process = subprocess.Popen(argv, stdout=sink, stderr=sink, env=environment)
        try:
            apply(_HOOK, kserve.webhooks(load(), authority, url=f"https://127.0.0.1:{hooks}"))
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
