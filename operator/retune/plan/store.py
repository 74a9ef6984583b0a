"""Where a resource keeps its artifacts, and what its Jobs may write to on a claim that other resources use too.

The administrator's store is shared: in it, each resource has a folder of its own name, and nobody's spec may name
another folder of that claim. Else one could be put around or into somebody else's.
"""

from retune.api.production import Production
from retune.contract.paths import claim_of, is_below


def store_of(name: str, *, own: str | None, default: str | None) -> str | None:
    """Return the URI of a resource's folder; None where there is none that it may use.

    Args:
        name: Name of the resource.
        own: The store that its spec names.
        default: The administrator's store.
    """
    root = own or default
    return f"{root.rstrip('/')}/{name}" if root and store_fault(own=own, default=default) is None else None


def store_fault(*, own: str | None, default: str | None) -> tuple[str, str] | None:
    """Return reason and sentence where a resource has no store, or names one that it may not use; else None."""
    if own is None and default is None:
        message = "no artifact store: set spec.execution.artifactStore, or a default in the operator's settings"
        return "StoreNotConfigured", message
    if own is None or default is None or own.rstrip("/") == default.rstrip("/") or claim_of(own) != claim_of(default):
        return None
    return "StoreNotAllowed", (
        f"spec.execution.artifactStore {own} lies on the claim of the shared store {default}, where each resource has "
        "the folder of its name: leave artifactStore out, or name another claim"
    )


def retention_fault(production: Production, *, store: str, default: str | None) -> str | None:
    """Return why captured requests cannot be removed after their retention, as a sentence; None where they can.

    A check may remove files only where no other resource keeps artifacts.

    Args:
        production: Where the captured requests lie, and how long they are kept.
        store: The resource's folder in its store.
        default: The administrator's store.
    """
    uri = production.uri
    shared = {claim_of(store), claim_of(default or "")} - {None}
    if production.kept_seconds is None or claim_of(uri) not in shared or is_below(uri, store):
        return None
    return (
        f"captured requests at {uri} cannot be removed after production.retention: on the claim of a store, a Job may "
        f"write only to its resource's own folder. Keep them below {store} or on another claim, or leave retention out"
    )
