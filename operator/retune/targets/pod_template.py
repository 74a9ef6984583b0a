"""Workloads with a pod template, of which a container reads the model's URI from a variable: what all such kinds share.

It may be one that runs before the others, and writes what the server reads.

A kind of them is a subclass that says how its own controller reports a rollout. Nothing here knows a kind by name.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from retune.api import FIELD_MANAGER
from retune.api.base import Json
from retune.plan.observed import Container, Pods, ServingPod, Target
from retune.targets import serving
from retune.targets.serving import INIT, MAIN

SOURCE: Final = "internal.serving.kserve.io/storage-initializer-sourceuri"
"""Annotation by which KServe says where the pods of a template have their model from."""


class PodTemplated(ABC):
    """A kind whose pods are made of `spec.template`."""

    api_version: str
    kind: str
    resource: str
    merges_lists = True
    spec_fields: tuple[str, ...]
    """Fields of the spec, beside the template, that say how pods are replaced."""
    status_fields: tuple[str, ...]
    """Fields of the status that say how far that is."""

    def path(self, *, namespace: str, name: str | None = None) -> str:
        """Return the URL path of one workload, or of the namespace's list."""
        folder = f"/apis/{self.api_version}/namespaces/{namespace}/{self.resource}"
        return f"{folder}/{name}" if name else folder

    def trimmed(self, raw: Json) -> Json:
        """Return what the other methods look at."""
        meta, spec, status = raw["metadata"], raw["spec"], raw.get("status") or {}
        conditions = [picked(entry, "type", "status", "reason", "message") for entry in status.get("conditions") or ()]
        return {
            "metadata": {
                **picked(meta, "name", "namespace", "uid", "generation", "deletionTimestamp"),
                "managedFields": _env_owners(meta.get("managedFields") or ()),
            },
            "spec": {
                **picked(spec, "replicas", "selector", *self.spec_fields),
                "template": _trimmed_template(template_of(raw)),
            },
            "status": {**picked(status, *self.status_fields), "conditions": conditions},
        }

    def beside(self, name: str) -> tuple[str, ...]:
        """Return nothing: the workload says all of itself."""
        del name
        return ()

    def drives(self, raw: Json) -> str | None:
        """Return nothing: the pods are those of its own template."""
        del raw
        return None

    def parse(self, raw: Json, *, variable: str) -> Target:
        """Return the workload as its controller last reported it."""
        pod = template_of(raw)["spec"]
        wanted = raw["spec"].get("replicas", 1)
        return Target(
            name=raw["metadata"]["name"],
            uid=raw["metadata"]["uid"],
            containers=tuple(_parsed(raw, variable)),
            settled=self.settled(raw, wanted),
            available=raw.get("status", {}).get("availableReplicas", 0),
            wanted=wanted,
            progress=self.progress(raw, wanted),
            outage=self.outage(raw["spec"], wanted),
            node_selector=pod.get("nodeSelector", {}),
            tolerations=tuple(pod.get("tolerations", ())),
            claims=_claims(pod),
            labels=(raw["spec"].get("selector") or {}).get("matchLabels", {}),
            template=_template(template_of(raw), variable),
            hindrance=self.hindrance(raw),
            unfit=self.unfit(raw),
        )

    def is_seen(self, raw: Json) -> bool:
        """Return whether the controller has seen the newest spec; what it says is of an older one otherwise."""
        seen: int = raw.get("status", {}).get("observedGeneration", 0)
        return seen >= int(raw["metadata"].get("generation", 0))

    def settled(self, raw: Json, wanted: int) -> bool:
        """Return whether the controller has seen the newest template, and it alone runs, wholly available."""
        status = raw.get("status", {})
        counts = (status.get(count, 0) for count in ("replicas", "updatedReplicas", "availableReplicas"))
        return self.is_seen(raw) and all(count == wanted for count in counts)

    def progress(self, raw: Json, wanted: int) -> str:
        """Return how far the replacement of pods is, in words."""
        status = raw.get("status", {})
        updated, available = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
        old = status.get("replicas", 0) - updated
        if not self.is_seen(raw):
            return "its controller has not seen the change yet"
        if updated < wanted:
            return f"{updated} of {wanted} pods replaced" + self._obstacle(raw)
        if available - old < wanted:
            return f"{max(0, available - old)} of {wanted} new pods available" + self._obstacle(raw)
        return f"{old} old pods still ending" if old > 0 else f"{available} of {wanted} pods available"

    def _obstacle(self, raw: Json) -> str:
        """Return what the controller itself says stands in the way, if anything."""
        if hindrance := self.hindrance(raw):
            return f"; {hindrance}"
        progressing = conditions_of(raw).get("Progressing", {})
        return f"; {progressing.get('message', '')}" if progressing.get("status") == "False" else ""

    @abstractmethod
    def outage(self, spec: Json, wanted: int) -> str | None:
        """Return why no pod may answer while the pods are replaced, or None where enough of them stay."""

    @abstractmethod
    def hindrance(self, raw: Json) -> str | None:
        """Return why the controller makes no pods of the newest template."""

    def unfit(self, raw: Json) -> str | None:
        """Return why the field does not reach every pod by itself; None where it does."""
        del raw
        return None

    @abstractmethod
    def belongs(self, pod: Json, name: str) -> bool:
        """Return whether the workload of this name made the pod and it is not being deleted."""

    def apply_body(
        self, *, name: str, uid: str, container: str, variable: str, value: str | None, is_init: bool = False
    ) -> Json:
        """Return the body of the server-side apply that owns the variable's value, or nothing any more."""
        body: Json = {"apiVersion": self.api_version, "kind": self.kind, "metadata": {"name": name, "uid": uid}}
        if value is not None:
            containers = [{"name": container, "env": [{"name": variable, "value": value}]}]
            body["spec"] = {"template": {"spec": {INIT if is_init else MAIN: containers}}}
        return body

    def pod_selector(self, raw: Json) -> str:
        """Return the workload's selector in the form of a query parameter."""
        return serving.selector(raw["spec"].get("selector") or {})

    def pods(self, raw: Json, pods: Iterable[Json], *, container: str, variable: str, port: int) -> Pods:
        """Return the workload's pods whose container has the template's value of the variable."""
        template = template_of(raw)["spec"]
        value = literal(serving.container_of(template, container), variable)
        own = [pod for pod in pods if self.belongs(pod, raw["metadata"]["name"])]
        present = [pod for pod in own if literal(serving.container_of(pod["spec"], container), variable) == value]
        return serving.seen(present, container=container, port=port, server=serving.server_of(template, container))

    def serving(self, raw: Json, pods: Iterable[Json], *, container: str) -> tuple[ServingPod, ...]:
        """Return the workload's own running pods, of any template."""
        own = (pod for pod in pods if self.belongs(pod, raw["metadata"]["name"]))
        return serving.running(own, container=serving.server_of(template_of(raw)["spec"], container))


