"""A World whose operators remember what they were told, which may be late, out of order, or lost.

Each process has a memory of its own, of the resource, its target, its Jobs and its runs. An answer to a write is
remembered at once, as `retune.cluster.writes.Writer` does; all else is what an event or a list has brought.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, cast

from retune.api.objects import ModelOptimization, OptimizationRun
from retune.cluster.cache import Cache
from retune.cluster.errors import Conflict, Transient
from retune.cluster.reads import Reader, must_be_read
from retune.cluster.writes import Writer
from retune.metrics import Metrics
from retune.plan.actions import (
    CreateCanary,
    CreateJob,
    CreateRun,
    DeleteJob,
    DeleteRun,
    ExpireJob,
    HoldJob,
    InjectModel,
    RecordRun,
    RemoveCanary,
    ScaleCanary,
)
from retune.plan.observed import Job, Observed, Refusal, Target
from retune.reconcile import Reconciler
from tests.unit.plan.server import Beside, CrashError
from tests.unit.plan.world import MemoryCache, MemoryReader, World, at_once
from tests.unit.plan.writer import MemoryWriter

JOBS, RUNS, TARGET, CANARY, RESOURCE = "jobs", "runs", "target", "canary", "resource"
_FOLLOWED = 0.1
"""Share of the time that passes by which a running process follows a clock that was set."""
_METRICS = Metrics()


@dataclass
class Process:
    """An operator's memory and clock."""

    began: datetime
    ahead: timedelta
    """By how much its clock is ahead of true time."""
    resource: ModelOptimization | None = None
    version: int = -1
    target: Target | None = None
    beside: Beside | None = None
    jobs: dict[str, Job] = field(default_factory=dict)
    runs: dict[str, OptimizationRun] = field(default_factory=dict)


class LateReader(MemoryReader):
    """Observes from the memory of the process that makes the pass."""

    def __init__(self, world: "LateWorld") -> None:
        super().__init__(world)
        self._late = world

    async def observe(
        self, resource: ModelOptimization, *, refusals: tuple[Refusal, ...] = (), leased: str | None = None
    ) -> Observed:
        """Return the facts as the process knows them; pods are read live, as in a cluster."""
        process = self._late.active
        if must_be_read(resource, process.target):
            self._late.tell(TARGET)
        fresh = await super().observe(resource, refusals=refusals, leased=leased)
        target = process.target
        return replace(
            fresh,
            target=target,
            jobs=dict(process.jobs),
            runs=dict(process.runs),
            traffic=self._late.traffic_by(process.beside),
            watched_since=process.began,
            lease_held=leased is not None and target is not None and leased == target.uid,
        )


class LateWriter(MemoryWriter):
    """Writes on what the process remembers, and remembers what it was answered."""

    def __init__(self, world: "LateWorld") -> None:
        super().__init__(world)
        self._late = world

    async def create_job(self, resource: ModelOptimization, action: CreateJob, *, target: Target | None) -> None:
        """Create or find the Job, and remember it."""
        await super().create_job(resource, action, target=target)
        self._late.tell(JOBS, action.name)

    async def create_run(self, resource: ModelOptimization, action: CreateRun) -> None:
        """Create or find the run, and remember it."""
        await super().create_run(resource, action)
        self._late.tell(RUNS, action.name)

    async def hold_job(self, resource: ModelOptimization, action: HoldJob) -> None:
        """Change a Job that is remembered and is still that Job."""
        if self._is_the_same(JOBS, action.name, "uid"):
            await super().hold_job(resource, action)
            self._late.tell(JOBS, action.name)

    async def expire_job(self, resource: ModelOptimization, action: ExpireJob) -> None:
        """End a Job that is remembered and is still that Job."""
        if self._is_the_same(JOBS, action.name, "uid"):
            await super().expire_job(resource, action)
            self._late.tell(JOBS, action.name)

    async def delete_job(self, resource: ModelOptimization, action: DeleteJob) -> None:
        """Delete a Job that is remembered and is still that Job."""
        if self._is_the_same(JOBS, action.name, "uid"):
            await super().delete_job(resource, action)
        self._late.active.jobs.pop(action.name, None)

    async def record_run(self, resource: ModelOptimization, action: RecordRun) -> None:
        """Write a run that is remembered as it is; raises Conflict where it has changed."""
        known, present = self._late.active.runs.get(action.name), self._late.runs.get(action.name)
        if known is None:
            return
        if present is not None and known != present:
            self._late.tell(RUNS, action.name)
            raise Conflict("the run has moved on")
        await super().record_run(resource, action)
        self._late.tell(RUNS, action.name)

    async def delete_run(self, resource: ModelOptimization, action: DeleteRun) -> None:
        """Delete a run that is remembered."""
        if action.name in self._late.active.runs:
            await super().delete_run(resource, action)
        self._late.active.runs.pop(action.name, None)

    async def inject(self, resource: ModelOptimization, action: InjectModel, *, target: Target | None) -> None:
        """Give the target a value, and remember the target."""
        await super().inject(resource, action, target=target)
        self._late.tell(TARGET)

    async def create_canary(self, resource: ModelOptimization, action: CreateCanary, *, target: Target | None) -> None:
        """Create or find the canary, and remember it and the target."""
        await super().create_canary(resource, action, target=target)
        self._late.tell(TARGET)
        self._late.tell(CANARY)

    async def scale_canary(self, resource: ModelOptimization, action: ScaleCanary) -> None:
        """Scale the canary, and remember it."""
        await super().scale_canary(resource, action)
        self._late.tell(CANARY)

    async def remove_canary(self, resource: ModelOptimization, action: RemoveCanary) -> None:
        """Remove the canary, and remember that."""
        await super().remove_canary(resource, action)
        self._late.tell(CANARY)

    def _is_the_same(self, plural: str, name: str, mark: str) -> bool:
        known, present = self._late.active.jobs.get(name), self._late.jobs.get(name)
        same = known is not None and present is not None and known.uid == present.uid
        if not same:
            self._late.tell(plural, name)
        return same


