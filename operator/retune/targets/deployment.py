"""A Deployment as target: its pods read the model's URI from an environment variable, which is the field we own."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from retune.api import FIELD_MANAGER
from retune.api.base import Json
from retune.api.quantities import cores
from retune.plan.observed import Container, Pods, ServingPod, Target
from retune.targets import troubles


class Deployment:
    """`apps/v1` Deployment."""

    api_version = "apps/v1"
    kind = "Deployment"
    resource = "deployments"

    def path(self, *, namespace: str, name: str | None = None) -> str:
        """Return the URL path of one Deployment, or of the namespace's list."""
        folder = f"/apis/{self.api_version}/namespaces/{namespace}/{self.resource}"
        return f"{folder}/{name}" if name else folder

    def parse(self, raw: Json, *, variable: str) -> Target:
        """Return the Deployment as its controller last reported it."""
        pod = raw["spec"]["template"]["spec"]
        status = raw.get("status", {})
        wanted = raw["spec"].get("replicas", 1)
        return Target(
            name=raw["metadata"]["name"],
            uid=raw["metadata"]["uid"],
            containers=tuple(_container(container, raw, variable) for container in pod["containers"]),
            settled=_settled(raw, wanted),
            available=status.get("availableReplicas", 0),
            wanted=wanted,
            progress=_progress(raw, wanted),
            outage=_outage(raw["spec"].get("strategy", {}), wanted),
            node_selector=pod.get("nodeSelector", {}),
            tolerations=tuple(pod.get("tolerations", ())),
            claims=_claims(pod),
            labels=raw["spec"]["selector"].get("matchLabels", {}),
            template=_template(raw["spec"]["template"], variable),
            hindrance=_hindrance(raw),
        )

    def apply_body(self, *, name: str, uid: str, container: str, variable: str, value: str | None) -> Json:
        """Return the body of the server-side apply that owns the variable's value, or nothing any more."""
        body: Json = {"apiVersion": self.api_version, "kind": self.kind, "metadata": {"name": name, "uid": uid}}
        if value is not None:
            containers = [{"name": container, "env": [{"name": variable, "value": value}]}]
            body["spec"] = {"template": {"spec": {"containers": containers}}}
        return body

    def pod_selector(self, raw: Json) -> str:
        """Return the Deployment's selector in the form of a query parameter."""
        selector = raw["spec"]["selector"]
        labels = [f"{key}={value}" for key, value in selector.get("matchLabels", {}).items()]
        return ",".join(labels + [_expression(requirement) for requirement in selector.get("matchExpressions", ())])

    def pods(self, raw: Json, pods: Iterable[Json], *, container: str, variable: str, port: int) -> Pods:
        """Return the Deployment's pods whose container has the template's value of the variable."""
        value = _literal(_named(raw["spec"]["template"]["spec"]["containers"], container), variable)
        name = raw["metadata"]["name"]
        present = sorted(
            (pod for pod in pods if _belongs(pod, name) and _runs(pod, container, variable, value)),
            key=lambda pod: str(pod["metadata"]["name"]),
        )
        crashes = [crash for pod in present if (crash := troubles.crash_of(pod, container))]
        unready = [waiting for pod in present if (waiting := troubles.unready(pod, container))]
        return Pods(
            endpoints=tuple(_endpoint(pod, port) for pod in present if troubles.ready(pod)),
            trouble=next((trouble for pod in present if (trouble := troubles.of_pod(pod))), None),
            crash=max(crashes, key=lambda crash: crash.at, default=None),
            unready=min(unready, key=lambda waiting: waiting.at, default=None),
            serving=self.serving(raw, present, container=container),
        )

    def serving(self, raw: Json, pods: Iterable[Json], *, container: str) -> tuple[ServingPod, ...]:
        """Return the Deployment's own running pods, of any template."""
        name = raw["metadata"]["name"]
        return tuple(
            ServingPod(
                uid=pod["metadata"]["uid"],
                address=pod["status"]["podIP"],
                cpu_limit=_cpu_limit(_named(pod["spec"]["containers"], container).get("resources", {})),
            )
            for pod in pods
            if _belongs(pod, name) and _reachable(pod.get("status", {}))
        )


def _container(container: Json, raw: Json, variable: str) -> Container:
    return Container(
        name=container["name"],
        value=_literal(container, variable),
        indirect="valueFrom" in _named(container.get("env", ()), variable),
        manager=_manager(raw["metadata"].get("managedFields", ()), container["name"], variable),
        cpu_limit=_cpu_limit(container.get("resources", {})),
    )


def _claims(pod: Json) -> frozenset[str]:
    claims = (volume.get("persistentVolumeClaim") for volume in pod.get("volumes", ()))
    return frozenset(claim["claimName"] for claim in claims if claim)


def _cpu_limit(resources: Json) -> float | None:
    """Return the cores that the container may use: without a limit what it requests, but at least one core."""
    if limit := resources.get("limits", {}).get("cpu"):
        return cores(limit)
    request = resources.get("requests", {}).get("cpu")
    return max(1.0, cores(request)) if request else None


def _named(items: Iterable[Json], name: str) -> Json:
    return next((item for item in items if item["name"] == name), {})


def _literal(container: Json, variable: str) -> str | None:
    """Return the variable's literal value, which may be empty; None where it is not set or comes from elsewhere."""
    entry = _named(container.get("env", ()), variable)
    return None if not entry or "valueFrom" in entry else entry.get("value", "")


