"""How much memory a process may still take, and a bound on it, so that a hostile file does not take its Job along."""

import os
import resource
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
_SHARE = 0.9
_LEAST = 512 << 20


def memory_left() -> int:
    """Return the bytes that are left to a child of this process: nine tenths of what the container does not use yet."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit, used = _number("memory.max"), _number("memory.current")
    if limit is not None and used is not None:
        free = min(free, limit - used + _reclaimable())
    return max(_LEAST, int(_SHARE * free))


def bound_memory(size: int) -> None:
    """Let this process have at most `size` bytes of memory of its own from now on; more raises MemoryError."""
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))


def _number(name: str) -> int | None:
    """Return a figure of this container's control group, or None where it has none."""
    try:
        text = (CGROUP / name).read_text(encoding="ascii").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _reclaimable() -> int:
    """Return the bytes of files that the kernel keeps in the container's memory only while nobody wants it."""
    try:
        lines = (CGROUP / "memory.stat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    found = dict(line.split(maxsplit=1) for line in lines)
    return int(found.get("inactive_file", 0))
