"""Plays the kubelet where controllers are real: it says of every pod but those of Jobs that it runs, and is ready."""

from collections.abc import Callable
from typing import Any

from tests.faults.background import Background
from tests.faults.stagehand import now
from tools.localcluster.api import Api, ApiError

Json = dict[str, Any]
_MERGE = "application/merge-patch+json"


class Kubelet(Background):
    """Speaks for the pods of a namespace until stopped.

    is_broken: whether a pod of this JSON runs without ever being ready.
    """

    def __init__(self, api: Api, namespace: str, *, is_broken: Callable[[Json], bool] = lambda _: False) -> None:
        self._api = api
        self._pods = f"/api/v1/namespaces/{namespace}/pods"
        self._is_broken = is_broken
        super().__init__("kubelet")

    def play_once(self) -> None:
        """Let pods run that wait."""
        for pod in self._api.get(f"{self._pods}?fieldSelector=status.phase%3DPending")["items"]:
            try:
                if pod["metadata"]["ownerReferences"][0]["kind"] != "Job":
                    self._run(pod)
            except ApiError as error:
                if error.status != 404:  # it was deleted meanwhile
                    raise

    def address(self, pod: Json) -> str:
        """Return the address of a pod that is about to run; nobody answers there."""
        return f"10.7.0.{sum(pod['metadata']['uid'].encode()) % 250 + 1}"

    def _run(self, pod: Json) -> None:
        """Say that the pod runs; nobody deletes it gracefully, as it has no node."""
        ready = "False" if self._is_broken(pod) else "True"
        conditions = [{"type": kind, "status": ready, "lastTransitionTime": now()} for kind in ("Ready",)]
        states = [
            {
                "name": container["name"],
                "image": "x",
                "imageID": "x",
                "ready": ready == "True",
                "restartCount": 0,
                "state": {"running": {"startedAt": now()}},
            }
            for container in pod["spec"]["containers"]
        ]
        status = {"phase": "Running", "podIP": self.address(pod), "conditions": conditions}
        path = f"{self._pods}/{pod['metadata']['name']}/status"
        self._api.request("PATCH", path, {"status": status | {"containerStatuses": states}}, kind=_MERGE)


def value_of(pod: Json, variable: str = "MODEL_URI") -> str | None:
    """Return the value of a variable of the pod's first container."""
    environment = {entry["name"]: entry.get("value") for entry in pod["spec"]["containers"][0].get("env", ())}
    return environment.get(variable)
