"""What the demo does with a cluster: kubectl and helm, port-forwards, and questions to the model server.

Every command is one that can be typed; a failed one is a `CommandError` with the program's own words.
"""

import hashlib
import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from examples.digits.train import LOGITS, PIXELS, Split
from tools.kubectl import CommandError, Kubectl, context_of_environment, find_program, run

Json = dict[str, Any]

REPOSITORY = Path(__file__).resolve().parents[2]
MANIFESTS = Path(__file__).resolve().parent / "manifests"
NAMESPACE = "digits"
SYSTEM = "retune-system"
RELEASE = "retune"
NAME = "digits"
IMAGES = "localhost/retune"
ASK_SECONDS = 10.0
SERVICE_PORT = 80
POD_PORT = 8080


class DemoError(CommandError):
    """A step of the demo failed; the hint is a command that shows more or helps."""


@dataclass(frozen=True)
class Tools:
    """kubectl and helm for one cluster, and what the example is installed with."""

    kubectl: Kubectl
    """kubectl for the example's namespace."""
    context: str | None
    """Context of the kubeconfig; None for the current one."""
    images: str
    """Prefix of every image's name."""

    @property
    def namespace(self) -> str:
        """Namespace of the example, which is that of its kubectl."""
        return self.kubectl.namespace or NAMESPACE

    @classmethod
    def find(cls, *, images: str, namespace: str = NAMESPACE) -> "Tools":
        """Return the tools for the cluster of KUBECONFIG and RETUNE_KUBECONTEXT; raises CommandError without them."""
        for program in ("kubectl", "helm"):
            find_program(program)
        return cls(Kubectl.of_environment().within(namespace), context_of_environment(), images)

    def helm(self, *words: str) -> str:
        """Run helm in the operator's namespace and return what it prints; raises CommandError."""
        context = ["--kube-context", self.context] if self.context else []
        return run([find_program("helm"), *context, "--namespace", SYSTEM, *words])

    def apply(self, *names: str) -> None:
        """Apply files of the manifests folder, each as `manifest` returns it."""
        for name in names:
            text = self.manifest(name)
            self.kubectl("apply", "--server-side", "--field-manager", "digits-demo", "--filename", "-", stdin=text)

    def apply_script(self, name: str, script: Path) -> None:
        """Apply a ConfigMap with a script, for a Job or a Deployment that runs it."""
        data = {script.name: script.read_text()}
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
        self.kubectl("apply", "--server-side", "--filename", "-", stdin=json.dumps(config))

    def manifest(self, name: str) -> str:
        """Return a file of the manifests folder, for this namespace and with the images of this cluster."""
        text = (MANIFESTS / name).read_text().replace(f"{IMAGES}/", f"{self.images}/")
        return text.replace(f"namespace: {NAMESPACE}\n", f"namespace: {self.namespace}\n")

    def pods(self) -> list[str]:
        """Return the names of the model server's ready pods."""
        pods = self.kubectl.items("pods", "--selector", f"app={NAME}")
        return [pod["metadata"]["name"] for pod in pods if _ready(pod)]


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
def forwarded(tools: Tools, place: str) -> Iterator[str]:
    """Yield the base URL of the model server at `pod/NAME` or `service/NAME` while a port-forward to it is open."""
    port = SERVICE_PORT if place.startswith("service/") else POD_PORT
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


@dataclass(frozen=True)
class Answer:
    """What the Service or a pod has answered."""

    place: str
    """Where it was asked: `service/NAME` or `pod/NAME`."""
    version: str
    """The version that serves: the first 12 digits of the digest of its bundle."""
    digits: tuple[int, ...]
    """One predicted digit a row."""


def ask(tools: Tools, place: str, rows: Split) -> Answer:
    """Ask the Service or a pod for predictions by the Open Inference Protocol; raises DemoError without an answer."""
    tensor = {
        "name": PIXELS,
        "shape": list(rows.pixels.shape),
        "datatype": "FP32",
        "data": rows.pixels.ravel().tolist(),
    }
    with forwarded(tools, place) as url:
        request = urllib.request.Request(  # noqa: S310 - our own port-forward
            f"{url}/v2/models/{NAME}/infer",
            data=json.dumps({"inputs": [tensor]}).encode(),
            headers={"Content-Type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=ASK_SECONDS) as response:  # noqa: S310 - the same
                answer: Json = json.load(response)
        except OSError as error:
            raise DemoError(f"{place} does not answer: {error}", hint=f"kubectl -n {NAMESPACE} logs {place}") from error
    output = next(output for output in answer["outputs"] if output["name"] == LOGITS)
    scores = np.asarray(output["data"]).reshape(output["shape"])
    return Answer(place, answer.get("model_version") or "?", tuple(scores.argmax(axis=1).tolist()))
