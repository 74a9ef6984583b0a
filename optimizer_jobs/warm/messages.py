"""What a Job and a check host say to each other, by HTTP: one POST of the request, and one answer.

Needs the standard library alone, because importing more would cost the Job what asking saves.
"""

import hashlib
import os
import sys
from pathlib import Path

from retune import __version__
from retune.contract.paths import (
    CREDENTIALS_VARIABLE,
    PRIVATE_ADDRESSES_VARIABLE,
    PROXIES_VARIABLE,
    QUOTA_VARIABLE,
    SCRATCH_VARIABLE,
)

CHECK_PATH, HEALTH_PATH = "/check", "/healthz"
RELEASE_HEADER, SETTINGS_HEADER = "Retune-Release", "Retune-Settings"
REQUEST_BYTES = 224 << 10
"""Most bytes of a request, as much as the annotation of a pod holds."""
ANSWER_BYTES = 128 << 10
"""Most bytes of an answer: a result, and what the check said meanwhile."""
LOG_BYTES = 16 << 10
"""Most bytes of what a check said that are kept."""
WAIT_SECONDS = 60.0
"""How long a check may wait for its turn."""
RUN_SECONDS = 300.0
"""How long a check may run."""

ALWAYS_ALIKE = (
    QUOTA_VARIABLE,
    SCRATCH_VARIABLE,
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
"""Environment variables that a result may depend on, and that must be those of the Job."""
ALIKE_FOR_SERVERS = (PRIVATE_ADDRESSES_VARIABLE, PROXIES_VARIABLE, CREDENTIALS_VARIABLE)
"""The same for checks that use servers, such as a store in a bucket."""

_CHECKING = ("optimizer_jobs", "retune/api", "retune/contract")
_APART = ("agent", "machinery", "nets", "preflight", "serving", "techniques")
"""Packages of the Jobs that no check uses."""


def settings() -> dict[str, str]:
    """Return the environment variables that both sides must have alike."""
    return {name: os.environ.get(name, "") for name in (*ALWAYS_ALIKE, *ALIKE_FOR_SERVERS)}


def release() -> str:
    """Return what must be the same in both places: the release, Python's, and a digest of the code that checks."""
    digest = hashlib.sha256()
    for path in sorted(_sources()):
        digest.update(path.read_bytes())
    return f"{__version__}+{digest.hexdigest()[:16]}.py{sys.version_info.major}.{sys.version_info.minor}"


def _sources() -> list[Path]:
    found: list[Path] = []
    for package in _CHECKING:
        top = package.partition("/")[0]
        folder = Path(str(sys.modules[top].__file__)).parent / package.partition("/")[2]
        for parent, folders, names in os.walk(folder):
            folders[:] = [name for name in folders if name not in _APART]
            found += [Path(parent, name) for name in names if name.endswith(".py")]
    return found
