"""What examples do with a cluster: kubectl and helm, manifests, port-forwards, and questions to the model server.

RETUNE_STORE says where an example keeps everything: `pvc`, a shared volume, or `s3`, a bucket on a server beside it.
RETUNE_TARGET says what its model server is: a `deployment`, or an InferenceService of `kserve`.

Every command is one that can be typed; a failed one is a `CommandError` with the program's own words.
"""

import hashlib
import json
import os
import re
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.kubectl import CommandError, Kubectl, context_of_environment, find_program, run

Json = dict[str, Any]

REPOSITORY = Path(__file__).resolve().parents[1]
SYSTEM = "retune-system"
RELEASE = "retune"
IMAGES = "localhost/retune"
STORES: Mapping[str, str] = {"pvc": "pvc://retune-artifacts", "s3": "s3://retune"}
"""Where an example keeps everything, by the value of RETUNE_STORE; manifests name the first."""
TARGETS: Mapping[str, str] = {"deployment": "", "kserve": "-predictor"}
"""What the model server is, by the value of RETUNE_TARGET: how its Deployment's name ends."""
ASK_SECONDS = 10.0
SERVICE_PORT = 80
POD_PORT = 8080


class DemoError(CommandError):
    """A step of the demo failed; the hint is a command that shows more or helps."""


@dataclass(frozen=True)
class Example:
    """An example: a model that is trained, served and optimized in a namespace."""

    name: str
    """Name of its Deployment, its Service, its ModelOptimization and its served model."""
    namespace: str
    """Namespace that its manifests name."""
    folder: Path
    """Folder with its code and, in `manifests`, its manifests."""
    stores: tuple[str, ...] = ("pvc",)
    """Where it can keep everything, of STORES; what a manifest has to say otherwise there lies in a folder so named."""
    targets: tuple[str, ...] = ("deployment",)
    """What its model server can be where all is on a volume, of TARGETS, which are folders of manifests too."""
    selector: str = ""
    """Labels of the model server's pods, where they are not `app=NAME`."""

    @property
    def training(self) -> str:
        """Name of the Job that trains, and of the ConfigMap with its script."""
        return f"{self.name}-training"


@dataclass(frozen=True)
class Tools:
    """kubectl and helm for one cluster, and what the example is installed with."""

    example: Example
    kubectl: Kubectl
    """kubectl for the example's namespace."""
    context: str | None
    """Context of the kubeconfig; None for the current one."""
    images: str
    """Prefix of every image's name."""
    store: str = "pvc"
    """Where everything is kept, of STORES."""
    target: str = "deployment"
    """What the model server is, of TARGETS."""

    @property
    def deployment(self) -> str:
        """Name of the Deployment that makes the model server's pods."""
        return f"{self.example.name}{TARGETS[self.target]}"

    @property
    def selector(self) -> str:
        """Label selector of the model server's pods."""
        return self.example.selector or f"app={self.example.name}"

    @property
    def namespace(self) -> str:
        """Namespace of the example, which is that of its kubectl."""
        return self.kubectl.namespace or self.example.namespace

    @classmethod
    def find(cls, example: Example, *, images: str, namespace: str | None = None) -> "Tools":
        """Return the tools for the cluster of KUBECONFIG and RETUNE_KUBECONTEXT; raises CommandError without them.

        Args:
            example: What is run.
            images: Prefix of every image's name.
            namespace: Another namespace than that of the example.
        """
        for program in ("kubectl", "helm"):
            find_program(program)
        store = _chosen(example, "RETUNE_STORE", example.stores)
        target = _chosen(example, "RETUNE_TARGET", example.targets if store == "pvc" else ("deployment",))
        kubectl = Kubectl.of_environment().within(namespace or example.namespace)
        return cls(example, kubectl, context_of_environment(), images, store, target)

    def helm(self, *words: str) -> str:
        """Run helm in the operator's namespace and return what it prints; raises CommandError."""
        context = ["--kube-context", self.context] if self.context else []
        return run([find_program("helm"), *context, "--namespace", SYSTEM, *words])

    def apply(self, *names: str) -> None:
        """Apply files of the manifests folder, each as `manifest` returns it."""
        for name in names:
            text = self.manifest(name)
            manager = f"{self.example.name}-demo"
            forced = ("--server-side", "--force-conflicts", "--field-manager", manager)  # a demo changes its own things
            self.kubectl("apply", *forced, "--filename", "-", stdin=text)

    def apply_script(self, name: str, *scripts: Path) -> None:
        """Apply a ConfigMap with scripts, for a Job or a Deployment that runs them."""
        data = {script.name: script.read_text() for script in scripts}
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
        self.kubectl("apply", "--server-side", "--filename", "-", stdin=json.dumps(config))

    def manifest(self, name: str) -> str:
        """Return a file of the manifests folder, for this namespace and store and with the images of this cluster."""
        folder = self.example.folder / "manifests"
        own = [folder / self.target / name, folder / self.store / name, folder / name]
        text = next(path for path in own if path.exists()).read_text().replace(f"{IMAGES}/", f"{self.images}/")
        text = text.replace(STORES["pvc"], STORES[self.store])
        return text.replace(f"namespace: {self.example.namespace}\n", f"namespace: {self.namespace}\n")

    def pods(self) -> list[str]:
        """Return the names of the model server's ready pods."""
        pods = self.kubectl.items("pods", "--selector", self.selector)
        return [pod["metadata"]["name"] for pod in pods if _ready(pod)]


