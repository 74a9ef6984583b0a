"""The world in which the planner is tested keeps every case of the suite that the Writer keeps on a real API server."""

from dataclasses import replace
from typing import Any

import pytest

from retune.api.status import ModelOptimizationStatus
from retune.cluster.errors import Conflict
from retune.plan.actions import Action, CreateCanary, RemoveCanary, ScaleCanary
from retune.plan.observed import LatePod, Observed
from retune.traffic import Backend
from tests.conformance.scene import (
    CANARY,
    JOB,
    JOBS,
    LATE_POD,
    LEASES,
    PODS,
    RESOURCE,
    ROUTE,
    RUN,
    RUNS,
    SERVICE,
    TARGET,
    TARGET_UID,
    WHOLE,
    as_seen,
    outcome,
)
from tests.conformance.writer import WriterConformance
from tests.unit.plan.server import THEIRS, Beside
from tests.unit.plan.world import World


class MemoryScene:
    """A World that nothing drives but the cases."""

    def __init__(self) -> None:
        self._world = World(rules=(WHOLE,), behind=(LatePod(LATE_POD, "as made", None),))
        self._heard = self._world.observe()

    async def carry_out(self, action: Action) -> str:
        """Carry an action out as the reconciler does, which reads a resource anew that has moved on."""
        world = self._world
        resource = world.heard or world.resource
        read = world.traffic
        traffic = replace(self._heard.traffic, route=read.route, service=read.service)
        observed = Observed(resource=resource, target=self._heard.target, traffic=traffic)
        action = as_seen(action, observed)
        told = await outcome(world.reconciler._verbs(observed)[type(action)](action))
        if told == Conflict.__name__:
            world.hear()
        if isinstance(action, CreateCanary | ScaleCanary | RemoveCanary):
            self._heard = replace(self._heard, traffic=world.traffic)  # an answer to a write is remembered at once
        return told

    async def write_status(self, status: ModelOptimizationStatus) -> str:
        """Write the resource's status."""
        world = self._world
        return await outcome(world.writer.status(world.heard or world.resource, status))

    async def look(self) -> Observed:
        """Hear of everything."""
        self._heard = self._world.observe()
        return self._heard

    async def remember(self) -> Observed:
        """Observe without hearing of the resource."""
        return await self._world.reader.observe(self._world.heard or self._world.resource)

    async def restart(self) -> None:
        """Hear of everything, as nothing is remembered."""
        await self.look()

    def version(self, plural: str) -> str | None:
        """Return how often the object was changed."""
        world = self._world
        names = {JOBS: JOB, RUNS: RUN, LEASES: TARGET_UID, PODS: LATE_POD}
        plural = "services" if plural == SERVICE else plural
        there = {
            JOBS: JOB in world.jobs.keys() | world.taken[JOBS] | world.left_jobs.keys(),
            RUNS: RUN in world.runs.keys() | world.taken[RUNS] | world.left_runs.keys(),
            LEASES: TARGET_UID in world.leases,
            TARGET: world.target_uid is not None,
            RESOURCE: not world.gone,
            CANARY: world.beside is not None,
            "services": world.service is not None,
            ROUTE: world.rules is not None,
            PODS: bool(world.behind),
        }
        return str(world.versions[plural, names.get(plural, "digits")]) if there[plural] else None

    def events(self) -> list[tuple[str, str, str]]:
        """Return what was emitted."""
        events = self._world.events
        return [("Warning" if event.warning else "Normal", event.reason, event.message) for event in events]

    def finalizers(self) -> tuple[str, ...]:
        """Return the resource's finalizers."""
        return self._world.resource.metadata.finalizers

    def edit(self, **spec: Any) -> None:
        """Change the spec."""
        self._world.change(**spec)

    def add_finalizer(self, name: str) -> None:
        """Add to the list."""
        self._world.update(metadata={"finalizers": (*self.finalizers(), name)})
        self._changed(RESOURCE, "digits")

    def _changed(self, plural: str, name: str) -> None:
        self._world.versions[plural, name] += 1

    def delete(self, plural: str) -> None:
        """Remove it; a target that comes after it is another one."""
        world = self._world
        match plural:
            case "jobs":
                del world.jobs[JOB]
            case "optimizationruns":
                del world.runs[RUN]
            case "deployments":
                world.target_uid, world.value, world.manager = None, None, None
            case "canary":
                world.beside = None
            case "httproutes":
                world.rules = None
            case _:
                world.delete()

    def take_name(self, plural: str) -> None:
        """Mark the name as another owner's."""
        if plural == SERVICE:
            self._world.service = THEIRS
            return
        if plural == CANARY:
            self._world.beside = Beside("theirs", None, "another", 1, owner="someone")
            self._changed(CANARY, "digits")
            return
        self._world.jobs.pop(JOB, None)
        self._world.runs.pop(RUN, None)
        self._world.taken[plural].add(JOB if plural == JOBS else RUN)

    def leave_behind(self, plural: str) -> None:
        """Keep it apart from what is owned."""
        world = self._world
        if plural == CANARY and world.beside is not None:
            world.beside = replace(world.beside, owner=None)
        elif plural == JOBS:
            world.left_jobs[JOB] = world.jobs.pop(JOB)
        else:
            world.left_runs[RUN] = world.runs.pop(RUN)

    def finish_job(self) -> None:
        """Finish it."""
        self._world.finish(JOB)

    def edit_route(self) -> None:
        """Add a rule."""
        self._world.edit_route(*(self._world.rules or ()), (Backend("other"),))

    def edit_template(self) -> None:
        """Change another part of it."""
        self._world.edit_template()

    def set_field(self, value: str) -> None:
        """Set it as kubectl would."""
        self._world.edit_field(value, "kubectl")

    def replace_target(self) -> None:
        """Put another one there."""
        self.delete(TARGET)
        self._world.target_uid = "target-2"

    def hold_lease_for_another(self) -> None:
        """Let another resource live, and hold the Lease."""
        self._world.rivals.add("mo-2")
        self._world.leases[TARGET_UID] = "mo-2"
        self._changed(LEASES, TARGET_UID)

    def remove_other_resource(self) -> None:
        """Let it live no more."""
        self._world.rivals.clear()

    def forbid_jobs_by_quota(self) -> None:
        """Let the quota admit none."""
        self._world.quota = True

    def end_namespace(self) -> None:
        """Let it end."""
        self._world.namespace_ends = True


class TestWorld(WriterConformance):
    """The suite on the planner's world."""

    @pytest.fixture
    async def scene(self) -> MemoryScene:
        """A world of its own, heard of once."""
        scene = MemoryScene()
        await scene.look()
        return scene
