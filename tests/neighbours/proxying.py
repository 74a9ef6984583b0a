"""The capturing proxy for tests: a process before a model server of this machine."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from optimizer_jobs.data.volumes import CLAIM_ROOT_VARIABLE
from tests.storage.servers import listens
from tools.localcluster.controlplane import free_ports
from tools.localcluster.shell import wait_for


@contextmanager
def before(port: int, claims: Path, *, model: str, folder: str, log: Path) -> Iterator[int]:
    """Run the proxy before a server at a port of this machine; when it ends, all is written.

    Args:
        port: Port of the server.
        claims: Folder of the claims.
        model: URI of the model that is recorded where the server names none.
        folder: URI of the folder for captured requests.
        log: Folder for what it says.

    Yields:
        The port that requests go to.
    """
    here, metrics = free_ports(2)
    words = ["-m", "optimizer_jobs.production.proxy", "--upstream", f"http://127.0.0.1:{port}", "--model", model]
    words += ["--folder", folder, "--port", str(here), "--metrics-port", str(metrics)]
    with (log / "proxy.log").open("wb") as sink:
        process = subprocess.Popen(
            [sys.executable, *words], stdout=sink, stderr=sink, env={**os.environ, CLAIM_ROOT_VARIABLE: str(claims)}
        )
        try:
            wait_for(lambda: listens(here) and listens(metrics), what="the proxy", seconds=60)
            yield here
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0, (log / "proxy.log").read_text()
        finally:
            process.kill()
            process.wait()
