"""What the pods of a target show, whichever controller made them: which are ready, what keeps others from it."""

from collections.abc import Iterable
from typing import Any, Final

from retune.api.base import Json
from retune.api.quantities import cores
from retune.plan.observed import Pods, ServingPod
from retune.targets import troubles

MAIN: Final = "containers"
INIT: Final = "initContainers"
LISTS: Final = (MAIN, INIT)
"""Lists of a pod's containers; names are unique over both."""


def seen(present: Iterable[Json], *, container: str, port: int, server: str | None = None) -> Pods:
    """Return how the pods of the present model are.

    Args:
        present: JSON of those pods.
        container: Name of the container that loads the model.
        port: HTTP port of the model server.
        server: Name of the container that serves, where another one prepares the model for it.
    """
    names = dict.fromkeys((container, server or container))
    pods = sorted(present, key=lambda pod: str(pod["metadata"]["name"]))
    crashes = [crash for pod in pods for name in names if (crash := troubles.crash_of(pod, name))]
    unready = [waiting for pod in pods for name in names if (waiting := troubles.unready(pod, name))]
    return Pods(
        endpoints=tuple(endpoint(pod, port) for pod in pods if troubles.ready(pod)),
        trouble=next((trouble for pod in pods if (trouble := troubles.of_pod(pod))), None),
        crash=max(crashes, key=lambda crash: crash.at, default=None),
        unready=min(unready, key=lambda waiting: waiting.at, default=None),
        serving=running(pods, container=server or container),
    )


def running(pods: Iterable[Json], *, container: str) -> tuple[ServingPod, ...]:
    """Return those pods that run and have an address."""
    return tuple(
        ServingPod(
            uid=pod["metadata"]["uid"],
            address=pod["status"]["podIP"],
            cpu_limit=cpu_limit(named(pod["spec"]["containers"], container).get("resources", {})),
        )
        for pod in pods
        if _reachable(pod.get("status", {}))
    )


def container_of(pod: Json, name: str) -> Json:
    """Return the container of that name, whichever list of a pod's spec it is in; empty where there is none."""
    return named((container for part in LISTS for container in pod.get(part) or ()), name)


def server_of(pod: Json, container: str) -> str:
    """Return the container that serves: the one that loads the model, or the pod's first where that runs before it.

    Args:
        pod: The pod's spec, as its template has it: what meshes put into a pod may stand before the server.
        container: Name of the container that loads the model.
    """
    if not named(pod.get(INIT) or (), container) or not pod.get(MAIN):
        return container
    return str(pod[MAIN][0]["name"])


def cpu_limit(resources: Json) -> float | None:
    """Return the cores that a container may use: without a limit what it requests, but at least one core."""
    if limit := resources.get("limits", {}).get("cpu"):
        return cores(limit)
    request = resources.get("requests", {}).get("cpu")
    return max(1.0, cores(request)) if request else None


def named(items: Iterable[Json], name: str) -> Json:
    """Return the entry of that name, empty where there is none."""
    return next((item for item in items if item["name"] == name), {})


def selector(selector: Json) -> str:
    """Return a label selector in the form of a query parameter."""
    labels = [f"{key}={value}" for key, value in selector.get("matchLabels", {}).items()]
    return ",".join(labels + [_expression(requirement) for requirement in selector.get("matchExpressions", ())])


def _expression(requirement: Json) -> str:
    key, operator, values = requirement["key"], requirement["operator"], ",".join(requirement.get("values", ()))
    forms: dict[Any, str] = {"In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})", "Exists": f"{key}"}
    return forms.get(operator, f"!{key}")


def _reachable(status: Json) -> bool:
    return status.get("phase") == "Running" and bool(status.get("podIP"))


def endpoint(pod: Json, port: int) -> str:
    """Return the base URL of a pod that has an address."""
    address = pod["status"]["podIP"]
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
