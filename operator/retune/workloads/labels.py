"""Labels, annotations and owner references of everything that the operator creates, so that it is found and removed."""

from typing import Final

from retune.api import API_VERSION
from retune.api.base import Json
from retune.api.objects import ModelOptimization

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
RESOURCE: Final = "retune.dev/resource"
COMMAND: Final = "retune.dev/command"
HELD: Final = "retune.dev/held"
"""Annotation of a Job that the operator suspended, as opposed to one that waits in a queue."""
KUEUE_QUEUE: Final = "kueue.x-k8s.io/queue-name"


def labels(resource: ModelOptimization, *, command: str | None = None) -> dict[str, str]:
    """Return the labels of an object that belongs to `resource`."""
    common = {MANAGED_BY: "retune", RESOURCE: resource.metadata.name}
    return common | ({COMMAND: command} if command else {})


def metadata(resource: ModelOptimization, name: str, *, command: str | None = None) -> Json:
    """Return the metadata of an object that `resource` owns."""
    return {
        "name": name,
        "namespace": resource.metadata.namespace,
        "labels": labels(resource, command=command),
        "ownerReferences": [owner_reference(resource)],
    }


def owner_reference(resource: ModelOptimization) -> Json:
    """Return the reference by which the garbage collector removes an object together with `resource`."""
    return {
        "apiVersion": API_VERSION,
        "kind": "ModelOptimization",
        "name": resource.metadata.name,
        "uid": resource.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }
