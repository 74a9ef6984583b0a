"""Check an untrusted model in a process of its own, so that a file that crashes or stalls a parser is a finding.

The child sends back plain JSON, never pickled objects.
"""

import json
import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path

from optimizer_jobs.errors import JobError
from optimizer_jobs.models.onnx_file import check_onnx
from optimizer_jobs.models.signature import Signature
from retune.contract.results import Failure, Reason

START_SECONDS = 120.0
"""Time the child may take to start, which says nothing about the model."""

CHECK_SECONDS = 300.0
"""Time a model may take to be parsed, checked and opened."""


def check_apart(path: Path, *, uri: str, seconds: float = CHECK_SECONDS) -> Signature:
    """Do `check_onnx` in a child process; a crash or more than `seconds` is ModelInvalid, too."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    child = spawn.Process(target=_check, args=(path, uri, theirs), daemon=True)
    child.start()
    theirs.close()
    try:
        _await_start(ours)
        if not ours.poll(seconds):
            raise _invalid(uri, f"the model is not open after {seconds:g} s.")
        answer = json.loads(ours.recv_bytes())
    except EOFError as error:
        child.join()
        raise _invalid(uri, f"the process that opened the model died (exit code {child.exitcode}).") from error
    finally:
        child.kill()
        child.join()
        ours.close()
    if "signature" in answer:
        return Signature.model_validate(answer["signature"])
    failure = Failure.model_validate(answer)
    raise JobError(failure.reason, failure.object, failure.message, failure.next_step)


def _await_start(answers: Connection) -> None:
    """Wait until the child is about to touch the model; one that dies before is no finding about the model."""
    try:
        if answers.poll(START_SECONDS):
            answers.recv_bytes()
            return
    except EOFError as error:
        raise RuntimeError("the process that checks models did not start") from error
    raise RuntimeError(f"the process that checks models was not ready after {START_SECONDS:g} s")


def _check(path: Path, uri: str, answers: Connection) -> None:
    answers.send_bytes(b"ready")
    try:
        answer = {"signature": check_onnx(path, uri=uri).to_dict()}
    except JobError as error:
        answer = error.failure().to_dict()
    answers.send_bytes(json.dumps(answer).encode())


def _invalid(uri: str, message: str) -> JobError:
    return JobError(Reason.MODEL_INVALID, uri, message, "Export it again, or give the Job more memory if it is large.")