def template_of(raw: Json) -> Json:
    """Return the pod template; one without containers where the workload takes another object's."""
    template: Json = raw["spec"].get("template") or {}
    pod = template.get("spec") or {}
    return template | {"spec": pod | {"containers": pod.get("containers") or []}}


def is_made_by(pod: Json, kind: str, name: str) -> bool:
    """Return whether an owner of this kind and name made the pod, and it is not being deleted."""
    meta = pod["metadata"]
    owners = meta.get("ownerReferences", ())
    return any((owner["kind"], owner["name"]) == (kind, name) for owner in owners) and "deletionTimestamp" not in meta


def conditions_of(raw: Json) -> dict[str, Json]:
    """Return a workload's conditions by type."""
    return {condition["type"]: condition for condition in raw.get("status", {}).get("conditions", ())}


def picked(source: Mapping[str, Any], *names: str) -> Json:
    """Return those of the fields that are there."""
    return {name: source[name] for name in names if name in source}


def owner_of(managed: Iterable[Json], path: list[str]) -> str | None:
    """Return the field manager that owns a field; of several, one other than Retune: it would conflict."""
    owners = [entry["manager"] for entry in managed if "subresource" not in entry and _owns(entry, path)]
    return min(owners, key=lambda owner: (owner == FIELD_MANAGER, owner), default=None)


def _owns(entry: Json, path: list[str]) -> bool:
    fields: Any = entry.get("fieldsV1", {})
    for step in path:
        if not isinstance(fields, Mapping) or step not in fields:
            return False
        fields = fields[step]
    return True


