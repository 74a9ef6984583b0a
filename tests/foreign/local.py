"""`retune init` and `retune optimize` as a person runs them: as processes, in a folder, with a small budget."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.foreign.delivered import Delivered

REPOSITORY = Path(__file__).parents[2]
STORE = "retune-store"
_ENDING = 30.0
"""Seconds that a search may need besides its budget and a tenth of it: to give a trial up, and to end its process."""
_TRIALS = re.compile(r"^(\d\d):(\d\d):(\d\d)\s+\[3/3\] \d+ trials in all", re.MULTILINE)
_JUDGE = re.compile(r"^(\d\d):(\d\d):(\d\d)\s+==> judge:", re.MULTILINE)
_DAY = 24 * 3600


@dataclass(frozen=True)
class Budget:
    """What a search may spend."""

    trials: int = 6
    seconds: int = 45
    threads: int = 1
    engines: tuple[str, ...] = ("ONNXRuntime",)

    @property
    def longest(self) -> float:
        """Seconds that the trials may take: a tenth more than their budget, and what ending needs."""
        return 1.1 * self.seconds + _ENDING


@dataclass(frozen=True)
class Ended:
    """How a run ended, by its exit code and what it printed."""

    code: int
    document: Mapping[str, Any]
    """The result for programs; empty where the run was refused."""
    said: str
    """Standard error of the command that ended the run."""
    folder: Path
    seconds: float

    @property
    def searched(self) -> float:
        """Seconds from the beginning of the trials to that of the judge."""
        return (_moment(_JUDGE, self.said) - _moment(_TRIALS, self.said)) % _DAY

    @property
    def champion(self) -> Path:
        """Folder of version 1."""
        return self._bundles / str(self.document["championDigest"]).removeprefix("sha256:")

    @property
    def candidate(self) -> Path | None:
        """Folder of the winner, or of a candidate that was kept for a person to decide; None without either."""
        paths = self.document["paths"]
        path = paths["bundle"] or paths["kept"]
        return self.folder / path if path else None

    @property
    def _bundles(self) -> Path:
        (resource,) = (self.folder / STORE).iterdir()
        return resource / "bundles"


def _moment(line: re.Pattern[str], said: str) -> int:
    """Return the second of the day at which a line was printed."""
    ((hours, minutes, seconds),) = line.findall(said)
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds)


def optimize(delivered: Delivered, folder: Path, budget: Budget) -> Ended:
    """Return how a whole local run ended that began with nothing but the files in `folder`."""
    began = time.monotonic()
    model = str(delivered.model)
    init = _retune(folder, "init", model, "--allow-code", "--name", "foreign", "-f", "mo.yaml", *delivered.options)
    if init.returncode != 0:
        return Ended(init.returncode, {}, init.stderr, folder, time.monotonic() - began)
    _limit(folder / "mo.yaml", budget)
    claim, threads = f"models={delivered.model.parent}", str(budget.threads)
    words = ["-f", "mo.yaml", "--claim", claim, "--threads", threads, "--allow-code", "--store", STORE, "-o", "json"]
    run = _retune(folder, "optimize", *words)
    document = json.loads(run.stdout) if run.stdout else {}
    return Ended(run.returncode, document, run.stderr, folder, time.monotonic() - began)


def _limit(manifest: Path, budget: Budget) -> None:
    """Edit the manifest as a person with little time would."""
    resource = yaml.safe_load(manifest.read_text())
    resource["spec"]["search"] = {"maxTrials": budget.trials, "maxDuration": f"{budget.seconds}s"}
    resource["spec"]["serving"] = {"engines": list(budget.engines)}
    manifest.write_text(yaml.safe_dump(resource))


def _retune(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "operator"), str(REPOSITORY)]),
        "KUBECONFIG": str(folder / "none"),
        "COLUMNS": "200",
    }
    command = [sys.executable, "-m", "retune.cli.main", *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
