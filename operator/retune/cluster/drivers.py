"""Who takes the pods of a Deployment for his own, where such workloads are not watched: read rarely, and remembered.

A cluster without that kind, or an operator without the right, is asked again only after a while.
"""

from collections.abc import Callable

from retune.api.base import Json
from retune.cluster.client import Client
from retune.cluster.errors import NotFound, Refused
from retune.cluster.kinds import ROLLOUTS
from retune.targets import DRIVER, TARGETS

_AGAIN_SECONDS = 600.0


class Drivers:
    """Reads the Rollouts of a namespace.

    Args:
        client: Lists them.
        watched: Kinds of targets that are in memory anyhow.
        clock: Seconds since 1970.
    """

    def __init__(self, client: Client, *, watched: frozenset[str], clock: Callable[[], float]) -> None:
        self._client = client
        self._is_watched = ROLLOUTS.name in watched
        self._clock = clock
        self._not_before = 0.0

    async def of(self, namespace: str, deployment: str) -> Json:
        """Return the driver of a Deployment as the field of its JSON, empty where there is none or it is not known."""
        if self._is_watched or self._clock() < self._not_before:
            return {}
        kind = TARGETS["argoproj.io/v1alpha1", ROLLOUTS.name]
        try:
            items = [item async for page in self._client.pages(ROLLOUTS, namespace) for item in page["items"]]
        except (NotFound, Refused):
            self._not_before = self._clock() + _AGAIN_SECONDS
            return {}
        names = (item["metadata"]["name"] for item in items if kind.drives(item) == deployment)
        return next(({DRIVER: f"{ROLLOUTS.name} {name}"} for name in names), {})
