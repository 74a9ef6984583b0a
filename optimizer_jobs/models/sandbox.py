"""Look at an untrusted model in a process of its own, so that a file that crashes, stalls or fills memory is a finding.

The child sends back plain JSON, never pickled objects; it has no credentials, and cannot read those of this process.
"""

import json
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from ctypes import CDLL
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.models.memory import bound_memory, memory_left
from optimizer_jobs.models.onnx_file import check_onnx
from optimizer_jobs.signature import Signature
from retune.contract.results import Failure, Reason

Json = Mapping[str, Any]

START_SECONDS = 120.0
"""Time the child may take to start, which says nothing about the model."""

CHECK_SECONDS = 300.0
"""Time a model may take to be parsed, checked and opened."""

_ANSWER_LIMIT = 4 << 20
_NEEDED = frozenset({"PATH", "HOME", "TMPDIR", "LANG", "LD_LIBRARY_PATH", "DO_NOT_TRACK", "MPLCONFIGDIR"})
_NEEDED_PREFIXES = ("PYTHON", "LC_", "OMP_", "OPENBLAS_", "MKL_", "NUMEXPR_", "ORT_", "KMP_", "CUDA_", "NVIDIA_")
_PR_GET_DUMPABLE, _PR_SET_DUMPABLE = 3, 4


def check_in_sandbox(path: Path, *, uri: str, seconds: float = CHECK_SECONDS) -> Signature:
    """Do `check_onnx` in a child process; a crash or more than `seconds` is ModelInvalid, too."""
    question = {"path": str(path), "uri": uri}
    return Signature.model_validate(
        run_in_sandbox(f"{__name__}:check", question, uri=uri, seconds=seconds)["signature"]
    )


def check(question: Json) -> Json:
    """Check an ONNX file; called in the other process."""
    return {"signature": check_onnx(Path(question["path"]), uri=question["uri"]).to_dict()}


def run_in_sandbox(function: str, question: Json, *, uri: str, seconds: float, memory: int | None = None) -> Json:
    """Return what `MODULE:FUNCTION` answers to a question, asked in a child process.

    Args:
        function: What is called there, with the question; it returns plain JSON.
        question: Plain JSON.
        uri: Name that people know the model by.
        seconds: Time that it may take.
        memory: Bytes that the child may have; all that is left to this container unless given.

    Raises:
        JobError: what the function raises, or ModelInvalid when the process dies, answers nonsense, or is not done
            after `seconds`.
    """
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    limit = memory or memory_left()
    child = spawn.Process(target=_answer, args=(function, json.dumps(question), theirs, limit), daemon=True)
    with _hidden():
        with _without_secrets():
            child.start()
        theirs.close()
        try:
            _await_start(ours)
            if not ours.poll(seconds):
                raise _invalid(uri, f"the model is not open after {seconds:g} s.")
            found: Json = json.loads(ours.recv_bytes(_ANSWER_LIMIT))
        except EOFError as error:
            child.join()
            raise _invalid(uri, f"the process that opened the model died (exit code {child.exitcode}).") from error
        except (OSError, ValueError) as error:
            raise _invalid(uri, "the process that opened the model gave no sensible answer.") from error
        finally:
            _end(child.pid)
            child.kill()
            child.join()
            ours.close()
    return _checked(found, uri)


def _checked(found: Json, uri: str) -> Json:
    """Return an answer, or raise the failure that it is; whoever wrote it may have been the model."""
    if not isinstance(found, dict):
        raise _invalid(uri, "the process that opened the model gave no sensible answer.")
    if "memory" in found:
        raise _invalid(uri, f"opening it takes more than the {int(found['memory']) >> 20} MiB that are left to it.")
    if "raised" in found:
        raise _invalid(uri, f"opening it raises {found['raised']}.")
    if "failure" not in found:
        return found
    try:
        failure = Failure.model_validate(found["failure"])
    except ValidationError as error:
        raise _invalid(uri, "the process that opened the model gave no sensible answer.") from error
    raise JobError(failure.reason, failure.object, failure.message, failure.next_step)


@contextmanager
def _hidden() -> Iterator[None]:
    """Keep memory and environment of this process from others of its user while the child lives."""
    libc = CDLL(None)
    before = libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(_PR_SET_DUMPABLE, before, 0, 0, 0)


@contextmanager
def _without_secrets() -> Iterator[None]:
    """Take everything but what libraries need from the environment, which a child inherits as it starts."""
    kept = dict(os.environ)
    for name in kept:
        if name not in _NEEDED and not name.startswith(_NEEDED_PREFIXES):
            del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(kept)


def _end(group: int | None) -> None:
    """End the child and what it started."""
    if group:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


def _await_start(answers: Connection) -> None:
    """Wait until the child is about to touch the model; one that dies before is no finding about the model."""
    try:
        if answers.poll(START_SECONDS):
            answers.recv_bytes(_ANSWER_LIMIT)
            return
    except EOFError as error:
        raise RuntimeError("the process that checks models did not start") from error
    raise RuntimeError(f"the process that checks models was not ready after {START_SECONDS:g} s")


def _answer(function: str, question: str, answers: Connection, memory: int) -> None:
    os.setsid()
    module, _, name = function.partition(":")
    asked = getattr(import_module(module), name)
    answers.send_bytes(b"ready")
    bound_memory(memory)
    try:
        answer = json.dumps(_answered(asked, json.loads(question))).encode()
    except MemoryError:
        answer = json.dumps({"memory": memory}).encode()
    answers.send_bytes(answer)


def _answered(asked: Callable[[Json], Json], question: Json) -> Json:
    try:
        return asked(question)
    except JobError as error:
        return {"failure": error.failure().to_dict()}
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a hostile file makes a library raise is a finding about it
        traceback.print_exception(error)
        return {"raised": printable(f"{type(error).__name__}: {error}", limit=300)}


def _invalid(uri: str, message: str) -> JobError:
    return JobError(Reason.MODEL_INVALID, uri, message, "Export it again, or give the Job more memory if it is large.")
