"""A small world for the planner: the operator's own passes, over a server in memory, and Jobs, users and neighbours.

Used by example tests and by the state machine that Hypothesis drives.
"""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import TypeVar, cast

from retune.api.objects import ModelOptimization
from retune.api.status import Trials
from retune.cluster.cache import Cache
from retune.cluster.errors import NotFound
from retune.cluster.kinds import Kind
from retune.cluster.reads import Reader
from retune.cluster.unreadable import Unreadable
from retune.cluster.writes import Writer
from retune.contract.requests import RegisterRequest, VerifyRequest
from retune.contract.results import (
    BaselineResult,
    CandidateSummary,
    Failure,
    JobResult,
    JudgeResult,
    Reason,
    Verdict,
)
from retune.metrics import Metrics
from retune.plan import Observed, Plan, plan
from retune.plan.observed import Defaults, Heard, JobPhase, Live, Refusal
from retune.reconcile import ROUNDS, Reconciler
from tests.answers import answer, baseline_missing, stored
from tests.unit.plan.server import FINISHED, CrashError, Server, spec
from tests.unit.plan.writer import MemoryWriter

__all__ = ["CrashError", "World", "spec"]

T = TypeVar("T")
_METRICS = Metrics()


def at_once(work: Coroutine[None, None, T]) -> T:
    """Return what a coroutine returns that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as ended:
        result: T = ended.value
        return result
    raise AssertionError("it waits for something")


class MemoryCache:
    """What a pass asks of `retune.cluster.cache.Cache`."""

    def __init__(self, server: Server) -> None:
        self._server = server

    @property
    def unreadable(self) -> dict[str, Unreadable]:
        """All can be read."""
        return {}

    def resource(self, key: str) -> ModelOptimization | None:
        """Return the resource as the operator has heard of it last."""
        return self._server.heard

    def forget(self, kind: Kind, namespace: str, name: str) -> None:
        """Drop the resource."""
        self._server.heard = None


class MemoryReader:
    """What a pass asks of `retune.cluster.reads.Reader`."""

    def __init__(self, world: "World") -> None:
        self._world = world

    async def observe(
        self, resource: ModelOptimization, *, refusals: tuple[Refusal, ...] = (), leased: str | None = None
    ) -> Observed:
        """Return the facts of this moment."""
        return Observed(
            resource=resource,
            target=self._world.target,
            jobs=dict(self._world.jobs),
            runs=dict(self._world.runs),
            ended_before=max(
                (run.spec.number for run in self._world.left_runs.values() if run.status.outcome), default=0
            ),
            pods=self._world.pods,
            live=self._world.live,
            trials=self._world.trials,
            heard=self._world.counts,
            traffic=self._world.traffic,
            watched_since=self._world.watched_since,
            lease_held=leased is not None and leased == self._world.target_uid,
            refusals=refusals,
            defaults=Defaults(target_kinds=self._world.target_kinds),
        )

    async def refresh(self, namespace: str, name: str) -> None:
        """Hear of the resource as it is; raises NotFound when it is gone."""
        self._world.hear()
        if self._world.gone:
            raise NotFound("the resource is gone")

    def forget(self, key: str) -> None:
        """Nothing is remembered."""

    def searching(self, resource: ModelOptimization) -> list[str]:
        """Nobody scrapes here."""
        return []

    def waits(self, resource: ModelOptimization) -> list[float]:
        """Every Job gets its pods at once."""
        return []


@dataclass
class World(Server):
    """One resource, its target and its Jobs, and an operator that makes a pass when it is told to."""

    approved: set[str] = field(default_factory=set)
    """Bundles that passed the gate."""
    lost: set[str] = field(default_factory=set)
    """Digests of bundles that were in the store and are not any more."""
    store_away: bool = False
    """Whether no Job can reach the store."""
    bundles: int | None = None
    """How many different bundles all runs together can make; None: every run makes its own."""
    live: Live | None = None
    trials: Trials | None = None
    """How far the search's workers say that they are."""
    counts: Heard | None = None
    """What the new version's pods have counted in a bake."""
    watched_since: datetime | None = None
    """When the operator began to watch; None: it was always there."""
    aliases: dict[str, str] = field(default_factory=dict)
    """What the registry calls versions: their digests by alias."""
    look_again: float | None = None
    """When the last pass wanted the next one without an event."""
    witness: Callable[[Observed, Plan], None] | None = None
    """Who is told of every decision."""

    def __post_init__(self) -> None:
        """Create the resource, and start the operator."""
        super().__post_init__()
        self.reader, self.writer = MemoryReader(self), MemoryWriter(self)
        self.reconciler = Reconciler(
            cache=cast("Cache", MemoryCache(self)),
            reader=cast("Reader", self.reader),
            writer=cast("Writer", self.writer),
            metrics=_METRICS,
            clock=lambda: self.now,
            decide=self._decide,
        )
        self._decisions = 0

    # The operator

    def observe(self) -> Observed:
        """Hear of everything, and return the facts of this moment."""
        self.hear()
        return at_once(self.reader.observe(self.resource))

    def decide(self) -> Plan:
        """Return the plan of a fresh pass."""
        return plan(self.observe(), self.now)

    def _decide(self, observed: Observed, now: datetime) -> Plan:
        self._decisions += 1
        decision = plan(observed, now)
        if self.witness is not None:
            self.witness(observed, decision)
        return decision

    def reconcile(self) -> int:
        """Hear of everything and make a pass, which must come to rest; returns the number of writes."""
        before, self._decisions = self.writes, 0
        self.replacing = self.replacing and not self.settled
        self.hear()
        _, self.look_again = at_once(self.reconciler.run(self.resource.key))
        assert self._decisions < ROUNDS, "the plan never comes to rest"
        return self.writes - before

    def survive(self) -> None:
        """Do a pass, and after a crash another one, as the next process would."""
        try:
            self.reconcile()
        except CrashError:
            self.reconcile()

    # Jobs and time

    def active_jobs(self) -> list[str]:
        """Return the names of Jobs that have not finished."""
        return [job.name for job in self.jobs.values() if job.phase not in FINISHED]

    def finish(self, name: str, result: JobResult | None = None) -> None:
        """Let a Job do its work, with a result that fits its request; it fails where it needs a bundle that is lost."""
        result = result or self.answer(name)
        request = self.requests[name]
        fields: tuple[str, ...] = ("bundle",) if isinstance(request, VerifyRequest) else ("champion", "original")
        if isinstance(request, RegisterRequest):
            self._register(request, whole=True)
            fields = ()
        needed = [getattr(request, field, None) for field in fields]
        if self.store_away or any(bundle.digest in self.lost for bundle in needed if bundle):
            self.fail(name, Reason.BUNDLE_NOT_FOUND)
            return
        self._store(result)
        self.jobs[name] = replace(self.jobs[name], phase=JobPhase.SUCCEEDED, result=result)

    def _register(self, request: RegisterRequest, *, whole: bool) -> None:
        """Have the registry say what it is told; of a Job that breaks off, as far as it comes."""
        if request.champion is not None:
            self.aliases[request.registry.aliases.champion] = request.champion.bundle.digest
        if not whole:
            return
        self.aliases.pop(request.registry.aliases.challenger, None)
        if request.challenger is not None:
            self.aliases[request.registry.aliases.challenger] = request.challenger.bundle.digest

    def _store(self, result: JobResult) -> None:
        """Have the bundles that a result brings in the store."""
        if isinstance(result, BaselineResult):
            self.lost.discard(result.bundle.digest)
        if isinstance(result, JudgeResult) and result.candidate and result.verdict is Verdict.PROMOTE:
            self.lost.discard(result.candidate.bundle.digest)

    def lose(self) -> str:
        """Let the store lose the champion's bundle; returns its digest."""
        champion = self.resource.status.champion
        assert champion is not None
        self.lost.add(champion.digest)
        return champion.digest

    def fail(self, name: str, reason: Reason = Reason.UNEXPECTED) -> None:
        """Let a Job fail with a reason; one that tells the registry something has told a part of it."""
        request = self.requests.get(name)
        if isinstance(request, RegisterRequest):
            self._register(request, whole=False)
        result = Failure(reason=reason, object="pvc://store/x", message="is wrong.", next_step="Mend it.")
        self.jobs[name] = replace(self.jobs[name], phase=JobPhase.FAILED, result=result)

    def answer(self, name: str, verdict: Verdict = Verdict.PROMOTE) -> JobResult:
        """Return an honest result for a Job's request."""
        result = answer(self.requests[name], verdict=verdict)
        if isinstance(result, BaselineResult) and result.serves and result.serves.bundle.digest in self.lost:
            result = baseline_missing(self.requests[name])
        if isinstance(result, JudgeResult) and result.candidate:
            result = result.model_copy(update={"candidate": self._own(result.candidate)})
        if isinstance(result, JudgeResult) and result.candidate and verdict is Verdict.PROMOTE:
            self.approved.add(result.candidate.bundle.uri)
        return result

    def _own(self, candidate: CandidateSummary) -> CandidateSummary:
        """Return the candidate with a bundle that no resource before this one has made."""
        digest = candidate.bundle.digest
        if self.bundles is not None:
            digest = f"bundle-{self.resource.status.next_run % self.bundles}"
        if self.bundles is None and not self.suffix:
            return candidate
        store = candidate.bundle.uri.rpartition("/bundles/")[0]
        return candidate.model_copy(update={"bundle": stored(store, f"{digest}{self.suffix}")})

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)

    # A whole pass, for tests that start further on

    def run_to_rollout(self) -> None:
        """Go from nothing to a candidate that has been given to the target."""
        self.reconcile()
        for _ in range(3):
            (name,) = self.active_jobs()
            self.finish(name)
            self.reconcile()

    def run_to_bake(self) -> None:
        """Go from nothing to a version that every pod serves and that is watched."""
        self.run_to_rollout()
        self.settled = True
        self.reconcile()
        (verify,) = self.active_jobs()
        self.finish(verify)
        self.reconcile()

    def run_to_promotion(self) -> None:
        """Go from nothing to a promoted champion."""
        self.run_to_bake()
        self.wait(600)
        self.reconcile()

    def settle(self) -> None:
        """Go from nothing to a champion that is the delivered model, after a first run that brought nothing."""
        self.reconcile()
        self.end_run(Verdict.NO_GAIN)

    def end_run(self, verdict: Verdict) -> None:
        """Finish the Jobs of baseline and run with this verdict, as far as nothing goes live."""
        for _ in range(5):
            for name in self.active_jobs():
                self.finish(name, self.answer(name, verdict))
            self.reconcile()

    def promote(self) -> None:
        """Carry a run that was just started to its promotion; checks of windows are left alone."""
        for _ in range(9):
            for name in self.active_jobs():
                if "-w" not in name:
                    self.finish(name)
            self.settled = True
            self.reconcile()
            self.wait(30)
        self.reconcile()
