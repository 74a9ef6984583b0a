"""An extra brings what its part imports: nobody meets a missing module at the first command."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest

from tests.unit.packaging.isolation import NOTHING_ELSE

REPOSITORY = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
START = f"""
{NOTHING_ELSE}
import retune.cli.main
"""
"""Imports the command line where nothing but what is named can be imported."""


def name_of(requirement: str) -> str:
    """Return the distribution that a requirement names, as pip compares names."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0]).lower()


def closure(requirements: list[str]) -> Iterator[str]:
    """Yield the names of these distributions and of all that they need, without their extras."""
    waiting, seen = [name_of(line) for line in requirements], set[str]()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        yield name
        try:
            waiting += [name_of(line) for line in requires(name) or () if "extra ==" not in line]
        except PackageNotFoundError:
            continue


@pytest.mark.slow
def test_the_command_line_starts_with_its_own_extra_alone() -> None:
    """`pip install '.[cli]'` is enough to import every module that `retune` imports when it starts."""
    extras = PROJECT["optional-dependencies"]
    brought = sorted({*closure([*PROJECT["dependencies"], *extras["cli"]]), PROJECT["name"]})
    command = [sys.executable, "-c", START, ",".join(brought)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert {"rich", "pydantic"} <= set(brought)


def test_the_extra_for_a_persons_machine_names_no_torch() -> None:
    """It is what a laptop gets by one install; torch is asked for by name."""
    extras = PROJECT["optional-dependencies"]
    (ours,) = (line for line in extras["local"] if line.startswith("retune["))
    within = [*extras["local"], *(line for extra in re.findall(r"[a-z]+", ours)[1:] for line in extras[extra])]
    names = {name_of(line) for line in within}
    assert {"rich", "onnxruntime", "openvino", "skops", "nncf"} <= names
    assert {"torch", "torch-pruning"}.isdisjoint(names)
