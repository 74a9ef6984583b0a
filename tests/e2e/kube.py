"""What a person does with kubectl and helm, for tests on a real cluster: apply, wait, read, install."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from examples.digits.kube import DIGITS
from examples.kube import IMAGES, RELEASE, SYSTEM, Tools
from examples.steps import install
from tools.kubectl import CommandError, Kubectl

Json = dict[str, Any]
TAG = "dev"
REGISTRY = os.environ.get("RETUNE_IMAGES", IMAGES)
OPTIMIZER = f"{REGISTRY}/optimizer:{TAG}"
SERVER = f"{REGISTRY}/digits-server:{TAG}"
kubectl = Kubectl.of_environment()
"""kubectl for the cluster of KUBECONFIG and, if set, of RETUNE_KUBECONTEXT."""


def apply(*documents: Json) -> None:
    """Apply objects as a person would."""
    kubectl("apply", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": documents}))


def apply_whole(document: Json) -> None:
    """Apply an object that is too large to be kept in an annotation of its own, as some CRDs are."""
    kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(document))


def get(kind: str, name: str, *, namespace: str) -> Json:
    """Return one object."""
    return kubectl.within(namespace).get(kind, name)


def items(kind: str, *, namespace: str, selector: str = "") -> list[Json]:
    """Return the objects of a kind."""
    return kubectl.within(namespace).items(kind, "--selector", selector)


def condition(resource: Json, kind: str) -> Json:
    """Return a condition of an object, empty when it has none of that type."""
    return next((each for each in resource.get("status", {}).get("conditions", ()) if each["type"] == kind), {})


def wait_reason(name: str, kind: str, reason: str, *, namespace: str, seconds: int = 240) -> Json:
    """Wait until a ModelOptimization's condition has a reason; returns the object, or fails with what it says."""
    path = f'{{.status.conditions[?(@.type=="{kind}")].reason}}={reason}'
    until = (f"--for=jsonpath={path}", f"--timeout={seconds}s")
    try:
        kubectl.within(namespace)("wait", f"modeloptimization/{name}", *until, seconds=seconds + 30)
    except CommandError as error:
        status = get("modeloptimization", name, namespace=namespace).get("status", {})
        raise CommandError(f"{error}\n{json.dumps(status, indent=1)}", hint=error.hint) from None
    return get("modeloptimization", name, namespace=namespace)


def ended_runs(name: str, *, namespace: str) -> list[Json]:
    """Wait until every run of a ModelOptimization has its outcome on record; returns them, oldest first.

    The operator writes the resource's status first and the record of the run after it, so who has just read
    the one may have to wait a moment for the other.
    """
    selector = f"retune.dev/resource={name}"
    until = ("--for=jsonpath={.status.outcome}", "--timeout=60s")
    kubectl.within(namespace)("wait", "optimizationruns", "--selector", selector, *until, seconds=90)
    found = items("optimizationruns", namespace=namespace, selector=selector)
    return sorted(found, key=lambda run: int(run["spec"]["number"]))


def install_operator(*settings: str) -> None:
    """Install the chart as the demo does, and start the operator anew, so that it runs the image built last."""
    install(Tools.find(DIGITS, images=REGISTRY), *settings)
    kubectl("rollout", "restart", f"deployment/{RELEASE}", "-n", SYSTEM)
    kubectl("rollout", "status", f"deployment/{RELEASE}", "-n", SYSTEM, "--timeout=3m")


def kill_operator() -> None:
    """Kill the operator without a goodbye, as `kill -9` does; its Deployment starts another."""
    kubectl("delete", "pods", "-n", SYSTEM, "--all", "--grace-period=0", "--force")


def namespace(name: str) -> Json:
    """Return a namespace that lets in nothing but restricted pods."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def claim(name: str, *, namespace: str, size: str = "1Gi") -> Json:
    """Return a claim on the default storage class."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": size}}},
    }


def python_job(
    name: str, script: Path, *, namespace: str, claims: Iterable[str], arguments: Iterable[str] = ()
) -> tuple[Json, Json]:
    """Return a ConfigMap with a script and a restricted Job of the optimizer's image that runs it."""
    source = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": {script.name: script.read_text(encoding="utf-8")},
    }
    names = list(claims)
    volumes: list[Json] = [{"name": each, "persistentVolumeClaim": {"claimName": each}} for each in names]
    mounts = [{"name": each, "mountPath": f"/mnt/pvc/{each}"} for each in names]
    container = {
        "name": "python",
        "image": OPTIMIZER,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", f"/script/{script.name}", *arguments],
        "volumeMounts": [*mounts, {"name": "script", "mountPath": "/script"}, {"name": "tmp", "mountPath": "/tmp"}],
        "securityContext": CONTAINER_SECURITY,
    }
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": POD_SECURITY,
        "containers": [container],
        "volumes": [*volumes, {"name": "script", "configMap": {"name": name}}, {"name": "tmp", "emptyDir": {}}],
    }
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"backoffLimit": 0, "template": {"spec": pod}},
    }
    return source, job


CONTAINER_SECURITY: Json = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
POD_SECURITY: Json = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "runAsGroup": 65532,
    "fsGroup": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}
