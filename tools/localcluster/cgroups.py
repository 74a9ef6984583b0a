"""The cluster's own control group: which processes are ours, even when no record of them is left.

Every process of the cluster, pods included, is born below one group named after the state folder. Whatever is found
there may be ended; nothing else may.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.localcluster.settings import Settings
from tools.localcluster.shell import ClusterError

MOUNTS = Path("/proc/self/mountinfo")


@dataclass(frozen=True)
class Hierarchy:
    """One mounted control group hierarchy. controllers: its v1 controllers, empty for v2."""

    path: Path
    controllers: frozenset[str]


def hierarchies() -> list[Hierarchy]:
    """All mounted hierarchies, v1 and v2."""
    found = []
    for line in MOUNTS.read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            controllers = frozenset(options.split(",")) - {"rw", "ro"} if kind == "cgroup" else frozenset()
            found.append(Hierarchy(Path(fields.split(" ")[4]), controllers))
    return found


def marker() -> Path:
    """The hierarchy in which daemons are marked as ours: pids where it is mounted as v1, else v2."""
    mounted = hierarchies()
    for one in mounted:
        if "pids" in one.controllers:
            return one.path
    for one in mounted:
        if not one.controllers:
            return one.path
    raise ClusterError("no control groups are mounted below /sys/fs/cgroup; containers cannot run on this machine")


def create(settings: Settings) -> None:
    """Make the cluster's group in every hierarchy; the kubelet wants to find it there."""
    for one in hierarchies():
        (one.path / settings.ident).mkdir(exist_ok=True)


def leaf(settings: Settings, name: str) -> Path:
    """The group of one daemon, made if missing."""
    place = marker() / settings.ident / "daemons" / name
    place.mkdir(parents=True, exist_ok=True)
    return place


def members(place: Path) -> set[int]:
    """Ids of all processes in a group and the groups below it."""
    found: set[int] = set()
    for folder, _, _ in os.walk(place):
        try:
            found.update(int(word) for word in (Path(folder) / "cgroup.procs").read_text().split())
        except OSError:
            continue
    return found


def all_members(settings: Settings) -> set[int]:
    """Ids of all processes of the cluster, in any hierarchy."""
    return set().union(*(members(one.path / settings.ident) for one in hierarchies()))


def command_of(pid: int) -> str:
    """A process's short command name; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def kill_strays(settings: Settings, name: str) -> None:
    """End what is left in one daemon's group, but never the shims, which keep the pods alive."""
    for pid in members(leaf(settings, name)):
        if not command_of(pid).startswith("containerd-shim"):
            kill(pid)


def kill(pid: int) -> None:
    """SIGKILL, if it is still there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def remove(settings: Settings, *, seconds: float = 20) -> None:
    """End every process of the cluster and remove its groups from every hierarchy."""
    end = time.monotonic() + seconds
    while pids := all_members(settings):
        if time.monotonic() > end:
            raise ClusterError(f"processes {sorted(pids)} do not end, not even by SIGKILL; look at them with ps")
        for pid in pids:
            kill(pid)
        time.sleep(0.05)
    for folder in existing(settings):
        remove_tree(folder)


def existing(settings: Settings) -> Iterator[Path]:
    """The cluster's group in each hierarchy that has it."""
    return (one.path / settings.ident for one in hierarchies() if (one.path / settings.ident).exists())


def remove_tree(folder: Path, *, tries: int = 50) -> None:
    """Remove a group and those below it, the lowest first; one whose last process just ended is busy for a while."""
    for place, _, _ in os.walk(folder, topdown=False):
        for attempt in range(tries):
            try:
                Path(place).rmdir()
                break
            except FileNotFoundError:
                break
            except OSError:
                if attempt == tries - 1:
                    raise
                time.sleep(0.02)
