"""A real PostgreSQL server in a temporary folder, run by a user without rights, for as long as a block lasts."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tools.localcluster.controlplane import free_ports
from tools.localcluster.shell import run, wait_for

_NOBODY = {"user": "nobody", "group": "nogroup", "extra_groups": []}
"""Who runs the server where this process is root, whom PostgreSQL refuses."""
_DEBIAN = Path("/usr/lib/postgresql")


def tools() -> Path | None:
    """Return the folder of PostgreSQL's programs; None where the machine has none."""
    found = shutil.which("initdb")
    folders = (
        [Path(found).resolve().parent]
        if found
        else sorted(_DEBIAN.glob("*/bin"), key=lambda path: int(path.parent.name))
    )
    return folders[-1] if folders else None


@contextmanager
def served() -> Iterator[str]:
    """Serve an empty database on this machine and yield its URL; raises FileNotFoundError where there is no server."""
    programs = tools()
    if programs is None:
        raise FileNotFoundError("there is no PostgreSQL: install Debian's package `postgresql`")
    as_whom: dict[str, Any] = _NOBODY if os.geteuid() == 0 else {}
    folder, (port,) = Path(tempfile.mkdtemp(prefix="retune-postgres-")), free_ports(1)
    try:
        if as_whom:
            shutil.chown(folder, as_whom["user"], as_whom["group"])
        with _running(programs, folder, port, as_whom):
            yield f"postgresql+psycopg://retune@127.0.0.1:{port}/postgres"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _running(programs: Path, folder: Path, port: int, as_whom: dict[str, Any]) -> Iterator[None]:
    data, environment = folder / "data", {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
    common: dict[str, Any] = {"cwd": folder, "env": environment, **as_whom}
    made: list[str | Path] = [programs / "initdb", "--pgdata", data, "--username", "retune", "--auth", "trust"]
    subprocess.run(made, check=True, stdout=subprocess.DEVNULL, **common)
    command: list[str | Path] = [programs / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", folder]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log, **common) as server:
        try:
            ready: list[str | Path] = [programs / "pg_isready", "-h", "127.0.0.1", "-p", str(port)]
            answers = "accepting connections"
            wait_for(lambda: answers in run(ready, check=False), what="PostgreSQL answering", seconds=60)
            yield
        finally:
            server.send_signal(signal.SIGINT)  # ends it at once, whoever is still connected
            server.wait(timeout=60)
