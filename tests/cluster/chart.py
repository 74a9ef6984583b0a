"""The chart, rendered by the real Helm."""

import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tools.localcluster import binaries, settings

Json = dict[str, Any]
CHART = Path(__file__).resolve().parents[2] / "charts" / "retune"


@cache
def helm_binary() -> str:
    """Helm on PATH, else the local cluster's own."""
    found = shutil.which("helm")
    return found or str(binaries.ensure(settings.load(), ["helm"])["helm"])


def helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """One Helm command, whatever its exit code."""
    return subprocess.run([helm_binary(), *arguments], check=False, capture_output=True, text=True, timeout=60)


def rendered(*settings_given: str, release: str = "retune", namespace: str = "retune-system") -> list[Json]:
    """Every object of a release with these `key=value` settings; fails with Helm's own words."""
    flags = [flag for setting in settings_given for flag in ("--set", setting)]
    done = helm("template", release, str(CHART), "--namespace", namespace, *flags)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def of_kind(documents: list[Json], kind: str) -> list[Json]:
    """The objects of one kind."""
    return [document for document in documents if document["kind"] == kind]
