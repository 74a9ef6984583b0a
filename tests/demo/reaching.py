"""Which addresses a pod reaches: a short-lived pod with given labels tries to connect, and tells which answered."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.e2e import kube

Json = dict[str, Any]
_NAME = "reaching"
_TRY = """
import json, socket, sys, time

def reaches(place):
    host, _, port = place.rpartition(":")
    end = time.monotonic() + 8  # an enforcer hears of a new pod a moment later
    while time.monotonic() < end:
        try:
            socket.create_connection((host, int(port)), timeout=2).close()
        except OSError:
            time.sleep(0.2)
        else:
            return True
    return False

print(json.dumps([place for place in sys.argv[1:] if reaches(place)]))
"""


def reached(places: Sequence[str], *, namespace: str, labels: Mapping[str, str]) -> set[str]:
    """Return which places a pod with these labels can connect to.

    Args:
        places: `ADDRESS:PORT` each.
        namespace: Where the pod runs; a namespace that is there.
        labels: Labels of the pod.
    """
    kubectl = kube.kubectl.within(namespace)
    kube.apply(_pod(places, namespace=namespace, labels=labels))
    try:
        kubectl("wait", f"pod/{_NAME}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=2m")
        return set(json.loads(kubectl("logs", _NAME)))
    finally:
        kubectl("delete", "pod", _NAME, "--wait", "--timeout=1m")


def _pod(places: Sequence[str], *, namespace: str, labels: Mapping[str, str]) -> Json:
    """Return the pod; it asks for no resources, as pods do whose owners leave that to the namespace."""
    container = {
        "name": "python",
        "image": kube.OPTIMIZER,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-c", _TRY, *places],
        "securityContext": kube.CONTAINER_SECURITY,
    }
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": kube.POD_SECURITY,
        "containers": [container],
    }
    metadata = {"name": _NAME, "namespace": namespace, "labels": dict(labels)}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
