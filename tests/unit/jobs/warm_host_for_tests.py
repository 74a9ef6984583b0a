"""A real check host in a process of its own, some of whose checks go wrong in the middle, by the name of the resource.

`python -m tests.unit.jobs.warm_host_for_tests ARGUMENTS` is the host without what only Evidently's checks import.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from optimizer_jobs.data.volumes import CLAIM_ROOT_VARIABLE
from optimizer_jobs.run import execute
from optimizer_jobs.warm import __main__ as entry
from optimizer_jobs.warm import child
from retune.contract.results import JobResult

ROOT = Path(__file__).parents[3]


def _hang() -> None:
    Path(os.environ["RETUNE_STARTED"]).touch()
    signal.pause()


def _hang_deaf() -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    os.close(3)
    _hang()


def _bomb() -> None:
    blocks = []
    while True:
        blocks.append(bytearray(16 << 20))


def _crash() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def _babble() -> None:
    for _ in range(1 << 10):
        os.write(3, b"x" * 1024)


def _spin() -> None:
    while True:
        pass


WRONG: dict[str, Callable[[], None]] = {
    "hangs": _hang,
    "deaf": _hang_deaf,
    "bombs": _bomb,
    "crashes": _crash,
    "babbles": _babble,
    "spins": _spin,
}


def _execute(request: Path) -> tuple[JobResult, int]:
    for name, act in WRONG.items():
        if f'"ml/{name}"' in request.read_text():
            act()
    return execute(request)


@dataclass
class Running:
    """A host that runs."""

    process: subprocess.Popen[str]
    port: int
    log: Path
    started: Path
    """File that appears when a check hangs."""

    def children(self) -> list[int]:
        """Return the processes of checks."""
        pid = self.process.pid
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def host(folder: Path, *arguments: str, module: str = __name__, **environment: str) -> Iterator[Running]:
    """Run a host of namespace `ml` whose claims are folders of `folder`, until the block ends."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log, started = folder / "host.log", folder / "started"
    variables: dict[str, Any] = os.environ | {
        CLAIM_ROOT_VARIABLE: str(folder),
        "RETUNE_STARTED": str(started),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    command = [sys.executable, "-m", module, "--namespace", "ml", "--port", str(port), *arguments]
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=variables | environment, stdout=out, stderr=out, text=True)
    try:
        until(lambda: "ready on port" in log.read_text() or process.poll() is not None, seconds=120)
        assert process.poll() is None, log.read_text()
        yield Running(process, port, log, started)
    finally:
        process.kill()
        process.wait()


def until(true: Callable[[], object], *, seconds: float = 60) -> None:
    """Wait until something is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it has not come true"
        time.sleep(0.02)


if __name__ == "__main__":
    setattr(child, "execute", _execute)  # noqa: B010 - mypy holds that these names are not to be had there
    setattr(entry, "get_ready", lambda: import_module("optimizer_jobs.commands.check.command"))  # noqa: B010
    sys.exit(entry.main())
