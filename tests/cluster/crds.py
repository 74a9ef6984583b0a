"""Install CustomResourceDefinitions for a test and wait until the API server serves them."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tools.localcluster.api import Api, ApiError

Json = dict[str, Any]
_FOLDER = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_PATIENCE_SECONDS = 60.0


def path_of(group: str, plural: str, namespace: str = "default", *, version: str = "v1alpha1") -> str:
    """URL path of a namespaced list."""
    return f"/apis/{group}/{version}/namespaces/{namespace}/{plural}"


def install(api: Api, crds: Sequence[Json]) -> None:
    """Apply CRDs and return when each can be listed; raises TimeoutError naming what is not served in a minute."""
    for crd in crds:
        api.apply(f"{_FOLDER}/{crd['metadata']['name']}", crd)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    waiting = list(crds)
    while waiting := [crd for crd in waiting if not _served(api, crd)]:
        if time.monotonic() > deadline:
            raise TimeoutError(f"not served: {', '.join(crd['metadata']['name'] for crd in waiting)}")
        time.sleep(0.05)


@contextmanager
def established(api: Api, crds: Sequence[Json]) -> Iterator[None]:
    """CRDs for the duration of a block."""
    try:
        install(api, crds)
        yield
    finally:
        for crd in crds:
            api.request("DELETE", f"{_FOLDER}/{crd['metadata']['name']}")


def _served(api: Api, crd: Json) -> bool:
    spec = crd["spec"]
    (version, *_) = [version["name"] for version in spec["versions"] if version["served"]]
    scope = "namespaces/default/" if spec["scope"] == "Namespaced" else ""
    try:
        api.get(f"/apis/{spec['group']}/{version}/{scope}{spec['names']['plural']}")
    except ApiError:
        return False
    return True
