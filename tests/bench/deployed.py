"""The operator as its image runs it: with the environment of its Dockerfile, and with no package that the image lacks.

A developer's environment holds packages that others import where they find them; each would count as the operator's
memory and start, though no cluster has it.
"""

import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import distributions
from pathlib import Path
from subprocess import Popen
from tempfile import TemporaryDirectory

REPOSITORY = Path(__file__).resolve().parents[2]
_PLACES = {"PATH", "PYTHONPATH", "HOME"}
"""Variables that name places inside the image."""


@contextmanager
def operator(settings: Mapping[str, str]) -> "Iterator[Popen[bytes]]":
    """Run `python -m retune` with these settings until the block ends."""
    path = os.pathsep.join((str(REPOSITORY / "operator"), packages().name))
    environment = os.environ | image_environment() | dict(settings) | {"PYTHONPATH": path}
    process = Popen([sys.executable, "-S", "-m", "retune"], env=environment)  # -S: nothing but PYTHONPATH
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def image_environment() -> dict[str, str]:
    """Return the variables that the operator's Dockerfile sets, without the places."""
    text = (REPOSITORY / "operator" / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    words = [word for line in re.findall(r"^ENV (.+)$", text, re.MULTILINE) for word in shlex.split(line)]
    pairs = dict(word.split("=", 1) for word in words)
    return {name: value for name, value in pairs.items() if name not in _PLACES}


@cache
def packages() -> "TemporaryDirectory[str]":
    """Return a folder of links to what the image installs, gone with this process.

    Raises SystemExit where a package is missing in this environment, or has another version than in the image.
    """
    folder = TemporaryDirectory(prefix="retune-bench-")
    pins = (REPOSITORY / "requirements" / "operator.txt").read_text(encoding="utf-8")
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", pins, re.MULTILINE):
        files = next((each.files for each in distributions(name=name) if each.version == version), None)
        if not files:
            raise SystemExit(f"{name} {version}, which the image has, is not in this environment: run make venv")
        for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            (Path(folder.name) / top).symlink_to(str(files[0].dist.locate_file(top)))
    return folder
