"""Labels, annotations and owner references of everything that the operator creates, so that it is found and removed."""

import hashlib
from typing import Final

from retune.api import API_VERSION
from retune.api.base import Json
from retune.api.objects import ModelOptimization

MANAGED_BY: Final = "app.kubernetes.io/managed-by"
RESOURCE: Final = "retune.dev/resource"
COMMAND: Final = "retune.dev/command"
STORE: Final = "retune.dev/store"
"""Label of a pod with the volume claim of its store, so that others that mount the claim are put beside it."""
REMOTE: Final = "retune.dev/remote"
"""Label of a pod whose Job reads from servers or writes to them, such as a store in a bucket: network policies let it
out to them."""
HELD: Final = "retune.dev/held"
"""Annotation of a Job that the operator suspended, as opposed to one that waits in a queue."""
WORKERS: Final = "retune.dev/workers"
"""Annotation of a Job with a queue: the workers that were asked for, of which its queue may admit fewer."""
KUEUE_QUEUE: Final = "kueue.x-k8s.io/queue-name"
KUEUE_FEWEST: Final = "kueue.x-k8s.io/job-min-parallelism"
"""Annotation of a Job with the fewest pods that it may be admitted with; its parallelism is lowered then."""
KUEUE_ALL_RUN: Final = "kueue.x-k8s.io/job-completions-equal-parallelism"
"""Annotation of a Job whose completions are lowered together with its parallelism."""
KUEUE_JOB: Final = "kueue.x-k8s.io/job-uid"
"""Label of Kueue's Workload with the UID of the Job that it stands for."""

_VALUE_LIMIT = 63


def labels(resource: ModelOptimization, *, command: str | None = None) -> dict[str, str]:
    """Return the labels of an object that belongs to `resource`."""
    common = {MANAGED_BY: "retune", RESOURCE: resource.metadata.name}
    return common | ({COMMAND: command} if command else {})


def label_value(text: str) -> str:
    """Return a text as a label's value: one that is too long is cut, and told from others by its hash."""
    if len(text) <= _VALUE_LIMIT:
        return text
    return f"{text[: _VALUE_LIMIT - 9].rstrip('.-')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


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
