"""What the cluster looks like, in memory: fed by the watches, by the resync, and by the answers to the own writes.

The newest resourceVersion wins, whoever brings it, so that a slow watch never takes back what we have just written.
Nothing here talks to the API server.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from retune.api.base import Json
from retune.api.objects import ModelOptimization, OptimizationRun
from retune.cluster import parse
from retune.cluster.kinds import (
    DEPLOYMENTS,
    JOBS,
    MODEL_OPTIMIZATIONS,
    OPTIMIZATION_RUNS,
    PODS,
    TARGET_KINDS,
    Kind,
    target_kind,
)
from retune.cluster.parse import JobFacts, PodFacts, RunFacts
from retune.cluster.unreadable import Unreadable, unreadable
from retune.targets import BESIDE, DRIVER, TARGETS, TargetKind, kind_of
from retune.workloads.labels import RESOURCE

Name = tuple[str, str]
"""Namespace and name."""
T = TypeVar("T")

_TOMBSTONES = 20_000
"""Deleted UIDs that are remembered, so that a late answer does not bring an object back."""


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """One object as it was last seen."""

    uid: str
    version: int
    value: T


class Shelf(Generic[T]):
    """All objects of one kind, with an index by what they belong to: an owner, a target."""

    def __init__(
        self, parser: Callable[[Json, T | None], T], indexed_by: Callable[[Name, T], Iterable[object]]
    ) -> None:
        self._parser = parser
        self._indexed_by = indexed_by
        self._entries: dict[Name, Entry[T]] = {}
        self._index: defaultdict[object, set[Name]] = defaultdict(set)
        self._gone: dict[str, None] = {}
        self.newest = 0
        """Highest resourceVersion seen."""

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Name]:
        return iter(list(self._entries))

    def get(self, name: Name) -> T | None:
        """Return an object, or None."""
        entry = self._entries.get(name)
        return entry.value if entry else None

    def values(self) -> Iterator[T]:
        """Yield every object."""
        return (entry.value for entry in list(self._entries.values()))

    def having(self, related: object) -> list[Name]:
        """Return the names of the objects indexed under a related thing, in order."""
        return sorted(self._index.get(related, ()))

    def put(self, raw: Json) -> bool:
        """Take in an object unless a newer one is known; returns whether anything that matters changed."""
        name, uid, version = _name(raw), raw["metadata"]["uid"], int(raw["metadata"]["resourceVersion"])
        self.newest = max(self.newest, version)
        known = self._entries.get(name)
        if uid in self._gone or (known and known.version >= version):
            return False
        same = known is not None and known.uid == uid and known.version > 0  # after a rewind nothing known counts
        value = self._parser(raw, known.value if known and same else None)
        self._forget(name)
        self._entries[name] = Entry(uid, version, value)
        for related in self._indexed_by(name, value):
            self._index[related].add(name)
        return known is None or known.uid != uid or known.value != value

    def remove(self, name: Name, *, uid: str | None = None) -> bool:
        """Drop an object; returns whether it was there.

        Args:
            name: Its namespace and name.
            uid: The only UID to drop; None drops whatever has the name.
        """
        known = self._entries.get(name)
        gone = uid or (known.uid if known else None)
        if gone:
            self._gone[gone] = None
            if len(self._gone) > _TOMBSTONES:
                del self._gone[next(iter(self._gone))]
        if known is None or known.uid != gone:
            return False
        self._forget(name)
        return True

    def missing(self, names: set[Name], *, namespace: str | None, version: int) -> list[Name]:
        """Return what a complete list should have held and did not.

        Args:
            names: What the list holds.
            namespace: The namespace that was listed; None for all.
            version: The list's resourceVersion; what is newer was not to be in it.
        """
        return [
            name
            for name, entry in self._entries.items()
            if name not in names and entry.version <= version and namespace in {None, name[0]}
        ]

    def rewind(self, *, namespace: str | None) -> None:
        """Forget versions: after a restored backup the server counts from an older one, so newer is not larger."""
        self.newest = 0
        self._gone.clear()
        for name, entry in self._entries.items():
            if namespace in {None, name[0]}:
                self._entries[name] = Entry(entry.uid, 0, entry.value)

    def drop(self, name: Name) -> None:
        """Forget what is known of an object that is still there."""
        self._forget(name)

    def _forget(self, name: Name) -> None:
        entry = self._entries.pop(name, None)
        if entry is None:
            return
        for related in self._indexed_by(name, entry.value):
            self._index[related].discard(name)
            if not self._index[related]:
                del self._index[related]


class Cache:
    """The shelves, and which ModelOptimizations a change on one of them concerns."""

    def __init__(self) -> None:
        self.resources: Shelf[ModelOptimization] = Shelf(
            parse.resource, lambda name, resource: _looks_at(name[0], resource)
        )
        self.runs: Shelf[RunFacts] = Shelf(lambda raw, _: parse.run(raw), lambda _, run: (run.owner,))
        self.jobs: Shelf[JobFacts] = Shelf(lambda raw, _: parse.job(raw), lambda _, job: (job.owner,))
        self.pods: Shelf[PodFacts] = Shelf(lambda raw, _: parse.pod(raw), lambda _, pod: (pod.owner,))
        self.targets = {kind: _shelf_of(target) for kind, target in _TARGETS.items()}
        self.unreadable: dict[str, Unreadable] = {}
        """ModelOptimizations that this release cannot read, by key."""
        self._shelves: dict[Kind, Shelf[Any]] = {
            MODEL_OPTIMIZATIONS: self.resources,
            OPTIMIZATION_RUNS: self.runs,
            JOBS: self.jobs,
            PODS: self.pods,
            **self.targets,
        }

    def put(self, kind: Kind, raw: Json) -> set[str]:
        """Take in an object; returns the keys of the ModelOptimizations it concerns, none when nothing changed."""
        changed = self._shelves[kind].put(raw)
        if kind is MODEL_OPTIMIZATIONS and self.resources.get(_name(raw)) is not None:
            changed = self.unreadable.pop(_key(_name(raw)), None) is not None or changed
        return self._concerned(kind, raw) if changed else set()

    def put_unreadable(self, raw: Json, faults: Iterable[str]) -> set[str]:
        """Take in a ModelOptimization that cannot be read: what was read of it before counts no more."""
        key, known = _key(_name(raw)), self.unreadable.get(_key(_name(raw)))
        seen = unreadable(raw, faults)
        if known is not None and known.version >= seen.version:
            return set()
        self.resources.drop(_name(raw))
        self.unreadable[key] = seen
        return {key}

    def remove(self, kind: Kind, raw: Json) -> set[str]:
        """Drop an object; returns the keys of the ModelOptimizations it concerns."""
        concerned = self._concerned(kind, raw) | self._rivals(kind, _name(raw))
        removed = self._shelves[kind].remove(_name(raw), uid=raw["metadata"]["uid"])
        if kind is MODEL_OPTIMIZATIONS:
            self.unreadable.pop(_key(_name(raw)), None)
        return concerned if removed else set()

    def forget(self, kind: Kind, namespace: str, name: str) -> None:
        """Drop an object that the server says is not there."""
        self._shelves[kind].remove((namespace, name))
        if kind is MODEL_OPTIMIZATIONS:
            self.unreadable.pop(_key((namespace, name)), None)

    def newest(self, kind: Kind) -> int:
        """Return the highest resourceVersion seen of a kind."""
        return self._shelves[kind].newest

    def rewind(self, kind: Kind, *, namespace: str | None) -> None:
        """Let what is listed next win, whatever its version."""
        self._shelves[kind].rewind(namespace=namespace)

    def prune(self, kind: Kind, names: set[Name], *, namespace: str | None, version: int) -> int:
        """Drop what a complete list no longer holds; returns how many objects that was.

        Args:
            kind: The kind that was listed.
            names: What the list holds.
            namespace: The namespace that was listed; None for all.
            version: The list's resourceVersion; what is newer was not to be in it.
        """
        shelf = self._shelves[kind]
        gone = shelf.missing(names, namespace=namespace, version=version)
        for name in gone:
            shelf.remove(name)
        return len(gone)

    def resource_keys(self) -> list[str]:
        """Return the keys of all ModelOptimizations."""
        return [_key(name) for name in self.resources]

    def resource(self, key: str) -> ModelOptimization | None:
        """Return a ModelOptimization by its key."""
        return self.resources.get(_split(key))

    def deployment(self, namespace: str, name: str) -> Json | None:
        """Return what is kept of a Deployment."""
        return self._workload(DEPLOYMENTS, (namespace, name))

    def target(self, resource: ModelOptimization) -> Json | None:
        """Return what is kept of a resource's target, of Deployments that say something of it, and of its driver."""
        ref, namespace = resource.spec.target.ref, resource.metadata.namespace
        raw = self._workload(target_kind(ref), (namespace, ref.name))
        if raw is None:
            return None
        names = kind_of(ref).beside(ref.name)
        beside = {name: kept for name in names if (kept := self.deployment(namespace, name)) is not None}
        return raw | ({BESIDE: beside} if beside else {}) | self._driver(target_kind(ref), namespace, ref.name)

    def _driver(self, kind: Kind, namespace: str, name: str) -> Json:
        """Return who takes the pods of a Deployment for its own."""
        if kind != DEPLOYMENTS:
            return {}
        drivers = [(kind.name, shelf.having((namespace, name))) for kind, shelf in self.targets.items()]
        return next(({DRIVER: f"{kind} {names[0][1]}"} for kind, names in drivers if names), {})

    def _workload(self, kind: Kind, name: Name) -> Json | None:
        kept = self.targets[kind].get(name)
        document: Json | None = json.loads(kept) if kept else None
        return document

    def runs_of(self, resource: ModelOptimization) -> dict[str, OptimizationRun]:
        """Return a resource's runs by name."""
        names = self.runs.having(resource.metadata.uid)
        return {name[1]: facts.run for name in names if (facts := self.runs.get(name))}

    def ended_before(self, resource: ModelOptimization) -> int:
        """Return the highest number of an ended run of a resource's name that nobody owns; 0 where there is none."""
        meta = resource.metadata
        unowned = (self.runs.get(name) for name in self.runs.having(None) if name[0] == meta.namespace)
        runs = [facts.run for facts in unowned if facts and facts.run.status.outcome]
        return max((run.spec.number for run in runs if run.metadata.labels.get(RESOURCE) == meta.name), default=0)

    def jobs_of(self, resource: ModelOptimization) -> dict[str, JobFacts]:
        """Return a resource's Jobs by name."""
        names = self.jobs.having(resource.metadata.uid)
        return {name[1]: job for name in names if (job := self.jobs.get(name))}

    def pods_of(self, job: JobFacts) -> list[PodFacts]:
        """Return a Job's pods."""
        return [pod for name in self.pods.having(job.uid) if (pod := self.pods.get(name))]

    def _concerned(self, kind: Kind, raw: Json) -> set[str]:
        namespace, name = _name(raw)
        if kind in self.targets:
            targeting = {_key(resource) for resource in self.resources.having((kind, namespace, name))}
            driven = _TARGETS[kind].drives(raw)
            targeting |= {_key(other) for other in self.resources.having((DEPLOYMENTS, namespace, driven))}
            owner = parse.resource_name(raw) if kind == DEPLOYMENTS else None
            return targeting | ({_key((namespace, owner))} if owner else set())
        if kind is not MODEL_OPTIMIZATIONS:
            resource_name = parse.resource_name(raw)
            return {_key((namespace, resource_name))} if resource_name else set()
        return {_key((namespace, name))}

    def _rivals(self, kind: Kind, name: Name) -> set[str]:
        """Return who else names the same target and may have waited for it."""
        known = self.resources.get(name) if kind is MODEL_OPTIMIZATIONS else None
        return {_key(rival) for rival in self.resources.having(_target(name[0], known))} if known else set()


