"""The agent of retune-runtime as a process of its own beside a real server, and users who ask that server meanwhile."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from optimizer_jobs.models.version_numbers import number_of
from retune.contract.requests import BundleRef
from tools.localcluster.controlplane import free_ports
from tools.localcluster.settings import REPOSITORY
from tools.localcluster.shell import wait_for

SECONDS = 180.0
"""Longest time until a version serves: a machine may have much else to do."""


@dataclass
class Agent:
    """The agent as a process of its own, and the file that it watches."""

    folder: Path
    arguments: tuple[str, ...]
    """The server, what it is called and where it is."""
    port: int
    process: "subprocess.Popen[bytes] | None" = None

    def want(self, reference: BundleRef) -> None:
        """Have another version wanted, in one step, as the kubelet does."""
        beside = self.folder / "wanted.new"
        beside.write_text(reference.uri)
        beside.replace(self.folder / "wanted")

    def start(self) -> None:
        """Start it, with this repository's modules in the place of the wheel's."""
        paths = [REPOSITORY / "operator", REPOSITORY, REPOSITORY / "tools" / "runtime"]
        watched = ["--wanted", str(self.folder / "wanted"), "--port", str(self.port)]
        command = [sys.executable, "-m", "retune_runtime", "follow"]
        with (self.folder / "agent.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *self.arguments, *watched],
                env=os.environ | {"PYTHONPATH": ":".join(map(str, paths)), "PYTHONUNBUFFERED": "1"},
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """End it at once, as a node that is lost does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def told(self) -> Mapping[str, Any]:
        """What it says; nothing while it starts."""
        try:
            with urlopen(f"http://127.0.0.1:{self.port}/version", timeout=5) as answer:
                document: dict[str, Any] = json.load(answer)
                return document
        except (URLError, HTTPException, ConnectionError, TimeoutError):
            return {}

    def until(self, reached: Callable[[Mapping[str, Any]], bool], *, what: str) -> None:
        """Wait until it says something; fails with its log."""
        wait_for(lambda: reached(self.told()), what=what, seconds=SECONDS, hint=self.said)

    def until_served(self, reference: BundleRef) -> None:
        """Wait until a version serves, and is proved."""
        wanted = {"ready": True, "wanted": reference.uri, "served": reference.digest}
        self.until(lambda told: wanted.items() <= told.items(), what=f"version {number_of(reference.digest)}")

    def said(self) -> str:
        """Its log."""
        return (self.folder / "agent.log").read_text()


@contextmanager
def following(folder: Path, *arguments: str) -> Iterator[Agent]:
    """Have the agent beside a server."""
    agent = Agent(folder, arguments, free_ports(1)[0])
    agent.start()
    try:
        yield agent
    finally:
        agent.kill()


@dataclass
class Users:
    """Constant requests, one after the other, of several users."""

    ask: Callable[[], str]
    """Asks once, and returns who has answered."""
    answered: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def go_on(self) -> None:
        """Ask until it is over."""
        while not self.ended.is_set():
            try:
                self.answered.append(self.ask())
            except (URLError, HTTPException, ConnectionError, TimeoutError) as error:
                self.failures.append(repr(error))


@contextmanager
def users(ask: Callable[[], str], count: int = 3) -> Iterator[Users]:
    """Let users ask while what follows happens."""
    asking = Users(ask)
    threads = [threading.Thread(target=asking.go_on) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield asking
    finally:
        asking.ended.set()
        for thread in threads:
            thread.join()
