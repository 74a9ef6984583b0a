"""Measure on as many CPUs as the model will serve on.

The measuring process is confined to the number of CPUs that the server has. Its memory is not limited: a model's memory
is measured and then compared with the server's limit. The kind of machine also decides what a search tries first.
"""

import os
import random
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from optimizer_jobs.measure.fingerprint import memory_limit
from optimizer_jobs.models.runtime import load, unavailable
from retune.api.quantities import memory_bytes
from retune.api.search import Serving
from retune.api.servers import EngineName

TASKS = Path("/proc/self/task")
STAT = Path("/proc/stat")
EDGE_CORES = 2
EDGE_MEMORY = 1 << 30
_LOOK_SECONDS = 0.05


class Profile(StrEnum):
    """Kind of machine that a model serves on."""

    EDGE_CPU = "EdgeCPU"
    SERVER_CPU = "ServerCPU"
    GPU = "GPU"


@dataclass(frozen=True)
class Confinement:
    """The part of a machine that a model may use."""

    profile: Profile
    cores: int
    """CPUs that measurements may run on."""
    memory: int | None
    """Most bytes for a process with the model; None without a limit."""


def confinement(serving: Serving, *, threads: int) -> Confinement:
    """Return the confinement that the spec asks for.

    Args:
        serving: What the spec says about the server. Without a memory in it, this Job's own memory limit only helps to
            recognize a small machine; it does not become the model's limit.
        threads: CPUs of the serving container, used when the spec does not say.
    """
    cores = serving.cores or threads
    memory = int(memory_bytes(serving.memory)) if serving.memory else None
    if serving.profile != "Auto":
        return Confinement(Profile(serving.profile), cores, memory)
    return Confinement(_profile(serving, cores, memory or memory_limit()), cores, memory)


def _profile(serving: Serving, cores: int, memory: int | None) -> Profile:
    if EngineName.TENSORRT in serving.engines and unavailable("tensorrt") is None:
        return Profile.GPU
    small = cores <= EDGE_CORES or (memory is not None and memory < EDGE_MEMORY)
    return Profile.EDGE_CPU if small else Profile.SERVER_CPU


@contextmanager
def confined(cores: int, *, engines: Collection[str] = ()) -> Iterator[int]:
    """Let all threads of this process and its later children run on at most `cores` CPUs; yield their number.

    The CPUs that are least busy are chosen, so that several measuring processes do not all take the first ones.

    Args:
        cores: Most CPUs.
        engines: Those that may be used for the first time meanwhile: they are loaded before.
    """
    for engine in engines:
        load(engine)
    allowed = os.sched_getaffinity(0)
    chosen = set(_idlest(allowed)[:cores]) if cores < len(allowed) else allowed
    _move(chosen)
    try:
        yield len(chosen)
    finally:
        _move(allowed)


def _move(cpus: set[int]) -> None:
    """Set the CPUs of every thread of this process; later threads inherit them from the thread that starts them."""
    for task in TASKS.iterdir():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), cpus)


def _idlest(cpus: set[int]) -> list[int]:
    """Return CPUs sorted by how busy they are right now, the idlest first; equally busy CPUs in random order."""
    before = _busy()
    time.sleep(_LOOK_SECONDS)
    after = _busy()
    return sorted(cpus, key=lambda cpu: (after.get(cpu, 0) - before.get(cpu, 0), random.random()))


def _busy() -> dict[int, int]:
    """Return the clock ticks that each CPU has worked since the machine started."""
    fields = [line.split() for line in STAT.read_text().splitlines() if line[:3] == "cpu" and line[3:4].isdigit()]
    return {int(name[3:]): sum(map(int, ticks[:3])) for name, *ticks in fields}
