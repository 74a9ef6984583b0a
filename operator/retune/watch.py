"""What changes in the cluster, brought into memory: kopf's watches for speed, and own lists for certainty.

Handlers write nothing and return nothing: an event is only a reason to look. A list at the start and at every resync
repairs whatever a watch has missed, so nothing depends on an event having been seen.
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

import kopf
from pydantic import ValidationError

from retune.api.base import Json
from retune.cluster.cache import Cache, Name, names_of
from retune.cluster.client import PAGE, Client, Connection
from retune.cluster.errors import ApiError, NotFound, Refused, Transient
from retune.cluster.kinds import MODEL_OPTIMIZATIONS, ROLLOUTS, TARGET_KINDS, Kind
from retune.cluster.unreadable import faults_of
from retune.metrics import Freshness, Metrics
from retune.work_queue import Queue

log = logging.getLogger("retune")

_FIRST_SYNC_RETRY = 2.0
"""Seconds before a first sync that failed is tried again the first time."""
_HISTORY_WENT_BACK = "the API server's history went back, as after a restore: trusting what it says now"


class Intake:
    """Takes objects into memory and queues the resources that they concern."""

    def __init__(self, cache: Cache, queue: Queue, freshness: Freshness) -> None:
        self._cache = cache
        self._queue = queue
        self._freshness = freshness

    def seen(self, kind: Kind, raw: Json) -> bool:
        """Take in an object that was listed or watched; returns whether it concerned anyone."""
        self._freshness.heard(kind)
        try:
            concerned = self._cache.put(kind, raw)
        except (ValidationError, KeyError, TypeError, ValueError) as error:
            faults = faults_of(error)
            _log_unreadable(kind, raw, faults)
            if kind is not MODEL_OPTIMIZATIONS or not str(raw["metadata"].get("resourceVersion")).isdecimal():
                return False
            concerned = self._cache.put_unreadable(raw, faults)
        self._enqueue(concerned)
        return bool(concerned)

    def gone(self, kind: Kind, raw: Json) -> None:
        """Take in that an object was deleted."""
        self._freshness.heard(kind)
        self._enqueue(self._cache.remove(kind, raw))

    def _enqueue(self, keys: set[str]) -> None:
        for key in keys:
            self._queue.add(key)


def _log_unreadable(kind: Kind, raw: Json, faults: list[str]) -> None:
    meta = raw.get("metadata") or {}
    where = f"{kind.name} {meta.get('namespace')}/{meta.get('name')}"
    log.error("%s cannot be read and is left alone: %s", where, "; ".join(faults)[:500])


def registry(intake: Intake, kinds: Iterable[Kind], *, login: Callable[[], Connection]) -> kopf.OperatorRegistry:
    """Return the kopf handlers: one for each kind, and the login."""
    handlers = kopf.OperatorRegistry()
    for kind in kinds:
        register = kopf.on.event(kind.group, kind.version, kind.plural, registry=handlers, id=kind.plural)
        register(_handler(intake, kind))
    kopf.on.login(registry=handlers, id="login")(_login(login))
    return handlers


def _handler(intake: Intake, kind: Kind) -> Callable[..., Awaitable[None]]:
    async def on_event(event: Json, **_: Any) -> None:
        if event["type"] == "DELETED":
            intake.gone(kind, event["object"])
        else:
            intake.seen(kind, event["object"])

    return on_event


def _login(connection: Callable[[], Connection]) -> Callable[..., kopf.ConnectionInfo]:
    def login(**_: Any) -> kopf.ConnectionInfo:
        api = connection()
        return kopf.ConnectionInfo(
            server=api.server,
            ca_path=api.ca_file,
            insecure=not api.verify,
            scheme="Bearer" if api.token else None,
            token=api.token,
            certificate_path=api.cert_file,
            private_key_path=api.key_file,
        )

    return login


class _Backoff:
    """Waits between kopf's tries, without end: an API server that is away must not end the process."""

    def __iter__(self) -> Iterator[float]:
        wait = 0.5
        while True:
            yield wait * random.uniform(0.5, 1.5)  # noqa: S311 - spreads load, guards nothing
            wait = min(30.0, wait * 2)


class _NoProgress(kopf.ProgressStorage):
    """Keeps no handler progress: event handlers have none, and nothing of kopf's goes onto anyone's objects."""

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None

    def purge(self, **_: Any) -> None:
        return None

    def touch(self, **_: Any) -> None:
        return None

    def clear(self, *, essence: Any) -> Any:
        return essence


