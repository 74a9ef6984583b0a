"""A Deployment as target: its controller replaces pods by ReplicaSets, and says how far it is."""

import math
from collections.abc import Callable

from retune.api.base import Json
from retune.targets.base import BESIDE, DRIVER
from retune.targets.pod_template import PodTemplated, conditions_of, is_made_by


class Deployment(PodTemplated):
    """`apps/v1` Deployment."""

    api_version = "apps/v1"
    kind = "Deployment"
    resource = "deployments"
    spec_fields = ("strategy", "paused")
    status_fields = ("observedGeneration", "replicas", "updatedReplicas", "availableReplicas")

    def trimmed(self, raw: Json) -> Json:
        """Return what the other methods look at, and which Flagger Canary has made this one, if one has."""
        document = super().trimmed(raw)
        owners = raw["metadata"].get("ownerReferences") or ()
        canary = next((owner["name"] for owner in owners if _is_canary(owner)), None)
        document["metadata"] |= {"canary": canary} if canary else {}
        return document

    def beside(self, name: str) -> tuple[str, ...]:
        """Return the name of the copy that Flagger makes, and whose pods serve then."""
        return (f"{name}-primary",)

    def unfit(self, raw: Json) -> str | None:
        """Return who else decides which pods are made from its template."""
        name, driver = raw["metadata"]["name"], raw.get(DRIVER)
        if driver:
            return (
                f"{driver} takes its pods from it (spec.workloadRef): move the template into spec.template of the "
                "Rollout, and make a ModelOptimization whose spec.target.ref names that"
            )
        primary = (raw.get(BESIDE) or {}).get(f"{name}-primary", {"metadata": {}})
        if canary := primary["metadata"].get("canary"):
            return (
                f"Flagger's Canary {canary} gives its template to Deployment {name}-primary, whose pods serve, when it "
                "wants to: take the Canary away, and have rollout.strategy Canary try versions"
            )
        return None

    def outage(self, spec: Json, wanted: int) -> str | None:
        """Return why no pod may answer while the pods are replaced, or None where enough of them stay."""
        strategy = spec.get("strategy", {})
        if strategy.get("type") == "Recreate":
            return "its strategy is Recreate, which ends all pods before new ones start: take RollingUpdate"
        return surge_outage(strategy.get("rollingUpdate") or {}, wanted)

    def hindrance(self, raw: Json) -> str | None:
        """Return why the Deployment's controller makes no pods: it is paused, or they are refused, as by a quota."""
        if raw["spec"].get("paused"):
            return "the Deployment is paused: resume it with `kubectl rollout resume`"
        return refused_pods(raw)

    def belongs(self, pod: Json, name: str) -> bool:
        """Return whether one of the Deployment's ReplicaSets made the pod and it is not being deleted."""
        label = pod["metadata"].get("labels", {}).get("pod-template-hash")
        return is_made_by(pod, "ReplicaSet", f"{name}-{label}")


def _is_canary(owner: Json) -> bool:
    return owner.get("kind") == "Canary" and str(owner.get("apiVersion")).startswith("flagger.app/")


def refused_pods(raw: Json) -> str | None:
    """Return why the API server admits no more pods of the workload, as its controller says."""
    failure = conditions_of(raw).get("ReplicaFailure", {})
    return str(failure.get("message", failure.get("reason", ""))) if failure.get("status") == "True" else None


def surge_outage(limits: Json, wanted: int) -> str | None:
    """Return why all pods may end before a new one is ready, by maxSurge and maxUnavailable."""
    unavailable = share(limits.get("maxUnavailable", "25%"), wanted, math.floor)
    if share(limits.get("maxSurge", "25%"), wanted, math.ceil) == 0:
        unavailable = max(1, unavailable)  # as its controller does, which could else replace nothing
    if unavailable < wanted or wanted == 0:
        return None
    pods = "its only pod" if wanted == 1 else f"all {wanted} pods"
    return f"its strategy may end {pods} before a new one is ready: raise replicas, or set maxUnavailable to 0"


def share(amount: int | str, wanted: int, rounded: Callable[[float], int]) -> int:
    """Return a number of pods that is given as such, or as a percentage of those wanted."""
    return rounded(int(amount.rstrip("%")) * wanted / 100) if isinstance(amount, str) else amount
