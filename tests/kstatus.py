"""What Flux, Argo CD and `kubectl wait` make of an object, by their own published rules.

kstatus is what Flux, kpt and Config Sync wait by. The rules are those of `Compute` in `core.go` and `generic.go` of
https://github.com/kubernetes-sigs/cli-utils/tree/master/pkg/kstatus/status; the README beside it says what the statuses
mean. Flux's fork, https://github.com/fluxcd/cli-utils, has the same.

Argo CD knows no rule that holds for every kind. `GetResourceHealth` in
https://github.com/argoproj/gitops-engine/blob/master/pkg/health/health.go asks a script for the kind, then a list of
built-in kinds, and else returns no health at all: the Application counts the object as healthy from the start. Retune
is not among Argo CD's `resource_customizations`; whoever wants its health there writes the rules below in Lua into
`argocd-cm`: https://argo-cd.readthedocs.io/en/stable/operator-manual/health/#custom-health-checks.
"""

from enum import StrEnum
from typing import Any

from retune.api.objects import ModelOptimization

Json = dict[str, Any]


class Kstatus(StrEnum):
    """The statuses that an object which is there can have."""

    IN_PROGRESS = "InProgress"
    FAILED = "Failed"
    CURRENT = "Current"
    TERMINATING = "Terminating"


def kstatus(raw: Json) -> Kstatus:
    """Return the status of an object of a kind without rules of its own, as every custom resource is."""
    if raw["metadata"].get("deletionTimestamp"):
        return Kstatus.TERMINATING
    status = raw.get("status") or {}
    observed = status.get("observedGeneration")
    if observed is not None and observed != raw["metadata"]["generation"]:
        return Kstatus.IN_PROGRESS
    conditions = [(each["type"], each["status"]) for each in status.get("conditions") or ()]
    marks = {("Reconciling", "True"): Kstatus.IN_PROGRESS, ("Stalled", "True"): Kstatus.FAILED}
    first = next((marks[each] for each in conditions if each in marks), None)
    return first or _ready(dict(conditions).get("Ready"))


def _ready(status: str | None) -> Kstatus:
    """Return what the Ready condition alone says; an object that never has one counts as reconciled."""
    return Kstatus.IN_PROGRESS if status in {"False", "Unknown"} else Kstatus.CURRENT


def argo_health(raw: Json) -> str | None:
    """Return the health of an object whose kind Argo CD has no script for; None where it computes none."""
    return "Progressing" if raw["metadata"].get("deletionTimestamp") else None


def seen_by_kstatus(resource: ModelOptimization) -> Json:
    """Return as much of a resource, as the API server would give it, as the rules look at."""
    deleted = resource.metadata.deletion_timestamp
    conditions = [{"type": str(each.type), "status": str(each.status)} for each in resource.status.conditions]
    observed = resource.status.observed_generation
    return {
        "metadata": {
            "generation": resource.metadata.generation,
            "deletionTimestamp": str(deleted) if deleted else None,
        },
        "status": {"conditions": conditions} | ({} if observed is None else {"observedGeneration": observed}),
    }
