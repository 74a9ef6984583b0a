"""Which of several operators works: the one that holds a coordination Lease. It must never write once another may.

Clocks of two machines are never compared. A holder counts from when it sent its last renewal that was answered; who
waits counts, for longer, from when it saw that renewal. So a holder that is cut off stops before it is replaced.
"""

import asyncio
import logging
import socket
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import NoReturn

from retune.api.base import Json
from retune.cluster.client import Client, Request, Transport
from retune.cluster.errors import ApiError, NotFound
from retune.cluster.kinds import LEASES

LEASE_SECONDS = 11.0
"""How long a Lease must have been seen unchanged before another operator takes it over."""
WRITE_SECONDS = 9.5
"""How long after it sent its last renewal a holder's writes may still be under way."""
RETRY_SECONDS = 1.0
"""How often the Lease is renewed, or looked at."""
_TIMEOUT = (1.5, 2.5)
"""Seconds to connect and to wait for an answer: several tries fit into WRITE_SECONDS."""

log = logging.getLogger("retune")


class LostLeadership(Exception):  # noqa: N818 - named after what happened
    """Another operator may hold the Lease by now: this process must end."""


class Leadership:
    """One operator's part in the election.

    Args:
        transport: Sends requests to the API server.
        lease: Namespace and name of the Lease.
        identity: What nobody else calls itself, also no earlier process of the same pod.
        clock: Seconds that never jump.
    """

    def __init__(
        self,
        transport: Transport,
        lease: tuple[str, str],
        *,
        identity: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = Client(transport, threads=1)
        self._namespace, self._name = lease
        self._identity = identity or f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"
        self._clock = clock
        self._writes_end = 0.0
        self._leads = False
        self._version = ""
        self._seen: tuple[str, float] = ("", 0.0)
        """The version of the Lease that was seen last, and when it was first seen."""

    @property
    def leads(self) -> bool:
        """Whether this operator holds the Lease, as far as it knows."""
        return self._leads and self.seconds_left() > 0

    def seconds_left(self) -> float:
        """Return for how many seconds a write that begins now may be under way; not above zero: it must not begin."""
        return self._writes_end - self._clock() if self._leads else 0.0

    async def acquire(self) -> None:
        """Wait until this operator leads."""
        while True:
            if await self.stand():
                break
            await asyncio.sleep(RETRY_SECONDS)
        log.info("leading: %s/%s is held by %s", self._namespace, self._name, self._identity)

    async def keep(self) -> NoReturn:
        """Renew the Lease for as long as that works; raises LostLeadership when it does not, or was taken over."""
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            if not await self.stand() and self.seconds_left() <= 0:
                self._leads = False
                raise LostLeadership(f"Lease {self._namespace}/{self._name} could not be renewed in time")

    async def release(self) -> None:
        """Give the Lease up, so that another operator need not wait. What this one writes must be over."""
        if self.leads:
            self._leads = False
            with suppress(ApiError):
                await self._put(_lease("", self._namespace, self._name, version=self._version))

    def close(self) -> None:
        """Stop the thread."""
        self._client.close()

    async def stand(self) -> bool:
        """Take or renew the Lease if it is free or our own; returns whether that was answered.

        Without an answer nothing is known: what we hold then ends by itself, and is ours again if the Lease says so.
        """
        try:
            if self._leads:
                return await self._renew()
            return await self._take()
        except ApiError as error:
            log.debug("%s/%s: %s", self._namespace, self._name, error)
            self._version = ""
            return False

    async def _renew(self) -> bool:
        if not self._version:
            lease = await self._get()
            if lease is None or _holder(lease) != self._identity:
                self._leads, self._writes_end = False, 0.0
                return False
            self._version = lease["metadata"]["resourceVersion"]
        return await self._hold(self._version)

    async def _take(self) -> bool:
        lease = await self._get()
        if lease is None:
            return await self._hold("")
        version = lease["metadata"]["resourceVersion"]
        if version != self._seen[0]:
            self._seen = (version, self._clock())
        unchanged = self._clock() - self._seen[1]
        free = _holder(lease) in {"", self._identity} or unchanged >= max(LEASE_SECONDS, _duration(lease))
        return free and await self._hold(version)

    async def _hold(self, version: str) -> bool:
        """Write the Lease as ours, unless somebody has changed it since `version`."""
        sent = self._clock()
        answer = await self._put(_lease(self._identity, self._namespace, self._name, version=version))
        self._version, self._leads, self._writes_end = answer["metadata"]["resourceVersion"], True, sent + WRITE_SECONDS
        return True

    async def _get(self) -> Json | None:
        with suppress(NotFound):
            return await self._client.call(Request("GET", LEASES.path(self._namespace, self._name), timeout=_TIMEOUT))
        return None

    async def _put(self, lease: Json) -> Json:
        if not lease["metadata"]["resourceVersion"]:
            del lease["metadata"]["resourceVersion"]
            return await self._client.call(Request("POST", LEASES.path(self._namespace), body=lease, timeout=_TIMEOUT))
        path = LEASES.path(self._namespace, self._name)
        return await self._client.call(Request("PUT", path, body=lease, timeout=_TIMEOUT))


def _lease(holder: str, namespace: str, name: str, *, version: str) -> Json:
    moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"namespace": namespace, "name": name, "resourceVersion": version},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": int(LEASE_SECONDS), "renewTime": moment},
    }


def _holder(lease: Json) -> str:
    return str((lease.get("spec") or {}).get("holderIdentity") or "")


def _duration(lease: Json) -> float:
    """Return how long the holder wants to be waited for; another release may take longer than ours."""
    return float((lease.get("spec") or {}).get("leaseDurationSeconds") or 0)
