"""Measure on as much machine as the model will serve on.

A measuring process is confined to so many CPUs as the server has; its memory is not limited, because what a model needs
is measured and then compared with the limit. What kind of machine it is also says which combinations come first.
"""

import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from optimizer_jobs.measure.fingerprint import memory_limit
from optimizer_jobs.models.runtime import unavailable
from retune.api.quantities import memory_bytes
from retune.api.search import EngineName, Serving

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
    """What of a machine a model may use."""

    profile: Profile
    cores: int
    """CPUs that measurements may run on."""
    memory: int | None
    """Bytes that a process with the model must get along with; None without a limit."""


def confinement(serving: Serving, *, threads: int) -> Confinement:
    """Return what the spec asks for, where it says nothing what the serving container has: `threads` CPUs.

    Without a memory in the spec, this Job's own memory limit only says that a machine is small.
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
def confined(cores: int) -> Iterator[int]:
    """Let all threads of this process and its later children run on at most `cores` CPUs; yields how many there are.

    Of the CPUs allowed, the idlest are taken, so that neighbours who measure too are not met on the first ones.
    """
    allowed = os.sched_getaffinity(0)
    chosen = set(_idlest(allowed)[:cores]) if cores < len(allowed) else allowed
    _move(chosen)
    try:
        yield len(chosen)
    finally:
        _move(allowed)


def _move(cpus: set[int]) -> None:
    """Set the CPUs of every thread there is; threads started later have those of the thread that starts them."""
    for task in TASKS.iterdir():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(task.name), cpus)


def _idlest(cpus: set[int]) -> list[int]:
    """Return CPUs by how little they work right now; equal ones in random order."""
    before = _busy()
    time.sleep(_LOOK_SECONDS)
    after = _busy()
    return sorted(cpus, key=lambda cpu: (after.get(cpu, 0) - before.get(cpu, 0), random.random()))


def _busy() -> dict[int, int]:
    """Return ticks that each CPU has worked."""
    fields = [line.split() for line in STAT.read_text().splitlines() if line[:3] == "cpu" and line[3:4].isdigit()]
    return {int(name[3:]): sum(map(int, ticks[:3])) for name, *ticks in fields}