class LateWorld(World):
    """A World with one or two operators that are told of things one by one, by whoever drives it."""

    def __init__(self, *, operators: int = 1, **fields: Any) -> None:
        super().__init__(**fields)
        self.wall = timedelta()
        """By how much the machines' clocks are ahead of true time."""
        self.processes = [self._started() for _ in range(operators)]
        self.active = self.processes[0]
        self._passing: Process | None = None
        self.cut_in: tuple[int, Callable[[], None]] | None = None
        """After how many more requests something happens in between, and what."""
        self.reader, self.writer = LateReader(self), LateWriter(self)
        self.reconciler = Reconciler(
            cache=cast("Cache", MemoryCache(self)),
            reader=cast("Reader", self.reader),
            writer=cast("Writer", self.writer),
            metrics=_METRICS,
            clock=lambda: self.now + self.active.ahead,
            decide=self._decide,
        )

    # What is told to whom

    def _started(self) -> Process:
        process = Process(began=self.now + self.wall, ahead=self.wall)
        self._list(process)
        return process

    def _list(self, process: Process) -> None:
        process.resource, process.version = (None if self.gone else self.resource), self.version
        process.target, process.beside = self.target, self.beside
        process.jobs, process.runs = dict(self.jobs), dict(self.runs)

    def resync(self, process: Process) -> None:
        """Let a process list everything."""
        self._list(process)

    def tell(self, what: str, name: str = "", *, process: Process | None = None) -> None:
        """Let a process, the active one unless another is named, know of one object as it is."""
        process = process or self.active
        if what == RESOURCE:
            process.resource, process.version = (None if self.gone else self.resource), self.version
        elif what == TARGET:
            process.target = self.target
        elif what == CANARY:
            process.beside = self.beside
        else:
            present: dict[str, Any] = self.jobs if what == JOBS else self.runs
            remembered: dict[str, Any] = process.jobs if what == JOBS else process.runs
            remembered.pop(name, None)
            if name in present:
                remembered[name] = present[name]

    def untold(self, process: Process) -> list[tuple[str, str]]:
        """Return the objects of which a process does not know how they are."""
        late = [(RESOURCE, "")] if (process.resource, process.version) != (self.resource, self.version) else []
        late += [(TARGET, "")] if process.target != self.target else []
        late += [(CANARY, "")] if process.beside != self.beside else []
        for what, present, known in ((JOBS, self.jobs, process.jobs), (RUNS, self.runs, process.runs)):
            names = sorted(present.keys() | known.keys())
            late += [(what, name) for name in names if present.get(name) != known.get(name)]
        return late

    # Passes

    def wait(self, seconds: float) -> None:
        """Let time pass; a clock that was set is followed slowly."""
        super().wait(seconds)
        for process in self.processes:
            most = timedelta(seconds=seconds * _FOLLOWED)
            process.ahead += min(max(self.wall - process.ahead, -most), most)

    def restart(self, number: int) -> None:
        """End a process and start the next one in its place, which lists everything."""
        self.processes[number] = self._started()

    def arrive(self) -> None:
        """Take a request in; what cuts in comes first."""
        if self.cut_in is not None:
            left, happening = self.cut_in
            self.cut_in = (left - 1, happening) if left else None
            if not left:
                happening()
        super().arrive()

    def run(self, number: int) -> int:
        """Let an operator make a pass on what it knows; returns how many writes it took."""
        outer, before = self._passing, self.writes
        if outer is not None:
            self._leave(outer)
        self._enter(self.processes[number])
        try:
            _, self.look_again = at_once(self.reconciler.run(f"ml/{self.resource.metadata.name}"))
        except CrashError:
            self.restart(number)
        except Transient:
            self._leave(self.active)
        else:
            self._leave(self.active)
        self._passing = None
        if outer is not None:
            self._enter(outer)
        return self.writes - before

    def _enter(self, process: Process) -> None:
        self.active = self._passing = process
        self.heard, self.heard_version = process.resource, process.version

    def _leave(self, process: Process) -> None:
        process.resource, process.version = self.heard, self.heard_version
