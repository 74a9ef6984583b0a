"""Quickstarts as processes of their own, in environments of their own that `make test-neighbours-servers` installs."""

import http.client
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.localcluster.controlplane import free_ports
from tools.localcluster.settings import REPOSITORY

START_SECONDS = 120.0
END_SECONDS = 30.0
CALL_SECONDS = 30.0
PROBE_SECONDS = 2.0
_PAUSE = 0.1
_LAST_WORDS = 4000
INSTALLED = "RETUNE_SERVERS"
"""Environment variable with the folder of the environments, one a server."""


@dataclass(frozen=True)
class Quickstart:
    """How a quickstart is started, and where it says that it is ready."""

    name: str
    """Name of its folder, and of its environment."""
    command: str
    """As its README has it; `{ports[0]}` is where it answers, further ports are for what it needs besides."""
    model: str = "lookup"
    """What it calls the model."""
    ready: str = ""
    """Where it says that it is ready, where that is not the model's own page."""
    unreadable: int = 400
    """Status with which it refuses a body that is no JSON object."""
    ends: bool = True
    """Whether it ends where it cannot prove its bundle, and does not only stay unready."""
    ports: int = 1
    variables: tuple[tuple[str, str], ...] = ()
    """Environment variables that it is started with; `{ports[1]}` as in the command."""

    @property
    def readiness(self) -> str:
        """The path that a kubelet asks."""
        return self.ready or f"/v2/models/{self.model}/ready"

    def settings(self, ports: list[int]) -> dict[str, str]:
        """Return the variables with their ports."""
        return {name: value.format(ports=ports) for name, value in self.variables}

    def words(self, ports: list[int]) -> list[str]:
        """Return the command with the program of its environment."""
        program, *arguments = self.command.format(ports=ports).split()
        return [str(environment_of(self.name) / "bin" / program), *arguments]


def environment_of(name: str) -> Path:
    """Return the folder of a server's environment; raises KeyError without `make test-neighbours-servers`."""
    return Path(os.environ[INSTALLED]) / name


@dataclass(frozen=True)
class Running:
    """A server that was started."""

    process: "subprocess.Popen[bytes]"
    quickstart: Quickstart
    port: int
    log: Path

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, body: bytes | None = None, *, seconds: float = CALL_SECONDS) -> tuple[int, Any] | None:
        """Return status and JSON (or text) of an answer; None where nobody answers in time."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        try:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            connection.request("GET" if body is None else "POST", path, body=body, headers=headers)
            answer = connection.getresponse()
            return answer.status, _content(answer.read())
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()

    def infer(self, body: object, *, seconds: float = CALL_SECONDS) -> tuple[int, Any] | None:
        """Ask for one inference, with JSON or with bytes as they are; None where nobody answers in time."""
        written = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask(f"/v2/models/{self.quickstart.model}/infer", written, seconds=seconds)

    def status(self, body: object) -> int:
        """Return the status of the answer to one request; 0 where nobody answers."""
        return (self.infer(body) or (0, None))[0]

    def is_ready(self) -> bool:
        """Return whether the server says so, as soon as a kubelet wants it."""
        answer = self.ask(self.quickstart.readiness, seconds=PROBE_SECONDS)
        return answer is not None and answer[0] == http.client.OK

    def said(self) -> str:
        """Return the end of its log."""
        return self.log.read_text(errors="replace")[-_LAST_WORDS:]

    def until(self, condition: Callable[[], bool], *, what: str, seconds: float = START_SECONDS) -> None:
        """Wait for a condition; fails with the server's last words."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"no {what} after {seconds:g} s: {self.said()}"
            time.sleep(_PAUSE)


@contextmanager
def scratch() -> Iterator[str]:
    """A folder for temporary files with a short name, because sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="served-", ignore_cleanup_errors=True) as folder:
        yield folder


@contextmanager
def running(quickstart: Quickstart, folder: Path, variables: Mapping[str, str]) -> Iterator[Running]:
    """Start a quickstart in a copy of its folder, and end it as a kubelet does."""
    shutil.copytree(REPOSITORY / "examples" / "servers" / quickstart.name, folder, dirs_exist_ok=True)
    ports, log = free_ports(quickstart.ports), folder / "log"
    with scratch() as temporary, log.open("wb") as output:
        process = subprocess.Popen(
            quickstart.words(ports),
            cwd=folder,
            env=_environment(folder, temporary, ports[0]) | quickstart.settings(ports) | dict(variables),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            yield Running(process, quickstart, ports[0], log)
        finally:
            _end(process)


def _environment(folder: Path, temporary: str, port: int) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "MODEL_URI"}}
    places = {"HOME": str(folder), "TMPDIR": temporary, "RAY_TMPDIR": temporary}
    return inherited | places | {"MODEL_NAME": "lookup", "PORT": str(port)}


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a server as a kubelet does, and whatever is left of its session by force."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _content(payload: bytes) -> Any:
    try:
        return json.loads(payload)
    except ValueError:
        return payload.decode(errors="replace")