def _chosen(example: Example, variable: str, offered: Sequence[str]) -> str:
    """Return the value of a variable, or the first that is offered; raises DemoError for another one."""
    value = os.environ.get(variable) or offered[0]
    if value not in offered:
        hint = f"{variable}={' or '.join(offered)}"
        raise DemoError(f"{variable} is {value!r}, which example {example.name} has not", hint=hint)
    return value


def _ready(pod: Json) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    ready = any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
    return ready and not pod["metadata"].get("deletionTimestamp")


def source_digest(folder: Path) -> str:
    """Return a short hash of the Python files below `folder`."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        total.update(path.read_bytes())
    return total.hexdigest()[:12]


@contextmanager
def forwarded(tools: Tools, place: str, *, port: int | None = None) -> Iterator[str]:
    """Yield the base URL of the server at `pod/NAME` or `service/NAME` while a port-forward to it is open.

    Without a port, it is that of the model server.
    """
    port = port or (SERVICE_PORT if place.startswith("service/") else POD_PORT)
    words = tools.kubectl.words("port-forward", place, f":{port}", "--address", "127.0.0.1")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        try:
            line = child.stdout.readline() if child.stdout else ""
            local_port = re.search(r"127\.0\.0\.1:(\d+)", line)
            if not local_port:
                raise DemoError(f"no way to {place}: {line.strip()}", hint=" ".join(words))
            yield f"http://127.0.0.1:{local_port[1]}"
        finally:
            child.terminate()


def infer(tools: Tools, place: str, tensors: Sequence[Json]) -> Json:
    """Ask the Service or a pod, `service/NAME` or `pod/NAME`, by the Open Inference Protocol.

    Raises:
        DemoError: There is no answer.
    """
    name = tools.example.name
    with forwarded(tools, place) as url:
        request = urllib.request.Request(  # noqa: S310 - our own port-forward
            f"{url}/v2/models/{name}/infer",
            data=json.dumps({"inputs": tensors}).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=ASK_SECONDS) as response:  # noqa: S310 - the same
                answer: Json = json.load(response)
        except OSError as error:
            hint = f"kubectl -n {tools.namespace} logs {place}"
            raise DemoError(f"{place} does not answer: {error}", hint=hint) from error
    return answer
