"""What one pass sees of a resource: from memory, and from the API server only where memory cannot know.

Such reads are rare by design: the target and its pods while a rollout is under way, the target where it is not as it
was left, pods whose own metrics are due, the pods of a Job whose end the watch has brought before theirs, the events of
a Job that has no pod, and what a queue says of a Job that it does not admit.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from pydantic import ValidationError

from retune.api.base import Json
from retune.api.objects import ModelOptimization
from retune.api.spec import Mode
from retune.cluster.cache import Cache
from retune.cluster.client import Client, Request
from retune.cluster.errors import NotFound, Refused
from retune.cluster.job_standing import observed_job, obstacle_in, speaking_pod
from retune.cluster.keys import LOOK_SECONDS, KeyReader
from retune.cluster.kinds import DEPLOYMENTS, EVENTS, MODEL_OPTIMIZATIONS, PODS, Kind, target_kind
from retune.cluster.parse import JobFacts
from retune.cluster.queueing import QueueReader
from retune.cluster.traffic import TrafficReader
from retune.cluster.unreadable import faults_of
from retune.plan import names
from retune.plan.observed import (
    Defaults,
    Heard,
    Job,
    JobPhase,
    Live,
    Observed,
    Pods,
    Refusal,
    ServingPod,
    Target,
    Trouble,
)
from retune.plan.run.stages import SEARCH
from retune.plan.told import Obstacle
from retune.plan.watch import windows
from retune.signals.live import LiveReader
from retune.signals.scrape import Scraper
from retune.targets import kind_of
from retune.targets.config_map import with_key

_JOB_UID = "batch.kubernetes.io/controller-uid"
_UNEXPLAINED_SECONDS = 10.0
"""How long a Job may have no pod or wait for its queue, or a node may prepare its pod, before it is asked why."""
_LONGEST_WAIT_SECONDS = 300.0
_SHORTEST_WAIT_SECONDS = 1.0


def must_be_read(resource: ModelOptimization, target: Target | None) -> bool:
    """Return whether the target in memory may be older than the status that another process has written.

    During a rollout, or where it does not name the champion, it decides what serves. Taken from a late watch, our own
    last write would be missing, and its absence would look like the wish of whoever put the old value back.
    """
    status = resource.status
    if status.champion is None:
        return False
    container = target.container(resource.spec.target.container) if target else None
    return status.rollout is not None or container is None or container.value != status.champion.injected_value


class Reader:
    """Observes a resource and everything that belongs to it."""

    def __init__(
        self,
        client: Client,
        cache: Cache,
        scraper: Scraper,
        *,
        live: LiveReader,
        defaults: Defaults,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._clock = clock
        self._began = clock()
        self._client = client
        self._cache = cache
        self._scraper = scraper
        self._live = live
        self._defaults = defaults
        self._traffic = TrafficReader(client, cache, live.beside)
        self._queues = QueueReader(client)
        self._keys = KeyReader(client)
        self._pods_read: dict[str, JobFacts] = {}
        """Finished Jobs, by UID, as they were when their pods were read live."""

    async def observe(
        self, resource: ModelOptimization, *, refusals: tuple[Refusal, ...] = (), leased: str | None = None
    ) -> Observed:
        """Return everything one decision is made from; `leased` is the UID of the target whose Lease was acquired."""
        raw, target = await self._look_at_target(resource)
        jobs = await self._jobs(resource)
        target, pods = await self._serving_pods(resource, raw, target, jobs)
        return Observed(
            resource=resource,
            target=target,
            jobs=jobs,
            runs=self._cache.runs_of(resource),
            ended_before=self._cache.ended_before(resource),
            pods=pods,
            trials=await self._scraper.trials(resource.key, self.searching(resource)),
            live=await self._live_numbers(resource, raw, target),
            heard=await self._heard(resource, target, pods, jobs),
            traffic=await self._traffic.observe(resource, pods),
            watched_since=self._began,
            lease_held=target is not None and target.uid == leased,
            refusals=refusals,
            defaults=self._defaults,
        )

    def searching(self, resource: ModelOptimization) -> list[str]:
        """Return the addresses of the workers of the resource's running search."""
        active = resource.status.run
        if active is None or active.stage != SEARCH:
            return []
        jobs = [job for job in self._cache.jobs_of(resource).values() if job.command == "search" and not job.finished]
        pods = [pod for job in jobs for pod in self._cache.pods_of(job)]
        return [pod.address for pod in pods if pod.phase == "Running" and pod.address]

    async def refresh(self, namespace: str, name: str) -> None:
        """Read a resource live into memory, where it may turn out to be unreadable; raises NotFound when it is gone."""
        raw = await self._client.get(MODEL_OPTIMIZATIONS, namespace, name)
        try:
            self._cache.put(MODEL_OPTIMIZATIONS, raw)
        except ValidationError as error:
            self._cache.put_unreadable(raw, faults_of(error))

    def waits(self, resource: ModelOptimization) -> list[float]:
        """Return in how many seconds to look again at Jobs that do not start, ever less often, and at live metrics."""
        jobs = self._cache.jobs_of(resource).values()
        silent = [entry[1] for job in jobs if (entry := self._unexplained(job))]
        queued = [waited for job in jobs if (waited := self._queued_seconds(job)) is not None]
        waits = [min(_LONGEST_WAIT_SECONDS, max(_UNEXPLAINED_SECONDS, waited)) for waited in (*silent, *queued)]
        waits += [LOOK_SECONDS] if resource.spec.target.injection.config_map else []
        scrape = self._live.wait(resource)
        return waits if scrape is None else [*waits, max(_SHORTEST_WAIT_SECONDS, scrape)]

    async def _look_at_target(self, resource: ModelOptimization) -> tuple[Json | None, Target | None]:
        """Return the target from memory, or as it is where memory does not show it as this resource left it."""
        ref, namespace = resource.spec.target.ref, resource.metadata.namespace
        if ref.kind not in self._defaults.target_kinds:
            return None, None
        kind, raw = target_kind(ref), self._cache.target(resource)
        found = await self._keys.found(resource)
        target = _target(resource, raw, found)
        if not must_be_read(resource, target):
            return raw, target
        await self._read(kind, namespace, ref.name)
        for other in kind_of(ref).beside(ref.name) if kind != DEPLOYMENTS else ():
            await self._read(DEPLOYMENTS, namespace, other)  # another controller makes it of the target
        raw = self._cache.target(resource)
        return raw, _target(resource, raw, found)

    async def _read(self, kind: Kind, namespace: str, name: str) -> None:
        try:
            self._cache.put(kind, await self._client.get(kind, namespace, name))
        except NotFound:
            self._cache.forget(kind, namespace, name)

    async def _jobs(self, resource: ModelOptimization) -> Mapping[str, Job]:
        jobs = {}
        for name, job in self._cache.jobs_of(resource).items():
            if job.finished and self._pods_read.get(job.uid) != job and not self._end_is_known(job):
                await self._read_pods(resource, job)
            obstacle, says = await self._obstacle(resource, job), await self._queue_says(resource, job)
            jobs[name] = observed_job(job, self._cache.pods_of(job), obstacle=obstacle, queue_says=says)
        return jobs

    def _unexplained(self, job: JobFacts) -> tuple[str, float] | None:
        """Return whose events may say why a Job does not start, and for how many seconds it has not.

        That is the UID of a Job without pods, or of a pod that its node does not get ready to run. None: all is well.
        """
        if job.started is None or job.finished or job.suspended:
            return None
        pods = self._cache.pods_of(job)
        prepared = next((pod for pod in pods if pod.being_prepared), None)
        if prepared is not None:
            return prepared.uid, (self._clock() - prepared.started).total_seconds()
        return None if job.active or pods else (job.uid, (self._clock() - job.started).total_seconds())

    async def _obstacle(self, resource: ModelOptimization, job: JobFacts) -> Trouble | None:
        """Return why a Job's pods cannot be created or prepared, which only events show."""
        silent = self._unexplained(job)
        if silent is None or silent[1] < _UNEXPLAINED_SECONDS:
            return None
        query = {"fieldSelector": f"involvedObject.uid={silent[0]}", "limit": "50"}
        path = EVENTS.path(resource.metadata.namespace)
        try:
            answer = await self._client.call(Request("GET", path, query))
        except Refused:
            return None  # an administrator has taken this right away: the Job just waits, unexplained
        return obstacle_in(answer["items"])

    def _queued_seconds(self, job: JobFacts) -> float | None:
        """Return for how many seconds a Job has waited for its queue, which may say why; None where it does not."""
        if job.queue is None or job.suspended_since is None or job.finished or job.held:
            return None
        return (self._clock() - job.suspended_since).total_seconds()

    async def _queue_says(self, resource: ModelOptimization, job: JobFacts) -> str | None:
        """Return why a Job still waits for its queue, in the queue's words."""
        waited = self._queued_seconds(job)
        if waited is None or waited < _UNEXPLAINED_SECONDS:
            return None
        return await self._queues.why(resource.metadata.namespace, job)

    def _end_is_known(self, job: JobFacts) -> bool:
        return speaking_pod(job, self._cache.pods_of(job)) is not None

    async def _read_pods(self, resource: ModelOptimization, job: JobFacts) -> None:
        """Read the pods of a finished Job live, once: the watch may bring the Job's end before theirs."""
        selector = f"{_JOB_UID}={job.uid}"
        async for page in self._client.pages(PODS, resource.metadata.namespace, selector=selector):
            for pod in page["items"]:
                self._cache.put(PODS, pod)
        self._pods_read[job.uid] = job

    async def _live_numbers(self, resource: ModelOptimization, raw: Json | None, target: Target | None) -> Live | None:
        """Return the live numbers of the last window that ended, having asked the pods where it is time."""
        state, due = resource.status.monitoring, self._live.wait(resource)
        if due is None or state is None or raw is None:
            return None
        pods: tuple[ServingPod, ...] = ()
        if due == 0.0:
            pods = await self._live_pods(resource, raw, target)
            await self._live.observe(resource, pods)
        index = windows.newest_over(self._clock(), state.window_seconds, 0.0)
        window = windows.window(max(index, 0), state.window_seconds)
        return await self._live.window(resource, pods, index=window.index, start=window.start, end=window.end)

    async def _live_pods(self, resource: ModelOptimization, raw: Json, target: Target | None) -> tuple[ServingPod, ...]:
        """Read the target's running pods, of whatever model."""
        container = target.container(resource.spec.target.container) if target else None
        if container is None:
            return ()
        pods = await self._target_pods(resource, raw)
        return kind_of(resource.spec.target.ref).serving(raw, pods, container=container.name)

    async def _target_pods(self, resource: ModelOptimization, raw: Json) -> list[Json]:
        selector = kind_of(resource.spec.target.ref).pod_selector(raw)
        pages = self._client.pages(PODS, resource.metadata.namespace, selector=selector)
        return [pod async for page in pages for pod in page["items"]]

    async def _serving_pods(
        self, resource: ModelOptimization, raw: Json | None, target: Target | None, jobs: Mapping[str, Job]
    ) -> tuple[Target | None, Pods]:
        """Read the target's pods live while a rollout is under way, and have their agents say how the target stands.

        Agents are asked before one begins, too: nothing is given to pods that do not follow.
        """
        wanted, rollout = resource.spec.target, resource.status.rollout
        container = target.container(wanted.container) if target else None
        has_agents = wanted.injection.config_map is not None
        is_looked_at = rollout is not None or (has_agents and _is_judged(resource, jobs))
        if not is_looked_at or raw is None or container is None or target is None:
            return target, Pods()
        listed = await self._target_pods(resource, raw)
        port = wanted.inference.port if wanted.inference else 0
        variable = wanted.injection.field
        pods = kind_of(wanted.ref).pods(raw, listed, container=container.name, variable=variable, port=port)
        if has_agents:
            target, pods = await self._keys.followed(resource, target, pods, listed)
        return target, pods if rollout is not None else Pods()

    async def _heard(
        self, resource: ModelOptimization, target: Target | None, pods: Pods, jobs: Mapping[str, Job]
    ) -> Heard | None:
        """Read what a version has answered while it bakes, or what serves now when another may take its place."""
        rollout = resource.status.rollout
        if rollout is not None and rollout.bake_start_time is not None and rollout.rollback_reason is None:
            return await self._live.bake.heard(resource, pods.serving, since=rollout.bake_start_time.timestamp())
        raw = self._cache.target(resource) if _is_judged(resource, jobs) else None
        if raw is None:
            return None
        return await self._live.bake.heard(resource, await self._live_pods(resource, raw, target), since=None)

    async def close(self) -> None:
        """Close connections."""
        await self._keys.close()

    def forget(self, key: str) -> None:
        """Drop what is remembered of a resource that is gone, and of Jobs that are."""
        self._scraper.forget(key)
        self._live.forget(key)
        present = {job.uid for job in self._cache.jobs.values()}
        self._pods_read = {uid: job for uid, job in self._pods_read.items() if uid in present}


def _target(resource: ModelOptimization, raw: Json | None, found: Json | Obstacle | None) -> Target | None:
    """Return the target, with the key of a ConfigMap as its field where that names the model."""
    wanted = resource.spec.target
    target = kind_of(wanted.ref).parse(raw, variable=wanted.injection.field) if raw else None
    key = wanted.injection.config_map
    return target if target is None or key is None else with_key(target, found, key)


def _is_judged(resource: ModelOptimization, jobs: Mapping[str, Job]) -> bool:
    """Whether a run has come to its verdict, so that its candidate may go live in this pass."""
    run, status = resource.status.run, resource.status
    if status.rollout is not None or resource.spec.mode is not Mode.AUTOMATIC:
        return False
    judge = jobs.get(names.judge_job(run.name)) if run else None
    return status.candidate is not None or (judge is not None and judge.phase is JobPhase.SUCCEEDED)
