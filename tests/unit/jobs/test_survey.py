"""What is ready and what is missing in a Python environment, in any environment."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from optimizer_jobs.commands import survey
from retune.api.model import ModelFormat
from retune.api.servers import EngineName
from retune.api.techniques import TechniqueType
from retune.contract.machines import Package
from retune.contract.requests import SurveyRequest

HEAVY = ("numpy", "onnx", "onnxruntime", "optuna", "sklearn", "torch")
REQUEST = SurveyRequest(resource="local/doctor")


def test_every_format_technique_and_engine_is_told_of() -> None:
    """A new one has to say here what it needs."""
    parts = {(part.kind, part.name) for part in survey.run(REQUEST).parts}
    every = {"Format": ModelFormat, "Technique": TechniqueType, "Engine": EngineName}
    assert parts == {(kind, name.value) for kind, names in every.items() for name in names}


def test_what_every_job_needs_is_the_extra_of_the_jobs() -> None:
    """A dependency that is added to one is missed by nobody in the other."""
    project = tomllib.loads((Path(__file__).resolve().parents[3] / "pyproject.toml").read_text())["project"]
    extra = {re.split(r"[\[<>=]", line, maxsplit=1)[0] for line in project["optional-dependencies"]["jobs"]}
    assert set(survey._JOBS) == extra


def test_what_only_the_repository_s_tools_want_says_nothing_of_a_machine() -> None:
    """A server of others that the tests start wants an old NumPy; what every Job needs is another matter."""
    assert survey.fits("2.4.6", survey.wanted_versions()["numpy"])


def test_it_answers_where_nothing_else_is_installed() -> None:
    """Whoever asks what is missing may miss anything: no library is imported before the answer."""
    program = f"""
import sys
for name in {HEAVY!r}:
    sys.modules[name] = None
from optimizer_jobs.commands.survey import run
from retune.contract.requests import SurveyRequest
print(len(run(SurveyRequest(resource="local/doctor")).parts))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("installed", "wanted", "fit"),
    [
        ("2.9.1+cpu", ">=2.9,<3", True),
        ("3.0.0", ">=2.9,<3", False),
        ("2.10", ">=2.9,<3", True),
        ("2.8.1", ">=2.9", False),
        ("0.7.23", "==0.7.23", True),
        ("0.7.24", "==0.7.23", False),
        ("1.0", "", True),
    ],
)
def test_a_version_is_held_against_its_bounds(installed: str, wanted: str, fit: bool) -> None:  # noqa: FBT001
    """As numbers, not as text, and without what comes after a plus."""
    assert survey.fits(installed, wanted) is fit


def test_a_part_with_several_ways_is_partly_ready() -> None:
    """One way is enough to use it, and the others are named."""
    jobs = {name: Package(name=name, brings="", wanted="", version="1", fits=True) for name in survey._JOBS}
    packages = jobs | {"torch": Package(name="torch", brings="", wanted=">=2", fits=False)}
    ways = {"estimators": (), "networks": ("torch",)}
    part = survey._part("Pruning", "Technique", ways, packages)
    assert (part.state, part.words) == ("partly", "estimators (not: networks)")
    part = survey._part("Distillation", "Technique", {"networks": ("torch",)}, packages)
    assert (part.state, part.words) == ("missing", "needs torch for networks")
