"""What is believed of a Job's result: its words and numbers, and only URIs that the operator could have named itself.

A Job runs a user's image and code. The URI of a bundle ends up in the target's variable, and URIs of data become the
volumes of later Jobs, so neither is ever taken over as it came.
"""

import re

from retune.api.watched import FreshData
from retune.contract.paths import bundle_uri, run_folder
from retune.contract.requests import BundleRef

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def bundle_in(value: str | None, *, store: str | None) -> BundleRef | None:
    """Return the bundle that a value of the target's variable names, or None where it is no bundle of this store.

    Args:
        value: The variable's value.
        store: This resource's folder in the artifact store.
    """
    digest = f"sha256:{(value or '').rpartition('/')[2]}"
    bundle = BundleRef(uri=value, digest=digest) if value and _DIGEST.fullmatch(digest) else None
    return bundle if bundle and bundle_fault(bundle, store=store) is None else None


def bundle_fault(bundle: BundleRef, *, store: str | None) -> str | None:
    """Return what is wrong with a bundle that a Job names, as a sentence without a full stop, or None.

    Args:
        bundle: Where the Job says that it lies, and its digest.
        store: This resource's folder in the artifact store.
    """
    if not _DIGEST.fullmatch(bundle.digest):
        return "the result names a bundle by something that is no digest"
    if store is None or bundle.uri != bundle_uri(store, bundle.digest):
        return "the result names a bundle that does not lie in this resource's store under its own digest"
    return None


def data_fault(fresh: FreshData, *, store: str | None, run: str) -> str | None:
    """Return what is wrong with the data that a Job says it has gathered, or None.

    Args:
        fresh: What the Job says.
        store: This resource's folder in the artifact store.
        run: Name of the run in the store.
    """
    folder = f"{run_folder(store, run)}/" if store else None
    for name in ("training", "validation", "test"):
        uri: str = getattr(fresh, name).uri
        if folder is None or not uri.startswith(folder) or ".." in uri:
            return f"the result names {name} data that does not lie in the folder of this run"
    return None
