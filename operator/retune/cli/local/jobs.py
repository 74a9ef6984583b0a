"""Run commands of Jobs as processes of this machine, and pass on every line that they print.

A process runs what a pod would run. One that has to stop is asked to, and has time to put its trial back.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from retune.cli.access import AccessError
from retune.contract.paths import CLAIMS_VARIABLE, CODE_VARIABLE
from retune.contract.requests import AnyRequest, encode_request
from retune.contract.results import Failure, JobResult, parse_result

STOP_SECONDS = 30.0
"""Time that a process has to stop before it is killed."""
_MODULE = "optimizer_jobs"
_RESULT = '{"kind":'
"""How the line begins that repeats the result, which is read from its file instead."""
_AS_IN_THE_IMAGE = {"DO_NOT_TRACK": "1", "ORT_DISABLE_TELEMETRY": "1", "OMP_WAIT_POLICY": "PASSIVE"}
_ANY_PORT = "0"
"""Port on which a worker serves its metrics: any that is free."""


class JobFailedError(AccessError):
    """A Job could not do its work; the message is its own."""


def job_environment(claims: Mapping[str, Path], code: Sequence[Path] = ()) -> dict[str, str]:
    """Return the environment of Jobs: this process's own, the folders of claims, and what the Jobs' image would set.

    Args:
        claims: Folder that each PersistentVolumeClaim stands for, by the claim's name.
        code: Folders of the owner's own code, where factories are looked for.
    """
    folders = json.dumps({name: str(folder.resolve()) for name, folder in claims.items()})
    own = {CODE_VARIABLE: os.pathsep.join(str(folder.resolve()) for folder in code)} if code else {}
    return {**os.environ, CLAIMS_VARIABLE: folders, **own, **_AS_IN_THE_IMAGE}


@dataclass(frozen=True)
class Job:
    """One process."""

    request: AnyRequest
    environment: Mapping[str, str]
    index: int = 0
    """Number of the worker, where several work on one search."""


def run(jobs: Sequence[Job], *, heard: Callable[[str], None]) -> list[JobResult]:
    """Run processes side by side until all have ended, and return their results in the order of the jobs.

    Args:
        jobs: What is run.
        heard: Takes every line that a process prints; called from threads of its own.

    Raises:
        JobFailedError: A Job failed; the message is the first failure's sentence.
    """
    with tempfile.TemporaryDirectory(prefix="retune-job-") as folder:
        running = [_start(job, Path(folder) / str(number)) for number, job in enumerate(jobs)]
        listeners = [threading.Thread(target=_listen, args=(process, heard)) for process, _ in running]
        for listener in listeners:
            listener.start()
        try:
            for process, _ in running:
                process.wait()
        finally:
            _stop([process for process, _ in running])
            for listener in listeners:
                listener.join()
        return [_result(process, path) for process, path in running]


def _start(job: Job, folder: Path) -> tuple[subprocess.Popen[str], Path]:
    folder.mkdir()
    request, result = folder / "request.json", folder / "result.json"
    request.write_text(encode_request(job.request))
    environment = {**job.environment, "JOB_COMPLETION_INDEX": str(job.index), "RETUNE_METRICS_PORT": _ANY_PORT}
    words = [sys.executable, "-m", _MODULE, "--request", str(request), "--result", str(result)]
    process = subprocess.Popen(  # noqa: S603 - our own module with our own files
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    return process, result


def _listen(process: subprocess.Popen[str], heard: Callable[[str], None]) -> None:
    if process.stdout is None:
        return
    with process.stdout as lines:
        for line in lines:
            if not line.startswith(_RESULT):
                heard(line.rstrip())


def _stop(processes: Sequence[subprocess.Popen[str]]) -> None:
    """Ask every process that still runs to end, and end it when it does not."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _result(process: subprocess.Popen[str], path: Path) -> JobResult:
    if not path.exists():
        raise JobFailedError(
            f"a Job ended with exit code {process.returncode} and without a result: read what it said above; "
            "`retune doctor` says what is missing and what brings it"
        )
    result = parse_result(path.read_bytes())
    if isinstance(result, Failure):
        raise JobFailedError(f"{result.reason}: {result.sentence}")
    return result
