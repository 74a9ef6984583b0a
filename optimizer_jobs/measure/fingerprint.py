"""What hardware and runtime a number belongs to.

Numbers with different fingerprints must never be compared. Nothing here identifies a machine: no host name, no serial.
"""

import hashlib
import json
import os
import platform
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
CGROUP = Path("/sys/fs/cgroup")
RUNTIMES = ("onnxruntime", "numpy", "onnx", "openvino")
ISA = ("amx_int8", "avx512_vnni", "avx_vnni", "avx512f", "avx2", "i8mm", "asimddp", "sve", "asimd")
"""Instruction sets that decide how fast int8 and float kernels run, the best first."""
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Fingerprint:
    """Hardware and runtime of a measurement."""

    architecture: str
    cpu: str
    """Model name as the kernel gives it."""
    features: tuple[str, ...]
    """Instruction sets that matter here, the best first."""
    runtimes: tuple[tuple[str, str], ...]
    """Library and version."""
    cpu_limit: float | None
    """Cores that the container may use; None without a limit."""
    memory_limit: int | None
    """Bytes that the container may use; None without a limit."""
    threads: int
    """CPUs that this process may run on."""

    @cached_property
    def short(self) -> str:
        """The fingerprint in one word, such as amd64-avx512vnni-1a2b3c4d."""
        best = (self.features[0] if self.features else "generic").replace("_", "")
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return f"{self.architecture}-{best}-{digest[:8]}"


def fingerprint() -> Fingerprint:
    """Return the fingerprint of this process's machine and container."""
    facts = _cpu_facts()
    flags = set(facts.get("flags", facts.get("Features", "")).split())
    machine = platform.machine()
    return Fingerprint(
        architecture=_ARCHITECTURES.get(machine, machine),
        cpu=facts.get("model name", facts.get("CPU part", "unknown")),
        features=tuple(name for name in ISA if name in flags),
        runtimes=tuple((name, found) for name in RUNTIMES if (found := _version(name))),
        cpu_limit=cpu_limit(),
        memory_limit=_memory_limit(),
        threads=len(os.sched_getaffinity(0)),
    )


def cpu_limit() -> float | None:
    """Return the container's CPU limit in cores, or None when it has none."""
    quota, _, period = _read(CGROUP / "cpu.max").partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _memory_limit() -> int | None:
    limit = _read(CGROUP / "memory.max")
    return int(limit) if limit.isdigit() else None


def _cpu_facts() -> dict[str, str]:
    """Return the first processor's lines of /proc/cpuinfo."""
    first = _read(CPU_INFO).split("\n\n", maxsplit=1)[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
