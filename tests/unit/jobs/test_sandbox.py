"""What a hostile file does to the process that opens it ends there, and is a finding."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from optimizer_jobs.errors import JobError
from optimizer_jobs.models.memory import memory_left
from optimizer_jobs.models.sandbox import run_in_sandbox
from retune.contract.results import Reason
from tests.unit.jobs import hostile_for_tests as hostile
from tools.localcluster.shell import wait_for

URI = "pvc://models/model.pkl"


def ask(function: str, *, seconds: float = 60.0, memory: int | None = None, **question: str) -> dict[str, object]:
    """Ask a function of the hostile ones in a process apart."""
    return dict(run_in_sandbox(f"{hostile.__name__}:{function}", question, uri=URI, seconds=seconds, memory=memory))


@pytest.mark.parametrize(
    "function,says",
    [
        ("crash", r"died \(exit code -6\)"),
        ("stall", "not open after 0.5 s"),
        ("gorge", "more than the 256 MiB"),
        ("flood", "no sensible answer|more than"),
        ("trip", "raises RecursionError: too deep"),
        ("babble", "no sensible answer"),
    ],
)
def test_whatever_happens_there_is_a_sentence(function: str, says: str) -> None:
    """A crash, an endless loop, too much memory and nonsense all end as ModelInvalid, by the model's own name."""
    with pytest.raises(JobError, match=says) as caught:
        ask(function, seconds=0.5 if function == "stall" else 60.0, memory=256 << 20)
    assert (caught.value.reason, caught.value.object) == (Reason.MODEL_INVALID, URI)


@pytest.mark.parametrize(
    "function,next_step",
    [
        ("crash", "export it again"),
        ("trip", "export it again"),
        ("gorge", "Give the Job more memory"),
        ("starve", "Give the Job more memory"),
        ("lack", "install it"),
    ],
)
def test_the_next_step_fits_what_happened(function: str, next_step: str) -> None:
    """Memory is asked for only where memory was short; a module that is missing is named, and what brings it."""
    with pytest.raises(JobError) as caught:
        ask(function, memory=256 << 20)
    assert next_step in caught.value.next_step


def test_a_missing_module_is_named() -> None:
    """Whoever reads the sentence knows which package to install."""
    with pytest.raises(JobError, match=r"needs the Python module no_such_package\.inner"):
        ask("lack")


def test_processes_that_it_started_end_with_it(tmp_path: Path) -> None:
    """Nothing of a hostile file lives on beside the Job."""
    pid = ask("breed", note=str(tmp_path / "pid"))["pid"]
    wait_for(lambda: ended(int(str(pid))), what="the end of a process", seconds=30)


def ended(pid: int) -> bool:
    """Whether a process is gone, or only waits for its parent to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_credentials_stay_on_this_side() -> None:
    """While a file is open apart, code in it cannot read the environment of the Job, whose user it is."""
    program = f"from {hostile.__name__} import pry_as_nobody; pry_as_nobody()"
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "AWS_SECRET_ACCESS_KEY": "s3cret-value"}
    ran = subprocess.run([sys.executable, "-c", program], check=False, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    before, hidden = ran.stdout.splitlines()
    assert "s3cret-value" in before
    assert hidden == "hidden"


def test_the_environment_is_whole_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the other process must not have, this one still needs."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret-value")
    before = dict(os.environ)
    assert "s3cret-value" not in str(ask("pry")["own"])
    assert dict(os.environ) == before


def test_there_is_memory_to_open_models_with() -> None:
    """The bound is a share of what this machine has, and never nothing."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 512 << 20 <= memory_left() <= max(total, 512 << 20)
