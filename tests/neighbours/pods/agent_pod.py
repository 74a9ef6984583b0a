"""The page's server that runs on, with its agent: told by a ConfigMap what to serve, and asked what it serves."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.e2e import kube
from tests.e2e.scenario import NAMESPACE
from tests.neighbours.pods import manifests
from tests.neighbours.pods.asked import asker, pods
from tools.localcluster.shell import wait_for

Json = dict[str, Any]
PORT = 8090
SECONDS = 180.0


@dataclass(frozen=True)
class Running:
    """One pod that runs on."""

    config: str
    """Name of the ConfigMap."""
    pod: str
    uid: str
    ask: Callable[[], str]
    """Asks the server as a user does; see `asker`."""

    def want(self, uri: str) -> None:
        """Have another bundle wanted; the kubelet hears of it at once, by the annotation of the page."""
        patch = json.dumps({"data": {"uri": uri}})
        kube.kubectl("patch", "configmap", self.config, "-n", NAMESPACE, "--type=merge", "-p", patch)
        mark = f"wanted={uri[-63:]}"
        kube.kubectl("annotate", "pod", self.pod, "-n", NAMESPACE, "--overwrite", mark)

    def told(self) -> Mapping[str, Any]:
        """Return what the agent says."""
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{self.pod}:{PORT}/proxy/version"
        document: Json = json.loads(kube.kubectl("get", "--raw", path))
        return document

    def until_served(self, uri: str) -> None:
        """Wait until a bundle serves, and is proved."""
        wanted = {"ready": True, "wanted": uri, "served": served(uri)}
        self._until(lambda told: wanted.items() <= told.items(), f"service of {uri}")

    def until_fault(self, uri: str, words: str) -> Mapping[str, Any]:
        """Wait until the agent says what is wrong with a bundle, and return all that it says."""
        self._until(lambda told: told["wanted"] == uri and words in str(told["fault"]), f"fault of {uri}")
        return self.told()

    def _until(self, reached: Callable[[Mapping[str, Any]], bool], what: str) -> None:
        wait_for(lambda: reached(self.told()), what=what, seconds=SECONDS, hint=lambda: str(self.told()))


def served(uri: str) -> str:
    """Return the digest that a URI of a bundle names."""
    return f"sha256:{uri.rpartition('/')[2]}"


@contextmanager
def running(name: str, uri: str) -> Iterator[Running]:
    """Have the page's Deployment that runs on, of one pod, which gives every answer; then remove it."""
    config, deployment = manifests.running(name, uri)
    deployment["spec"]["replicas"] = 1
    place = deployment["metadata"]["name"]
    kube.apply(config, deployment, manifests.service(place))
    kube.kubectl("rollout", "status", f"deployment/{place}", "-n", NAMESPACE, "--timeout=4m")
    (pod,) = pods(f"app={place}")
    found = Running(config["metadata"]["name"], pod["metadata"]["name"], pod["metadata"]["uid"], asker(place, name))
    found.until_served(uri)
    yield found
    kube.kubectl("delete", f"deployment/{place}", f"service/{place}", "-n", NAMESPACE, "--wait=false")
