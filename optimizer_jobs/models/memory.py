"""How much memory a child process may take, and a limit on it, so that a hostile file cannot exhaust the whole Job."""

import os
import resource
from contextlib import suppress
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")
_SHARE = 0.9
_LEAST = 512 << 20


def memory_left() -> int:
    """Return the bytes that a child process may take: nine tenths of the container's free memory, at least 512 MiB."""
    free = _available()
    limit, used = _number("memory.max"), _number("memory.current")
    if limit is not None and used is not None:
        free = min(free, limit - used + _reclaimable())
    return max(_LEAST, int(_SHARE * free))


def bound_memory(size: int) -> None:
    """Limit this process to `size` bytes of private memory from now on; more raises MemoryError."""
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def _available() -> int:
    """Return the bytes that the machine can give: those that are free, and file cache that it drops when asked."""
    with suppress(OSError, StopIteration, ValueError):
        lines = MEMINFO.read_text(encoding="ascii").splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1])
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _number(name: str) -> int | None:
    """Return a number from the container's control group, or None when it has no such limit or file."""
    try:
        text = (CGROUP / name).read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _reclaimable() -> int:
    """Return the bytes of file cache that the kernel drops as soon as the container needs the memory."""
    try:
        lines = (CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    counters = dict(line.split(maxsplit=1) for line in lines)
    return int(counters.get("inactive_file", 0))