def _parsed(raw: Json, variable: str) -> Iterator[Container]:
    """Yield the containers, then those that run before them, whose work is for the container that serves."""
    pod, managed = template_of(raw)["spec"], raw["metadata"].get("managedFields", ())
    for part in serving.LISTS:
        for container in pod.get(part) or ():
            name = container["name"]
            yield Container(
                name=name,
                value=literal(container, variable),
                indirect="valueFrom" in serving.named(container.get("env", ()), variable),
                manager=owner_of(managed, _path(part, name, variable)),
                cpu_limit=serving.cpu_limit(_server_in(pod, name).get("resources", {})),
                is_init=part == INIT,
            )


def _server_in(pod: Json, name: str) -> Json:
    return serving.container_of(pod, serving.server_of(pod, name))


def _path(part: str, container: str, variable: str) -> list[str]:
    return ["f:spec", "f:template", "f:spec", f"f:{part}", _key(container), "f:env", _key(variable), "f:value"]


@lru_cache(maxsize=256)
def _key(name: str) -> str:
    return "k:" + json.dumps({"name": name}, separators=(",", ":"))


def _claims(pod: Json) -> frozenset[str]:
    claims = (volume.get("persistentVolumeClaim") for volume in pod.get("volumes", ()))
    return frozenset(claim["claimName"] for claim in claims if claim)


def literal(container: Json, variable: str) -> str | None:
    """Return the variable's literal value, which may be empty; None where it is not set or comes from elsewhere."""
    entry = serving.named(container.get("env", ()), variable)
    return None if not entry or "valueFrom" in entry else entry.get("value", "")


def _template(template: Json, variable: str) -> str:
    """Return a hash of the pod template that does not change with the variable."""
    envs = [
        [entry for entry in container.get("env", ()) if entry["name"] != variable]
        for part in serving.LISTS
        for container in template["spec"].get(part) or ()
    ]
    return _hash([template.get("digest") or _digest(template), envs])


def _digest(template: Json) -> str:
    """Return a hash of a pod template but for its containers' variables, and for where KServe has a model from."""
    pod, meta = template["spec"], template.get("metadata")
    bare = {
        part: [{name: field for name, field in entry.items() if name != "env"} for entry in pod[part]]
        for part in serving.LISTS
        if pod.get(part)
    }
    if meta and SOURCE in (meta.get("annotations") or {}):
        others = {name: value for name, value in meta["annotations"].items() if name != SOURCE}
        meta = meta | {"annotations": others}
    return _hash([meta, pod | bare])


_sorted_json = json.JSONEncoder(sort_keys=True).encode


def _hash(document: list[Any]) -> str:
    return hashlib.sha256(_sorted_json(document).encode()).hexdigest()[:16]


def _trimmed_template(template: Json) -> Json:
    """Return what is looked at of a pod template, and a hash of everything else but its variables."""
    pod = template["spec"]
    containers = {
        part: [picked(container, "name", "env", "resources") for container in pod[part]]
        for part in serving.LISTS
        if pod.get(part) is not None
    }
    claims = [picked(volume, "persistentVolumeClaim") for volume in pod.get("volumes") or ()]
    trimmed = picked(pod, "nodeSelector", "tolerations") | containers
    volumes = {"volumes": [claim for claim in claims if claim]} if any(claims) else {}
    annotations = picked((template.get("metadata") or {}).get("annotations") or {}, SOURCE)
    metadata = {"metadata": {"annotations": annotations}} if annotations else {}
    return {"digest": _digest(template), "spec": trimmed | volumes} | metadata


def _env_owners(entries: Iterable[Json]) -> list[Json]:
    """Return the managed-field entries that speak of environment variables, with only that branch."""
    owners = []
    for entry in entries:
        pod = _descend(entry.get("fieldsV1"), "f:spec", "f:template", "f:spec")
        parts = {f"f:{part}": _envs(_descend(pod, f"f:{part}")) for part in serving.LISTS}
        envs = {part: found for part, found in parts.items() if found}
        if envs and "subresource" not in entry:
            fields = {"f:spec": {"f:template": {"f:spec": envs}}}
            owners.append({"manager": entry.get("manager"), "operation": entry.get("operation"), "fieldsV1": fields})
    return owners


def _envs(containers: Json) -> Json:
    return {name: {"f:env": fields["f:env"]} for name, fields in containers.items() if "f:env" in fields}


def _descend(fields: Any, *path: str) -> Json:
    for step in path:
        fields = fields.get(step) if isinstance(fields, dict) else None
    return fields if isinstance(fields, dict) else {}
