"""Where a resource keeps its artifacts, and what its Jobs may write to on a claim that other resources use too.

The administrator's store is shared: in it, each resource has a folder of its own name, and nobody's spec may name
another folder of that claim or bucket. Else one could be put around or into somebody else's. A claim is of one
namespace; a bucket is seen by all, so there the namespace's name comes before the resource's.
"""

from retune.api.production import Production
from retune.contract.paths import claim_of, is_below, place_of, removable_below


def store_of(name: str, *, namespace: str, own: str | None, default: str | None) -> str | None:
    """Return the URI of a resource's folder; None where there is none that it may use.

    Args:
        name: Name of the resource.
        namespace: Its namespace.
        own: The store that its spec names.
        default: The administrator's store.
    """
    root = own or default
    if root is None or store_fault(own=own, default=default) is not None:
        return None
    own_folder = name if claim_of(root) else f"{namespace}/{name}"
    return f"{root.rstrip('/')}/{own_folder}"


def is_shared(own: str | None, default: str | None) -> bool:
    """Return whether a resource whose spec names the store `own` uses the administrator's."""
    return default is not None and (own is None or own.rstrip("/") == default.rstrip("/"))


def store_fault(*, own: str | None, default: str | None) -> tuple[str, str] | None:
    """Return reason and sentence where a resource has no store, or names one that it may not use; else None."""
    if own is None and default is None:
        message = "no artifact store: set spec.execution.artifactStore, or a default in the operator's settings"
        return "StoreNotConfigured", message
    if own is None or default is None or is_shared(own, default) or place_of(own) != place_of(default):
        return None
    where, kind = ("on the claim", "claim") if claim_of(own) else ("in the bucket", "bucket")
    return "StoreNotAllowed", (
        f"spec.execution.artifactStore {own} lies {where} of the shared store {default}, where each resource has "
        f"the folder of its name: leave artifactStore out, or name another {kind}"
    )


def retention_fault(production: Production, *, store: str, default: str | None) -> str | None:
    """Return why captured requests cannot be removed after their retention, as a sentence; None where they can.

    A check may remove files only where nobody else keeps artifacts: on a claim, no other resource, because the Job
    mounts the folder to write to; in the administrator's bucket, no other namespace. In a bucket of its own, what a
    resource's credentials allow is its owner's affair.

    Args:
        production: Where the captured requests lie, and how long they are kept.
        store: The resource's folder in its store.
        default: The administrator's store.
    """
    uri, default = production.uri, default or ""
    own, shared = removable_below(store), {claim_of(folder) for folder in (store, default)} - {None}
    mixed = claim_of(uri) in shared if claim_of(uri) else place_of(uri) == place_of(default)
    if production.kept_seconds is None or not mixed or is_below(uri, own):
        return None
    where, other = ("on the claim", "on another claim") if claim_of(uri) else ("in the bucket", "in another bucket")
    elsewhere = f"below {own} or {other}" if place_of(uri) == place_of(store) else other
    return (
        f"captured requests at {uri} cannot be removed after production.retention: {where} of a shared store, a Job "
        f"may remove nothing of others'. Keep them {elsewhere}, or leave retention out"
    )
