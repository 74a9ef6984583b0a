"""Search workers as processes of their own, as a Job runs them, to be watched and killed."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from retune.contract.requests import SearchRequest

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def job(request: SearchRequest, folder: Path, *, index: int = 0) -> Iterator[subprocess.Popen[str]]:
    """Run a worker of the Job by its command line; it is killed when the block ends before it does."""
    folder.mkdir(exist_ok=True)
    (folder / "request.json").write_text(request.model_dump_json(by_alias=True, exclude_none=True))
    words = [sys.executable, "-m", "optimizer_jobs"]
    words += ["--request", f"{folder}/request.json", "--result", f"{folder}/out"]
    environment = os.environ | {
        "PYTHONPATH": f"{ROOT}:{ROOT / 'operator'}",
        "JOB_COMPLETION_INDEX": str(index),
        "RETUNE_LEASE_SECONDS": "5",
        "OMP_NUM_THREADS": "1",
    }
    with subprocess.Popen(words, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


def until(process: subprocess.Popen[str], start: str) -> str:
    """Return the first line of a worker that begins so."""
    assert process.stdout is not None
    return next(line for line in process.stdout if line.startswith(start))
