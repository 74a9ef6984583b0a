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
GPUS = Path("/proc/driver/nvidia/gpus")
RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "numpy", "onnx", "openvino")
ISA = (
    "amx_int8",
    "avx512_vnni",
    "avx_vnni",
    "avx512f",
    "avx2",
    "i8mm",
    "asimddp",
    "sve",
    "asimd",
    "amx_bf16",
    "amx_fp16",
    "avx512_bf16",
    "avx512_fp16",
    "asimdhp",
    "bf16",
)
"""Instruction sets that decide how fast int8 and float kernels run, the best first; then those of 16-bit floats."""
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
    """CPUs that this process may run on; fewer while it is confined."""
    gpu: str | None = None
    """Model of the NVIDIA GPU; None without one."""
    profile: str | None = None
    """Kind of machine that was measured for, where measuring was confined to it."""

    @cached_property
    def short(self) -> str:
        """The fingerprint in one word, such as amd64-avx512vnni-1a2b3c4d."""
        best = (self.features[0] if self.features else "generic").replace("_", "")
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return f"{self.architecture}-{best}-{digest[:8]}"


def fingerprint(*, profile: str | None = None) -> Fingerprint:
    """Return the fingerprint of this process's machine and container, while it is confined that of the confined one."""
    facts = _cpu_facts()
    flags = set(facts.get("flags", facts.get("Features", "")).split())
    machine = platform.machine()
    return Fingerprint(
        architecture=_ARCHITECTURES.get(machine, machine),
        cpu=facts.get("model name", facts.get("CPU part", "unknown")),
        features=tuple(name for name in ISA if name in flags),
        runtimes=tuple((name, found) for name in RUNTIMES if (found := _version(name))),
        cpu_limit=cpu_limit(),
        memory_limit=memory_limit(),
        threads=len(os.sched_getaffinity(0)),
        gpu=_gpu(),
        profile=profile,
    )


def cpu_limit() -> float | None:
    """Return the container's CPU limit in cores, or None when it has none."""
    quota, _, period = _read(CGROUP / "cpu.max").partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def memory_limit() -> int | None:
    """Return the container's memory limit in bytes, or None when it has none."""
    limit = _read(CGROUP / "memory.max")
    return int(limit) if limit.isdigit() else None


def _gpu() -> str | None:
    """Return the model of the first GPU as the driver gives it; nothing that is one card's own."""
    found = next((_read(path) for path in sorted(GPUS.glob("*/information"))), "")
    models = [line.partition(":")[2].strip() for line in found.splitlines() if line.startswith("Model:")]
    return models[0] if models else None


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
