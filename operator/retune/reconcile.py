"""One pass over one resource: observe, decide, apply, and again until nothing is left to do.

The status is written before anything is done, so that whatever is done is named first. Every action is safe to
repeat, so a pass may be cut off anywhere and simply started anew.
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from retune.api.objects import ModelOptimization
from retune.api.status import ModelOptimizationStatus
from retune.cluster.cache import Cache
from retune.cluster.errors import ApiError, Conflict, NamespaceGone, NotFound, Refused, Transient
from retune.cluster.kinds import MODEL_OPTIMIZATIONS
from retune.cluster.reads import Reader
from retune.cluster.writes import Writer
from retune.metrics import Metrics
from retune.plan import Observed, Plan, plan
from retune.plan.actions import (
    AcquireLease,
    Action,
    CreateCanary,
    CreateCanaryService,
    CreateJob,
    CreateRun,
    DeleteJob,
    DeleteRun,
    EmitEvent,
    ExpireJob,
    HoldJob,
    InjectModel,
    RecordRun,
    RemoveCanary,
    RemoveCanaryService,
    ReplacePod,
    ScaleCanary,
    SetFinalizer,
    ShareRoute,
)
from retune.plan.observed import Refusal, Verb
from retune.work_queue import Queue

ROUNDS = 8
"""Rounds of one pass; a plan that still wants more then is tried again later, so that it cannot spin."""
_UNSETTLED_SECONDS = 5.0
_VERBS: dict[type[Any], Verb] = {
    AcquireLease: Verb.ACQUIRE_LEASE,
    CreateJob: Verb.CREATE_JOB,
    CreateRun: Verb.CREATE_RUN,
    InjectModel: Verb.INJECT_MODEL,
    ReplacePod: Verb.REPLACE_POD,
    CreateCanary: Verb.CANARY,
    ScaleCanary: Verb.CANARY,
    RemoveCanary: Verb.CANARY,
    CreateCanaryService: Verb.CANARY,
    RemoveCanaryService: Verb.CANARY,
    ShareRoute: Verb.CANARY,
}

log = logging.getLogger("retune")


@dataclass
class _Pass:
    """What this pass has done so far, and what was refused to it."""

    changed: bool = False
    leased: str | None = None
    """UID of the target whose Lease this pass has acquired."""
    refusals: tuple[Refusal, ...] = ()
    done: list[Action] = field(default_factory=list)
    refused: list[Action] = field(default_factory=list)

    def open(self, decision: Plan) -> list[Action]:
        """Return the actions that this pass has not tried yet."""
        return [action for action in decision.actions if action not in self.done and action not in self.refused]


class Reconciler:
    """Brings one resource at a time to where its plan has nothing left to do."""

    def __init__(
        self,
        *,
        cache: Cache,
        reader: Reader,
        writer: Writer,
        metrics: Metrics,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        decide: Callable[[Observed, datetime], Plan] = plan,
        scrape_seconds: float = 5.0,
    ) -> None:
        self._cache = cache
        self._reader = reader
        self._writer = writer
        self._metrics = metrics
        self._clock = clock
        self._decide = decide
        self._scrape_seconds = scrape_seconds

    async def run(self, key: str) -> tuple[bool, float | None]:
        """Do a pass over one resource.

        Args:
            key: The resource, as `namespace/name`.

        Returns:
            Whether the pass changed anything, and the seconds until the next one is due without an event.

        Raises:
            Transient: The API server is in trouble; the pass is to be repeated.
        """
        state = _Pass()
        try:
            return await self._rounds(key, state)
        except NamespaceGone:
            return state.changed, None
        except NotFound as error:
            await self._confirm_gone(key, error)
            return state.changed, None

    async def _confirm_gone(self, key: str, error: NotFound) -> None:
        """Forget a resource that is gone; when it is not, something else went away and the pass is to be repeated."""
        namespace, name = key.split("/")
        try:
            await self._reader.refresh(namespace, name)
        except NotFound:
            self._cache.forget(MODEL_OPTIMIZATIONS, namespace, name)
            return
        raise Transient(str(error)) from error

    async def _rounds(self, key: str, state: _Pass) -> tuple[bool, float | None]:
        for _ in range(ROUNDS):
            resource = self._cache.resource(key)
            if resource is None:
                self._reader.forget(key)
                unread = key in self._cache.unreadable and await self._writer.say_unreadable(key)
                return state.changed or unread, None
            observed = await self._reader.observe(resource, refusals=state.refusals, leased=state.leased)
            decision = self._decide(observed, self._clock())
            try:
                if not await self._apply(observed, decision, state):
                    return state.changed, self._next_look(resource, decision)
            except Conflict:
                await self._reader.refresh(resource.metadata.namespace, resource.metadata.name)
        log.warning("%s: not settled after %d rounds, looking again in %g s", key, ROUNDS, _UNSETTLED_SECONDS)
        return state.changed, _UNSETTLED_SECONDS

    def _next_look(self, resource: ModelOptimization, decision: Plan) -> float | None:
        """Return the seconds until a look without an event: as planned, or for a search or a stuck Job."""
        times = [] if decision.look_again is None else [decision.look_again]
        times += [self._scrape_seconds] if self._reader.searching(resource) else []
        times += self._reader.waits(resource)
        return min(times, default=None)

    async def _apply(self, observed: Observed, decision: Plan, state: _Pass) -> bool:
        """Carry a decision out, status first; returns whether there was anything to do.

        A plan that only asks for the Lease writes no status before the answer is known: one write less.
        """
        actions = state.open(decision)
        only_lease = bool(actions) and all(isinstance(action, AcquireLease) for action in actions)
        wrote = False if only_lease else await self._write_status(observed.resource, decision.status, state)
        for action in actions:
            if not await self._do(action, observed, state):
                return True
        return wrote or bool(actions)

    async def _write_status(self, resource: ModelOptimization, status: ModelOptimizationStatus, state: _Pass) -> bool:
        if not await self._writer.status(resource, status):
            return False
        state.changed = True
        self._metrics.transition(resource.status, status)
        _tell(resource.key, resource.status, status)
        return True

    async def _do(self, action: Action, observed: Observed, state: _Pass) -> bool:
        """Carry one action out; returns False when it was refused, which ends the round."""
        try:
            await self._verbs(observed)[type(action)](action)
        except Refused as refused:
            verb = _VERBS.get(type(action), Verb.OTHER)
            state.refusals = (*state.refusals, Refusal(verb, refused.reason, refused.message))
            state.refused.append(action)
            name = type(action).__name__
            log.warning("%s: %s was refused: %s: %s", observed.resource.key, name, refused.reason, refused)
            return False
        state.done.append(action)
        state.changed = True
        if isinstance(action, AcquireLease):
            state.leased = action.target_uid
        return True

    def _verbs(self, observed: Observed) -> dict[type[Any], Callable[[Any], Awaitable[None]]]:
        """Return how each verb is carried out for what was observed."""
        # The resource as it is in memory by now: a write earlier in the round has moved its version on.
        resource = self._cache.resource(observed.resource.key) or observed.resource
        writer, target = self._writer, observed.target
        return {
            AcquireLease: lambda action: writer.acquire_lease(resource, action),
            CreateJob: lambda action: writer.create_job(resource, action, target=target),
            HoldJob: lambda action: writer.hold_job(resource, action),
            ExpireJob: lambda action: writer.expire_job(resource, action),
            DeleteJob: lambda action: writer.delete_job(resource, action),
            CreateRun: lambda action: writer.create_run(resource, action),
            RecordRun: lambda action: writer.record_run(resource, action),
            DeleteRun: lambda action: writer.delete_run(resource, action),
            InjectModel: lambda action: writer.inject(resource, action, target=target),
            ReplacePod: lambda action: writer.replace_pod(resource, action),
            CreateCanary: lambda action: writer.create_canary(resource, action, target=target),
            ScaleCanary: lambda action: writer.scale_canary(resource, action),
            RemoveCanary: lambda action: writer.remove_canary(resource, action),
            CreateCanaryService: lambda action: writer.create_canary_service(resource, action),
            RemoveCanaryService: lambda action: writer.remove_canary_service(resource, action),
            ShareRoute: lambda action: writer.share_route(resource, action),
            SetFinalizer: lambda action: writer.set_finalizer(resource, action),
            EmitEvent: lambda action: writer.emit(resource, action),
        }


def _tell(key: str, old: ModelOptimizationStatus, new: ModelOptimizationStatus) -> None:
    """Log a transition, once, in one line."""
    if new.last_run and (old.last_run is None or old.last_run.name != new.last_run.name):
        log.info("%s: run %s ended %s: %s", key, new.last_run.name, new.last_run.outcome, new.last_run.message)
    if new.stage is not old.stage:
        log.info("%s: %s: %s", key, new.stage, new.message)


class Worker:
    """What the queue calls: a pass, its metrics, and when to look again."""

    def __init__(self, queue: Queue, reconciler: Reconciler, metrics: Metrics) -> None:
        self._queue = queue
        self._reconciler = reconciler
        self._metrics = metrics

    async def __call__(self, key: str) -> None:
        """Do a pass over a key and settle its outcome; never raises for one resource's sake."""
        with self._metrics.timed():
            try:
                changed, look_again = await self._reconciler.run(key)
            except Transient as error:
                self._failed(key, error, retry_after=error.retry_after)
                return
            except Exception as error:  # noqa: BLE001 - one resource must not stop the others
                self._failed(key, error)
                return
        self._metrics.reconciles.labels("changed" if changed else "unchanged").inc()
        self._queue.succeeded(key)
        if look_again is not None:
            self._queue.add(key, delay=look_again)

    def _failed(self, key: str, error: Exception, *, retry_after: float | None = None) -> None:
        self._metrics.reconciles.labels("error").inc()
        self._metrics.errors.inc()
        wait = self._queue.failed(key, retry_after=retry_after)
        expected = isinstance(error, ApiError)
        level = logging.DEBUG if expected and self._queue.failures(key) > 1 else logging.WARNING
        log.log(level, "%s: trying again in %.1f s: %s", key, wait, error, exc_info=None if expected else error)