def _target(namespace: str, resource: ModelOptimization) -> tuple[Kind, str, str]:
    ref = resource.spec.target.ref
    return target_kind(ref), namespace, ref.name


def _looks_at(namespace: str, resource: ModelOptimization) -> list[tuple[Kind, str, str]]:
    """Return which workloads concern a resource."""
    ref = resource.spec.target.ref
    beside = kind_of(ref).beside(ref.name)
    return [_target(namespace, resource), *((DEPLOYMENTS, namespace, name) for name in beside)]


_TARGETS: Mapping[Kind, TargetKind] = dict(zip(TARGET_KINDS, TARGETS.values(), strict=True))


def _shelf_of(target: TargetKind) -> Shelf[bytes]:
    """Return a shelf of workloads, which finds them by the Deployment that they drive."""

    def driven(name: Name, kept: bytes) -> tuple[Name, ...]:
        other = target.drives(json.loads(kept))
        return ((name[0], other),) if other else ()

    return Shelf(lambda raw, _: parse.trimmed_target(target, raw), driven)


def _name(raw: Json) -> Name:
    return raw["metadata"]["namespace"], raw["metadata"]["name"]


def _key(name: Name) -> str:
    return f"{name[0]}/{name[1]}"


def _split(key: str) -> Name:
    namespace, _, name = key.partition("/")
    return namespace, name


def names_of(items: Iterable[Json]) -> set[Name]:
    """Return the names of listed objects."""
    return {_name(item) for item in items}
