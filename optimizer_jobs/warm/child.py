"""The child that does one check: forked from a host that has imported everything, with limits of its own.

It ends by `os._exit` whatever happens, writes its answer to a pipe, and shares nothing with any other child.
"""

import ctypes
import json
import os
import resource
import signal
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from optimizer_jobs.run import execute
from optimizer_jobs.warm import messages
from optimizer_jobs.warm.admission import Admission, RefusedError
from retune.contract.exits import Exit
from retune.contract.requests import parse_request
from retune.contract.results import Failure, encode_result

_FILE_BYTES = 4 << 30
_OPEN_FILES = 1024
_PARENT_DIES = 1
"""PR_SET_PDEATHSIG of prctl."""
_C = ctypes.CDLL(None, use_errno=True)
_ANSWER = 3
"""Descriptor of the pipe in the child, which has no other beside the standard ones."""
LOG = "log"
"""File in a child's folder with what it said."""


@dataclass(frozen=True)
class Limits:
    """What one child may use."""

    memory_bytes: int = 1 << 30
    """Memory beside what it shares with the host."""
    cpu_seconds: int = 240
    wall_seconds: float = messages.RUN_SECONDS


@dataclass(frozen=True)
class Asked:
    """A request as it came."""

    payload: bytes
    settings: str
    """Environment variables of the Job, as JSON."""


@dataclass(frozen=True)
class Child:
    """A check that runs."""

    pid: int
    answer: int
    """Descriptor that its answer is read from, to the end."""


def start(asked: Asked, admission: Admission, limits: Limits, *, folder: Path) -> Child:
    """Fork a child that does a check.

    Args:
        asked: The request.
        admission: What may be asked.
        limits: What the child may use.
        folder: Empty folder for its files.

    Raises:
        OSError: There is no room for another process.
    """
    reading, writing = os.pipe()
    sys.stdout.flush()
    host = os.getpid()
    try:
        pid = os.fork()
    except OSError:
        os.close(reading)
        os.close(writing)
        raise
    if pid == 0:
        _live(asked, admission, limits, folder, writing, host=host)
    os.close(writing)
    os.set_blocking(reading, False)
    return Child(pid, reading)


def _live(asked: Asked, admission: Admission, limits: Limits, folder: Path, writing: int, *, host: int) -> NoReturn:
    """Do the check and end; nothing of the host's own code is ever reached again."""
    code = 1
    with suppress(BaseException):
        _part(folder, writing, host=host)
        _limit(limits)
        answer = json.dumps(_answer(asked, admission, folder)).encode()
        sys.stdout.flush()
        view = memoryview(answer)
        while view:
            view = view[os.write(_ANSWER, view) :]
        code = 0
    os._exit(code)


def _part(folder: Path, writing: int, *, host: int) -> None:
    """Leave the host: its signals, its connections and its output. Where the host dies, so does the child."""
    os.setsid()
    _C.prctl(_PARENT_DIES, signal.SIGKILL)
    if os.getppid() != host:
        raise SystemExit
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    log = os.open(folder / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for standard in (1, 2):
        os.dup2(log, standard)
    os.dup2(writing, _ANSWER, inheritable=False)
    os.closerange(_ANSWER + 1, os.sysconf("SC_OPEN_MAX"))
    tempfile.tempdir = str(folder)
    os.environ["TMPDIR"] = str(folder)


def _limit(limits: Limits) -> None:
    with suppress(OSError):  # where memory runs out after all, it is this child that goes and not the host
        Path("/proc/self/oom_score_adj").write_text("1000")
    data = _data_bytes() + limits.memory_bytes
    for kind, most in (
        (resource.RLIMIT_DATA, data),
        (resource.RLIMIT_CPU, limits.cpu_seconds),
        (resource.RLIMIT_FSIZE, _FILE_BYTES),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (most, most))


def _data_bytes() -> int:
    """Return the bytes that count against RLIMIT_DATA already, which the child has from the host."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) << 10
    return 0


def _answer(asked: Asked, admission: Admission, folder: Path) -> dict[str, Any]:
    try:
        admission.require(parse_request(asked.payload), asked.settings)
    except ValidationError:
        return {"refused": "it does not understand the request"}
    except RefusedError as error:
        return {"refused": str(error)}
    request = folder / "request.json"
    request.write_bytes(asked.payload)
    result, code = execute(request)
    if code != Exit.DONE or isinstance(result, Failure):
        why = result.sentence if isinstance(result, Failure) else f"exit code {code}"
        return {"refused": f"the check failed there: {why}"}
    return {"result": encode_result(result).decode()}
