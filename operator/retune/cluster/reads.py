"""What one pass sees of a resource: from memory, and live only where memory cannot know.

Live reads are rare by design: the target's pods while a rollout is under way, and the pods of a Job that has
finished before the watch has brought their last words.
"""

from collections.abc import Mapping

from retune.api.base import Json
from retune.api.objects import ModelOptimization
from retune.cluster.cache import Cache
from retune.cluster.client import Client
from retune.cluster.kinds import MODEL_OPTIMIZATIONS, PODS
from retune.cluster.parse import JobFacts, speaking_pod
from retune.plan.observed import Defaults, Job, Observed, Pods, Refusal, Target
from retune.plan.run import SEARCH
from retune.signals.scrape import Scraper
from retune.targets import kind_of

_JOB_UID = "batch.kubernetes.io/controller-uid"


class Reader:
    """Observes."""

    def __init__(self, client: Client, cache: Cache, scraper: Scraper, *, defaults: Defaults) -> None:
        self._client = client
        self._cache = cache
        self._scraper = scraper
        self._defaults = defaults
        self._heard_out: dict[str, JobFacts] = {}

    async def observe(
        self, resource: ModelOptimization, *, refusals: tuple[Refusal, ...] = (), lease_held: bool = False
    ) -> Observed:
        """Return everything one decision is made from."""
        raw = self._cache.deployment(resource.metadata.namespace, resource.spec.target.ref.name)
        target = self._target(resource, raw)
        return Observed(
            resource=resource,
            target=target,
            jobs=await self._jobs(resource),
            runs=self._cache.runs_of(resource),
            pods=await self._serving_pods(resource, raw, target),
            trials=await self._scraper.trials(resource.key, self.searching(resource)),
            lease_held=lease_held,
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

    async def refresh(self, resource: ModelOptimization) -> None:
        """Read the resource live into memory; raises NotFound when it is gone."""
        meta = resource.metadata
        self._cache.put(MODEL_OPTIMIZATIONS, await self._client.get(MODEL_OPTIMIZATIONS, meta.namespace, meta.name))

    def _target(self, resource: ModelOptimization, raw: Json | None) -> Target | None:
        wanted = resource.spec.target
        return kind_of(wanted.ref).parse(raw, variable=wanted.injection.name) if raw else None

    async def _jobs(self, resource: ModelOptimization) -> Mapping[str, Job]:
        for job in self._cache.jobs_of(resource).values():
            if job.finished and self._heard_out.get(job.uid) != job and not self._has_spoken(job):
                await self._hear_out(resource, job)
        return self._cache.observed_jobs(resource)

    def _has_spoken(self, job: JobFacts) -> bool:
        return speaking_pod(job, self._cache.pods_of(job)) is not None

    async def _hear_out(self, resource: ModelOptimization, job: JobFacts) -> None:
        """Read the pods of a finished Job live: its own events may be ahead of theirs. Once is enough."""
        selector = f"{_JOB_UID}={job.uid}"
        async for page in self._client.pages(PODS, resource.metadata.namespace, selector=selector):
            for pod in page["items"]:
                self._cache.put(PODS, pod)
        self._heard_out[job.uid] = job

    async def _serving_pods(self, resource: ModelOptimization, raw: Json | None, target: Target | None) -> Pods:
        """Read the target's pods live while a rollout is under way."""
        wanted = resource.spec.target
        container = self._container(resource, target)
        if resource.status.rollout is None or raw is None or container is None:
            return Pods()
        kind, port = kind_of(wanted.ref), wanted.inference.port if wanted.inference else 0
        found: list[Json] = []
        async for page in self._client.pages(PODS, resource.metadata.namespace, selector=kind.pod_selector(raw)):
            found += page["items"]
        return kind.pods(raw, found, container=container, variable=wanted.injection.name, port=port)

    @staticmethod
    def _container(resource: ModelOptimization, target: Target | None) -> str | None:
        names = [container.name for container in target.containers] if target else []
        wanted = resource.spec.target.container
        found = [name for name in names if wanted in {None, name}]
        return found[0] if len(found) == 1 else None

    def forget(self, key: str) -> None:
        """Drop what is remembered of a resource that is gone, and of Jobs that are."""
        self._scraper.forget(key)
        alive = {job.uid for job in self._cache.jobs.values()}
        self._heard_out = {uid: job for uid, job in self._heard_out.items() if uid in alive}
