"""Manifests of the two records besides Jobs: the OptimizationRun of an attempt, and the Lease on a target."""

from retune.api import API_VERSION
from retune.api.base import Json
from retune.api.objects import ModelOptimization
from retune.plan.actions import AcquireLease, CreateRun
from retune.workloads.labels import metadata


def run_manifest(action: CreateRun, *, resource: ModelOptimization) -> Json:
    """Return the OptimizationRun that records an attempt."""
    return {
        "apiVersion": API_VERSION,
        "kind": "OptimizationRun",
        "metadata": metadata(resource, action.name),
        "spec": action.spec.to_dict(),
    }


def lease_name(target_uid: str) -> str:
    """Return the name of the Lease on a target, which is the same for every resource that asks for it."""
    return f"retune-{target_uid}"


def lease_manifest(action: AcquireLease, *, resource: ModelOptimization) -> Json:
    """Return the Lease by which `resource` is the one writer of its target.

    It has no duration: it is held until its owner is deleted. The UID of its owner reference says who holds it.
    """
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": metadata(resource, lease_name(action.target_uid)),
        "spec": {"holderIdentity": resource.metadata.name},
    }
