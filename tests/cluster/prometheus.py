"""A real Prometheus and its promtool, from Debian's package, unpacked into the cache and installed nowhere."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml

from tools.localcluster import packages
from tools.localcluster.controlplane import free_ports
from tools.localcluster.settings import load
from tools.localcluster.shell import wait_for

Json = dict[str, Any]
SCRAPE_SECONDS = 0.2


def program(name: str) -> Path:
    """`prometheus` or `promtool`."""
    return packages.unpacked(load(), "prometheus") / "usr" / "bin" / name


def promtool(*arguments: str | Path) -> str:
    """Run promtool; fails with what it printed."""
    words = [str(each) for each in (program("promtool"), *arguments)]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Prometheus:
    """A running server."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def query(self, text: str) -> list[Json]:
        """The instant vector that a query answers now; fails with Prometheus' own words."""
        try:
            with urlopen(f"{self.url}/api/v1/query?{urlencode({'query': text})}", timeout=10) as answer:  # noqa: S310 - http
                found: list[Json] = json.load(answer)["data"]["result"]
        except HTTPError as error:
            raise AssertionError(f"{text}: {error.read().decode()}") from error
        return found

    def number(self, text: str) -> float | None:
        """The one number that a query answers; None while it answers nothing."""
        found = self.query(text)
        return float(found[0]["value"][1]) if found else None

    @property
    def ready(self) -> bool:
        """Whether it answers."""
        try:
            with urlopen(f"{self.url}/-/ready", timeout=5) as answer:  # noqa: S310 - http
                return bool(answer.status == 200)
        except OSError:
            return False


@contextmanager
def running(folder: Path, targets: Mapping[str, int]) -> Iterator[Prometheus]:
    """Scrape these ports of loopback, by the job's name, five times a second."""
    (port,) = free_ports(1)
    jobs = [{"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{at}"]}]} for name, at in targets.items()]
    interval = f"{round(1000 * SCRAPE_SECONDS)}ms"
    settings = {"global": {"scrape_interval": interval, "scrape_timeout": interval}, "scrape_configs": jobs}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(settings))
    arguments = (
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([program("prometheus"), *arguments], stdout=log, stderr=log)
    try:
        found = Prometheus(port)
        wait_for(lambda: found.ready, what=f"Prometheus, which logs to {folder}/log", seconds=30)
        yield found
    finally:
        process.terminate()
        process.wait(timeout=30)