def _manager(managed: Iterable[Json], container: str, variable: str) -> str | None:
    """Return the field manager that owns the variable's value; of several, one other than Retune: it would conflict."""
    path = ["f:spec", "f:template", "f:spec", "f:containers", _key(container), "f:env", _key(variable), "f:value"]
    owners = [entry["manager"] for entry in managed if "subresource" not in entry and _owns(entry, path)]
    return min(owners, key=lambda owner: (owner == FIELD_MANAGER, owner), default=None)


def _owns(entry: Json, path: list[str]) -> bool:
    fields: Any = entry.get("fieldsV1", {})
    for step in path:
        if not isinstance(fields, Mapping) or step not in fields:
            return False
        fields = fields[step]
    return True


def _key(name: str) -> str:
    return "k:" + json.dumps({"name": name}, separators=(",", ":"))


def _settled(raw: Json, wanted: int) -> bool:
    status = raw.get("status", {})
    seen = status.get("observedGeneration", 0) >= raw["metadata"].get("generation", 0)
    counts = (status.get(count, 0) for count in ("replicas", "updatedReplicas", "availableReplicas"))
    return seen and all(count == wanted for count in counts)


def _progress(raw: Json, wanted: int) -> str:
    status = raw.get("status", {})
    updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    old = status.get("replicas", 0) - updated
    if status.get("observedGeneration", 0) < raw["metadata"].get("generation", 0):
        return "its controller has not seen the change yet"
    if updated < wanted:
        return f"{updated} of {wanted} pods replaced" + _obstacle(raw)
    if available - old < wanted:
        return f"{max(0, available - old)} of {wanted} new pods available" + _obstacle(raw)
    return f"{old} old pods still ending" if old > 0 else f"{available} of {wanted} pods available"


def _outage(strategy: Json, wanted: int) -> str | None:
    """Return why no pod may answer while the pods are replaced, or None where enough of them stay."""
    if strategy.get("type") == "Recreate":
        return "its strategy is Recreate, which ends all pods before new ones start: take RollingUpdate"
    limits = strategy.get("rollingUpdate") or {}
    unavailable = _share(limits.get("maxUnavailable", "25%"), wanted, math.floor)
    if _share(limits.get("maxSurge", "25%"), wanted, math.ceil) == 0:
        unavailable = max(1, unavailable)  # as its controller does, which could else replace nothing
    if unavailable < wanted or wanted == 0:
        return None
    pods = "its only pod" if wanted == 1 else f"all {wanted} pods"
    return f"its strategy may end {pods} before a new one is ready: raise replicas, or set maxUnavailable to 0"


def _share(amount: int | str, wanted: int, rounded: Callable[[float], int]) -> int:
    """Return a number of pods that is given as such, or as a percentage of those wanted."""
    return rounded(int(amount.rstrip("%")) * wanted / 100) if isinstance(amount, str) else amount


def _obstacle(raw: Json) -> str:
    """Return what the Deployment itself says stands in the way, if anything."""
    if hindrance := _hindrance(raw):
        return f"; {hindrance}"
    progressing = _conditions(raw).get("Progressing", {})
    return f"; {progressing.get('message', '')}" if progressing.get("status") == "False" else ""


def _hindrance(raw: Json) -> str | None:
    """Return why the Deployment's controller makes no pods: it is paused, or they are refused, as by a quota."""
    if raw["spec"].get("paused"):
        return "the Deployment is paused: resume it with `kubectl rollout resume`"
    failure = _conditions(raw).get("ReplicaFailure", {})
    return str(failure.get("message", failure.get("reason", ""))) if failure.get("status") == "True" else None


def _conditions(raw: Json) -> dict[str, Json]:
    return {condition["type"]: condition for condition in raw.get("status", {}).get("conditions", ())}


def _template(template: Json, variable: str) -> str:
    """Return a hash of the pod template that does not change with the variable."""
    envs = [
        [entry for entry in container.get("env", ()) if entry["name"] != variable]
        for container in template["spec"]["containers"]
    ]
    return _hash([template.get("digest") or template_digest(template), envs])


def template_digest(template: Json) -> str:
    """Return a hash of a pod template but for its containers' variables."""
    pod = template["spec"]
    containers = [{name: part for name, part in entry.items() if name != "env"} for entry in pod["containers"]]
    return _hash([template.get("metadata"), pod | {"containers": containers}])


def _hash(document: list[Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:16]


def _expression(requirement: Json) -> str:
    key, operator, values = requirement["key"], requirement["operator"], ",".join(requirement.get("values", ()))
    forms = {"In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})", "Exists": f"{key}"}
    return forms.get(operator, f"!{key}")


def _belongs(pod: Json, deployment: str) -> bool:
    """Return whether one of the Deployment's ReplicaSets made the pod and it is not being deleted."""
    meta = pod["metadata"]
    replica_set = f"{deployment}-{meta.get('labels', {}).get('pod-template-hash')}"
    owners = meta.get("ownerReferences", ())
    is_owned = any(owner["kind"] == "ReplicaSet" and owner["name"] == replica_set for owner in owners)
    return is_owned and "deletionTimestamp" not in meta


def _reachable(status: Json) -> bool:
    return status.get("phase") == "Running" and bool(status.get("podIP"))


def _runs(pod: Json, container: str, variable: str, value: str | None) -> bool:
    return _literal(_named(pod["spec"]["containers"], container), variable) == value


def _endpoint(pod: Json, port: int) -> str:
    address = pod["status"]["podIP"]
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
