"""A real MLflow for tests: its tracking server on loopback, with files handed out by the server itself."""

import base64
import json
import os
import subprocess
import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import numpy as np
import pytest

from tools.localcluster.controlplane import free_ports
from tools.localcluster.shell import wait_for

VARIABLE = "RETUNE_MLFLOW"
"""Environment variable with the environment that MLflow is installed in."""
ADMIN, PASSWORD = "admin", "a-password-for-tests-only"
_SECONDS = 240.0
_MODELS, _LOADS = (Path(__file__).with_name(f"mlflow_{name}.py") for name in ("models", "loads"))
_QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


@dataclass(frozen=True)
class Mlflow:
    """A running server."""

    address: str
    artifacts: Path
    """Folder of the files that it hands out."""
    user: str | None = None

    def ask(self, method: str, name: str, /, **fields: Any) -> Any:
        """Ask its REST API, by a query or a body of these fields."""
        is_read = method == "GET"
        url = f"{self.address}/api/2.0/mlflow/{name}{f'?{urlencode(fields)}' if is_read else ''}"
        headers = {"Content-Type": "application/json"}
        if self.user:
            headers["Authorization"] = f"Basic {base64.b64encode(f'{self.user}:{PASSWORD}'.encode()).decode()}"
        body = None if is_read else json.dumps(fields).encode()
        request = Request(url, body, headers, method=method)  # noqa: S310 - a server of our own
        with urlopen(request, timeout=60) as answer:  # noqa: S310 - a server of our own
            return json.load(answer)

    def copy(self, source: str, name: str) -> str:
        """Register the folder of another model's version 1 under a new name too; return the new version."""
        self.ensure(name)
        made = self.ask("POST", "model-versions/create", name=name, source=f"models:/{source}/1")
        return str(made["model_version"]["version"])

    def ensure(self, name: str) -> None:
        """Create a registered model unless it is there."""
        try:
            self.ask("POST", "registered-models/create", name=name)
        except urllib.error.HTTPError as error:
            if error.code != 400:
                raise

    def folder(self, name: str, version: str = "1") -> Path:
        """Return the folder of a version's files on this machine."""
        uri = self.ask("GET", "model-versions/get-download-uri", name=name, version=version)["artifact_uri"]
        return self.artifacts / str(uri).removeprefix("mlflow-artifacts:/")


@contextmanager
def serving(folder: Path, *, passwords: bool = False, takes_files: bool = True, root: str = "") -> Iterator[Mlflow]:
    """Serve until left; skips where nobody has installed MLflow.

    Args:
        folder: Where database, files and log go.
        passwords: Whether users have to show who they are.
        takes_files: Whether the server hands files out and takes them itself.
        root: Where the files lie otherwise; empty: in a folder of the server's machine.
    """
    binaries, (port,) = _environment() / "bin", free_ports(1)
    environment = _clean() | {"MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD, "MLFLOW_FLASK_SERVER_SECRET_KEY": "for-tests"}
    flags = ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    flags += ["--artifacts-destination", f"{folder}/artifacts"] if takes_files else ["--no-serve-artifacts"]
    flags += ["--default-artifact-root", root] if root else []
    flags += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    flags += ["--app-name", "basic-auth"] if passwords else []
    log, address = folder / "log", f"http://127.0.0.1:{port}"
    with log.open("wb") as sink:
        command = [str(binaries / "python"), str(binaries / "mlflow"), "server", *flags]
        process = subprocess.Popen(command, stdout=sink, stderr=sink, env=environment, cwd=folder)
        try:
            ready = lambda: process.poll() is not None or _is_up(address)  # noqa: E731 - named for the wait
            wait_for(ready, what="MLflow", seconds=_SECONDS, hint=log.read_text)
            assert process.poll() is None, log.read_text()
            yield Mlflow(address, folder / "artifacts", ADMIN if passwords else None)
        finally:
            process.terminate()
            process.wait(60)


def log_models(server: Mlflow, folder: Path) -> None:
    """Log and register a model of each flavour with MLflow's own library; leaves their files in the folder."""
    _by_library(_MODELS, server.address, str(folder))


def answers_of(server: Mlflow, uri: str, rows: Any, folder: Path) -> dict[str, Any]:
    """Load a registered model with MLflow's own library; return what it answers, and the words of its signature."""
    np.save(folder / "rows.npy", rows)
    _by_library(_LOADS, server.address, uri, str(folder / "rows.npy"), str(folder / "answers.npz"))
    with np.load(folder / "answers.npz") as found:
        return dict(found)


def _by_library(*arguments: str | Path) -> None:
    command = [str(_environment() / "bin" / "python"), *map(str, arguments)]
    done = subprocess.run(command, env=_clean(), capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 0, done.stderr


def _clean() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | _QUIET


def _environment() -> Path:
    if VARIABLE not in os.environ:
        pytest.skip("`make test-neighbours-mlflow` installs the server and runs this")
    return Path(os.environ[VARIABLE])


def _is_up(address: str) -> bool:
    try:
        with urlopen(f"{address}/health", timeout=5):  # noqa: S310 - a server of our own
            return True
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return False