class _NoDiff(kopf.DiffBaseStorage):
    """Keeps no last-seen state: to compare whole objects at every event would cost most of the CPU time."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None


def kopf_settings(kinds: Iterable[Kind]) -> kopf.OperatorSettings:
    """Return kopf's settings for these kinds, each with its reason."""
    settings = kopf.OperatorSettings()
    settings.scanning.disabled = True  # no watch on namespaces and CRDs: less to be allowed; the chart brings the CRDs
    settings.peering.standalone = True  # one replica; peering is no leader election, names are deterministic instead
    settings.posting.enabled = False  # events are written by cluster.writes, one for each transition
    settings.networking.connect_timeout = 10
    settings.networking.request_timeout = 30  # the default is minutes, far longer than a healthy answer takes
    settings.networking.error_backoffs = _Backoff()
    settings.networking.enforce_retry_after = True  # a server that asks to be left alone is left alone
    settings.watching.chunk_size = PAGE  # bounded memory at the first list
    settings.queueing.idle_timeout = 0.2  # an idle worker keeps the object it saw last, whole
    settings.execution.max_workers = 1  # only the login runs in a thread
    settings.process.ultimate_exiting_timeout = 25  # below the pod's 30 s of grace
    settings.persistence.finalizer = "retune.dev/unused"  # never set by event handlers; never kopf's own name
    settings.persistence.progress_storage = _NoProgress()
    settings.persistence.diffbase_storage = _NoDiff()
    for kind in kinds:
        if kind.selector:  # never all Jobs or pods of the cluster
            settings.watching.label_selectors[kind.group, kind.version, kind.plural] = kind.selector
    return settings


class Resync:
    """Lists everything and queues every resource, at the start and from time to time."""

    def __init__(
        self,
        *,
        client: Client,
        cache: Cache,
        queue: Queue,
        intake: Intake,
        freshness: Freshness,
        metrics: Metrics,
        namespaces: tuple[str, ...],
        kinds: tuple[Kind, ...],
    ) -> None:
        self._kinds = kinds
        self._unserved: set[Kind] = set()
        self._client = client
        self._cache = cache
        self._queue = queue
        self._intake = intake
        self._freshness = freshness
        self._metrics = metrics
        self._scopes: tuple[str | None, ...] = namespaces or (None,)

    async def first(self) -> None:
        """Fill the memory, trying until it is full: nothing may be decided on a part of what there is."""
        wait = _FIRST_SYNC_RETRY
        while True:
            try:
                await self.once()
                return
            except ApiError as error:
                asked = error.retry_after if isinstance(error, Transient) else None
                pause = max(wait, asked or 0.0)
                log.warning("the first sync failed, trying again in %g s: %s", pause, error)
                await asyncio.sleep(pause)
                wait = min(60.0, 2 * wait)

    async def forever(self, *, every: float) -> None:
        """Resync until cancelled; a resync that fails is made up for by the next.

        Args:
            every: Seconds between two resyncs, give or take a tenth.
        """
        while True:
            await asyncio.sleep(every * random.uniform(0.9, 1.1))  # noqa: S311 - spreads load, guards nothing
            try:
                await self.once()
            except ApiError as error:
                log.warning("a resync failed, the next is in about %g s: %s", every, error)

    async def once(self) -> None:
        """List every kind, repair the memory, queue every resource."""
        for kind in self._kinds:
            self._metrics.repaired.labels(kind.plural).inc(await self._list_everywhere(kind))
            self._freshness.heard(kind)
        if ROLLOUTS not in self._kinds:
            await self._glance()
        for key in self._cache.resource_keys():
            self._queue.add(key)

    async def _glance(self) -> None:
        """Look for Rollouts that take their pods from Deployments, as far as there are any and they may be listed."""
        with suppress(NotFound, Refused):
            for namespace in self._scopes:
                await self._list(ROLLOUTS, namespace)

    async def _list_everywhere(self, kind: Kind) -> int:
        """List a kind; returns how many objects the memory had wrong. A kind of targets may not be served at all."""
        try:
            return sum([await self._list(kind, namespace) for namespace in self._scopes])
        except NotFound:
            if kind not in TARGET_KINDS:
                raise
            if kind not in self._unserved:
                log.warning("the API server serves no %s: once it does, restart the operator", kind.plural)
            self._unserved.add(kind)
            return 0

    async def _list(self, kind: Kind, namespace: str | None) -> int:
        """List a kind page by page; returns how many objects the memory had wrong."""
        before, names, repaired, version = self._cache.newest(kind), set[Name](), 0, 0
        async for page in self._client.pages(kind, namespace):
            if not version:
                version = int(page["metadata"]["resourceVersion"])
                if version < before:
                    log.warning("%s: %s", kind.plural, _HISTORY_WENT_BACK)
                    self._cache.rewind(kind, namespace=namespace)
            names |= names_of(page["items"])
            repaired += sum(self._intake.seen(kind, raw) for raw in page["items"])
        return repaired + self._cache.prune(kind, names, namespace=namespace, version=version)
