"""The demo's hands: kubectl and helm as a person would call them, port-forwards, and questions to the model server.

Every command is one that can be typed; a failed one becomes a `DemoError` with its own words.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from examples.digits.train import LOGITS, PIXELS, Split

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


class DemoError(Exception):
    """A step failed: what is wrong, and the command that shows more or helps."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Tools:
    """kubectl and helm for one cluster, and the namespace of the example. images: the prefix of every image's name."""

    kubectl_path: str
    helm_path: str
    context: str | None
    images: str
    namespace: str = NAMESPACE

    @classmethod
    def find(cls, *, images: str) -> "Tools":
        """Return the tools on PATH, else those that the local cluster was built with."""
        context = os.environ.get("RETUNE_KUBECONTEXT") or None
        return cls(_program("kubectl"), _program("helm"), context, images)

    def kubectl(self, *words: str, stdin: str | None = None, namespace: str | None = None) -> str:
        """Run kubectl and return what it prints."""
        return run(self.kubectl_words(*words, namespace=namespace), stdin=stdin)

    def kubectl_words(self, *words: str, namespace: str | None = None) -> list[str]:
        """Return a kubectl command for a child process of its own."""
        context = ["--context", self.context] if self.context else []
        return [self.kubectl_path, *context, "--namespace", namespace or self.namespace, *words]

    def helm(self, *words: str) -> str:
        """Run helm in the operator's namespace and return what it prints."""
        context = ["--kube-context", self.context] if self.context else []
        return run([self.helm_path, *context, "--namespace", SYSTEM, *words])

    def get(self, *words: str, namespace: str | None = None) -> Json | None:
        """Return an object, or a list of them, as JSON; None when it is not there."""
        answer = self.kubectl("get", *words, "--ignore-not-found", "--output", "json", namespace=namespace)
        document: Json | None = json.loads(answer) if answer.strip() else None
        return document

    def apply(self, *files: str) -> None:
        """Apply files of the manifests folder to this namespace, with the images of this cluster."""
        for name in files:
            self.kubectl(
                "apply", "--server-side", "--field-manager", "digits-demo", "--filename", "-", stdin=self.manifest(name)
            )

    def manifest(self, name: str) -> str:
        """Return a file of the manifests folder, for this namespace and with the images of this cluster."""
        text = (MANIFESTS / name).read_text().replace(f"{IMAGES}/", f"{self.images}/")
        return text.replace(f"namespace: {NAMESPACE}\n", f"namespace: {self.namespace}\n")

    def pods(self) -> list[str]:
        """Return the names of the model server's ready pods."""
        found = self.get("pods", "--selector", f"app={NAME}") or {"items": []}
        return [pod["metadata"]["name"] for pod in found["items"] if _ready(pod)]


def _ready(pod: Json) -> bool:
    conditions = pod.get("status", {}).get("conditions", [])
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return ready and not pod["metadata"].get("deletionTimestamp")


def _program(name: str) -> str:
    from tools.localcluster.settings import load

    found = shutil.which(name) or shutil.which(name, path=str(load().bin))
    if not found:
        raise DemoError(f"{name} is neither on PATH nor built by the local cluster", hint="make cluster-up")
    return found


def run(words: Sequence[str], *, stdin: str | None = None) -> str:
    """Run a program to its end and return its standard output; raises DemoError with its standard error."""
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode:
        shown = " ".join([Path(words[0]).name, *words[1:]])
        raise DemoError(f"`{shown}` failed: {done.stderr.strip() or done.stdout.strip()}", hint=shown)
    return done.stdout


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
    words = tools.kubectl_words("port-forward", place, f":{port}", "--address", "127.0.0.1")
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
        try:
            line = child.stdout.readline() if child.stdout else ""
            found = re.search(r"127\.0\.0\.1:(\d+)", line)
            if not found:
                raise DemoError(f"no way to {place}: {line.strip()}", hint=" ".join(words))
            yield f"http://127.0.0.1:{found[1]}"
        finally:
            child.terminate()


@dataclass(frozen=True)
class Answer:
    """What was said there: the version that serves (12 digits of a digest) and one predicted digit a row."""

    place: str
    version: str
    digits: tuple[int, ...]


def ask(tools: Tools, place: str, rows: Split) -> Answer:
    """Ask the Service or one pod for predictions by the Open Inference Protocol."""
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
    output = next(each for each in answer["outputs"] if each["name"] == LOGITS)
    scores = np.asarray(output["data"]).reshape(output["shape"])
    return Answer(place, answer.get("model_version") or "?", tuple(scores.argmax(axis=1).tolist()))
