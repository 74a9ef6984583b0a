"""A StatefulSet as target: its controller replaces one pod after the other, the last one first.

It ends a pod before the new one is there, and it waits for a broken one for ever, also when the template that broke it
is gone: such pods are told, so that they can be taken away.
"""

import math
from collections.abc import Iterable
from dataclasses import replace

from retune.api.base import Json
from retune.plan.observed import LatePod, Pods
from retune.targets import serving, troubles
from retune.targets.deployment import share
from retune.targets.pod_template import PodTemplated, is_made_by, literal, template_of


class StatefulSet(PodTemplated):
    """`apps/v1` StatefulSet with the update strategy RollingUpdate."""

    api_version = "apps/v1"
    kind = "StatefulSet"
    resource = "statefulsets"
    spec_fields = ("updateStrategy",)
    status_fields = (
        "observedGeneration",
        "replicas",
        "updatedReplicas",
        "availableReplicas",
        "currentRevision",
        "updateRevision",
    )

    def settled(self, raw: Json, wanted: int) -> bool:
        """Return whether every pod wanted has the newest revision and is available, and the update is complete."""
        status = raw.get("status", {})
        return super().settled(raw, wanted) and status.get("currentRevision") == status.get("updateRevision")

    def outage(self, spec: Json, wanted: int) -> str | None:
        """Return why no pod may answer: a pod ends before the one that takes its place is made."""
        limits = spec.get("updateStrategy", {}).get("rollingUpdate") or {}
        unavailable = max(1, share(limits.get("maxUnavailable", 1), wanted, math.floor))
        if unavailable < wanted or wanted == 0:
            return None
        if wanted == 1:
            return "a StatefulSet ends its only pod before the new one is made: raise replicas"
        return f"maxUnavailable lets all {wanted} pods end before a new one is ready: lower it"

    def hindrance(self, raw: Json) -> str | None:
        """Return why pods stay as they are."""
        return self.unfit(raw)

    def unfit(self, raw: Json) -> str | None:
        """Return why a new template does not reach every pod by itself."""
        strategy = raw["spec"].get("updateStrategy", {})
        partition = (strategy.get("rollingUpdate") or {}).get("partition", 0)
        if strategy.get("type") == "OnDelete":
            return "its updateStrategy OnDelete replaces no pod by itself: take RollingUpdate"
        if partition:
            return f"its rollingUpdate.partition {partition} keeps earlier pods as they are: set it to 0"
        return None

    def belongs(self, pod: Json, name: str) -> bool:
        """Return whether the StatefulSet made the pod and it is not being deleted."""
        return is_made_by(pod, self.kind, name)

    def pods(self, raw: Json, pods: Iterable[Json], *, container: str, variable: str, port: int) -> Pods:
        """Return the pods of the template's value, and those of another one for which the controller waits."""
        own = [pod for pod in pods if self.belongs(pod, raw["metadata"]["name"])]
        seen = super().pods(raw, own, container=container, variable=variable, port=port)
        if not self.is_seen(raw):
            return seen
        value = literal(serving.container_of(template_of(raw)["spec"], container), variable)
        values = [(pod, literal(serving.container_of(pod["spec"], container), variable)) for pod in own]
        waited_for = [(pod, served) for pod, served in values if served != value and not troubles.ready(pod)]
        behind = (LatePod(pod["metadata"]["name"], pod["metadata"]["uid"], served) for pod, served in waited_for)
        return replace(seen, behind=tuple(behind))
