"""Private copies of bundles go with the process that made them, also where it was killed."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from optimizer_jobs.agent.scratch import private_folder

HOLDING = """
import sys, tempfile
from optimizer_jobs.agent.scratch import private_folder
tempfile.tempdir = sys.argv[1]
with private_folder() as folder:
    (folder / "model.onnx").write_bytes(b"large")
    print(folder, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The place for temporary files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@contextmanager
def another(place: Path) -> "Iterator[tuple[subprocess.Popen[str], Path]]":
    """Another process with a copy, and the folder of that."""
    words = [sys.executable, "-c", HOLDING, str(place)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, Path(process.stdout.readline().strip())
        finally:
            process.kill()


def test_what_a_killed_process_left_is_removed_by_the_next(place: Path) -> None:
    """As where a container is killed for memory, again and again, while the volume stays."""
    with another(place) as (process, left):
        assert (left / "model.onnx").exists()
        process.kill()
        process.wait()
    assert (left / "model.onnx").exists()
    with private_folder() as folder:
        assert list(folder.iterdir()) == []
        assert not left.parent.exists()
    assert list(place.iterdir()) == []


def test_what_a_living_process_has_stays(place: Path) -> None:
    """Several agents of one pod may share a volume; and what others keep there is theirs."""
    (place / "bundle-of-another").mkdir()
    with another(place) as (_, held):
        with private_folder() as folder:
            assert folder != held
        assert (held / "model.onnx").read_bytes() == b"large"
    assert (place / "bundle-of-another").exists()


def test_a_folder_whose_process_has_only_begun_stays(place: Path) -> None:
    """It has no lock yet, which is no sign that nobody has it."""
    begun = place / "retune-copies-begun"
    begun.mkdir()
    with private_folder():
        assert begun.exists()
