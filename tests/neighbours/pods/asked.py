"""The pods of a stock Triton as their users and their owner see them, from the cluster's own node."""

import json
import time
from collections.abc import Callable
from typing import Any
from urllib.request import Request, urlopen

from optimizer_jobs.models.version_numbers import number_of
from tests.e2e import kube
from tests.e2e.asking import BODY
from tests.e2e.scenario import NAMESPACE
from tests.neighbours.pods.manifests import PORT

Json = dict[str, Any]
SECONDS, PAUSE_SECONDS = 10.0, 0.05


def asker(service: str, model: str = "") -> Callable[[], str]:
    """Return what asks a Service once, over a new connection, and returns the version of the model that has answered.

    model: The model's name, where it is not that of the Service.
    """
    address = kube.get("service", service, namespace=NAMESPACE)["spec"]["clusterIP"]
    url = f"http://{address}:{PORT}/v2/models/{model or service}/infer"

    def ask() -> str:
        request = Request(url, json.dumps(BODY).encode(), {"Content-Type": "application/json"})
        with urlopen(request, timeout=SECONDS) as answer:  # noqa: S310 - a server of our own
            version = str(json.load(answer)["model_version"])
        time.sleep(PAUSE_SECONDS)  # the node's cores are for the servers
        return version

    return ask


def numbered(uri: str) -> str:
    """Return the version by which answers name the bundle at a URI."""
    return str(number_of(f"sha256:{uri.rpartition('/')[2]}"))


def pods(selector: str) -> list[Json]:
    """Return pods that are not being deleted, the oldest first."""
    found = kube.items("pods", namespace=NAMESPACE, selector=selector)
    alive = [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]
    return sorted(alive, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))


def state(pod: Json, container: str) -> Json:
    """Return the status of a container, of either list; empty before the kubelet tells any."""
    status = pod["status"]
    listed = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    return next((entry for entry in listed if entry["name"] == container), {})


def last_words(pod: Json, container: str) -> str:
    """Return what a container left when it ended last; nothing where it has not."""
    status = state(pod, container)
    ends = (status.get(which, {}).get("terminated", {}) for which in ("state", "lastState"))
    return next((str(end["message"]) for end in ends if end.get("message")), "")
