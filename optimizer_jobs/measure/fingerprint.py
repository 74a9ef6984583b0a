"""The hardware and runtime that a measurement belongs to.

Numbers with different fingerprints must never be compared. A fingerprint must not identify a single machine: it has no
host name and no serial number.
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
"""Instruction sets that decide the speed of int8 and float kernels, the best first; then those for 16-bit floats."""
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Fingerprint:
    """Hardware and runtime of a measurement."""

    architecture: str
    cpu: str
    """The processor's model name from /proc/cpuinfo."""
    features: tuple[str, ...]
    """Instruction sets out of ISA, in its order."""
    runtimes: tuple[tuple[str, str], ...]
    """Library and version, for each library of RUNTIMES that is installed."""
    cpu_limit: float | None
    """Cores that the container may use; None without a limit."""
    memory_limit: int | None
    """Bytes that the container may use; None without a limit."""
    threads: int
    """CPUs that this process may run on; fewer while it is confined."""
    gpu: str | None = None
    """Model of the NVIDIA GPU; None without a GPU."""
    profile: str | None = None
    """Kind of machine that the measurement was confined to, if it was."""

    @cached_property
    def short(self) -> str:
        """The fingerprint in one word, such as amd64-avx512vnni-1a2b3c4d."""
        best = (self.features[0] if self.features else "generic").replace("_", "")
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return f"{self.architecture}-{best}-{digest[:8]}"


def fingerprint(*, profile: str | None = None) -> Fingerprint:
    """Return the fingerprint of this machine and container, with the CPUs that this process may run on now."""
    facts = _cpu_facts()
    flags = set(facts.get("flags", facts.get("Features", "")).split())
    machine = platform.machine()
    return Fingerprint(
        architecture=_ARCHITECTURES.get(machine, machine),
        cpu=facts.get("model name", facts.get("CPU part", "unknown")),
        features=tuple(name for name in ISA if name in flags),
        runtimes=tuple((name, installed) for name in RUNTIMES if (installed := _version(name))),
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
    """Return the model of the first GPU from the driver's information, and nothing that identifies the card."""
    information = next((_read(path) for path in sorted(GPUS.glob("*/information"))), "")
    models = [line.partition(":")[2].strip() for line in information.splitlines() if line.startswith("Model:")]
    return models[0] if models else None


def _cpu_facts() -> dict[str, str]:
    """Return what /proc/cpuinfo says of the first processor, by field."""
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
