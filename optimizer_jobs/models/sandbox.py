"""Open an untrusted model in a child process, so that a file that crashes, hangs or fills memory fails only the child.

The child sends back plain JSON, never pickled objects. It has no credentials, and cannot read those of this process.
"""

import json
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from ctypes import CDLL
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.models.memory import bound_memory, memory_left
from optimizer_jobs.signature import Signature
from retune.contract.paths import CODE_VARIABLE
from retune.contract.results import Failure, Reason

Json = Mapping[str, Any]

START_SECONDS = 120.0
"""Longest time for the child to start; a slow start is not the model's fault."""

CHECK_SECONDS = 300.0
"""Longest time for a model to be parsed, checked and opened."""

_EXPORT_AGAIN = "Check the file with the tool that made it, and export it again."
_ANSWER_LIMIT = 4 << 20
_NEEDED = frozenset(
    {"PATH", "HOME", "TMPDIR", "LANG", "LD_LIBRARY_PATH", "DO_NOT_TRACK", "MPLCONFIGDIR", CODE_VARIABLE}
)
_NEEDED_PREFIXES = ("PYTHON", "LC_", "OMP_", "OPENBLAS_", "MKL_", "NUMEXPR_", "ORT_", "KMP_", "CUDA_", "NVIDIA_")
_PR_GET_DUMPABLE, _PR_SET_DUMPABLE = 3, 4


@dataclass(frozen=True)
class Errand:
    """What a child does, in the words of its failures."""

    doing: str = "opening it"
    """What raised, or took too much memory."""
    done: str = "the model is not open"
    """What is not so when the time is over."""
    process: str = "the process that opened the model"
    smaller: str = "deliver a smaller model"
    """What takes less time and memory."""
    other: str = "export it again"
    """What else may take less time."""
    again: str = _EXPORT_AGAIN
    """What to do where the file, or the code, is at fault."""


OPENING = Errand()
"""A child opens a model."""


def check_in_sandbox(path: Path, *, uri: str, seconds: float = CHECK_SECONDS) -> Signature:
    """Run `check_onnx` in a child process; a crash, or more than `seconds`, is ModelInvalid too."""
    answer = run_in_sandbox(f"{__name__}:check", {"path": str(path), "uri": uri}, uri=uri, seconds=seconds)
    return Signature.model_validate(answer["signature"])


def check(question: Json) -> Json:
    """Check an ONNX file; called in the child process."""
    from optimizer_jobs.models.onnx_file import check_onnx  # the monitor image, which has no ONNX, runs other code so

    return {"signature": check_onnx(Path(question["path"]), uri=question["uri"]).to_dict()}


def run_in_sandbox(
    function: str,
    question: Json,
    *,
    uri: str,
    seconds: float,
    memory: int | None = None,
    errand: Errand = OPENING,
) -> Json:
    """Call a function with a question in a child process, and return its answer.

    Args:
        function: `MODULE:FUNCTION` to call with the question; it must return plain JSON.
        question: Plain JSON.
        uri: Name by which people know the model.
        seconds: Longest time of the call.
        memory: Bytes that the child may take; by default what `memory_left` says.
        errand: What the child does, in words.

    Raises:
        JobError: What the function raises, or ModelInvalid when the child dies, answers nonsense, or is not done
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
            answer = _await_answer(ours, uri, seconds, errand)
        except EOFError as error:
            child.join()
            raise _died(uri, child.exitcode, errand) from error
        except (OSError, ValueError) as error:
            raise _nonsense(uri, errand) from error
        finally:
            _end(child.pid)
            child.kill()
            child.join()
            ours.close()
    return _checked(answer, uri, errand)


def _await_answer(answers: Connection, uri: str, seconds: float, errand: Errand) -> Json:
    _await_start(answers)
    if not answers.poll(seconds):
        faster = f"{errand.smaller[:1].upper()}{errand.smaller[1:]}"
        raise _invalid(uri, f"{errand.done} after {seconds:g} s.", f"{faster}, or {errand.other}.")
    answer: Json = json.loads(answers.recv_bytes(_ANSWER_LIMIT))
    return answer


def _checked(answer: Json, uri: str, errand: Errand) -> Json:
    """Return the child's answer, or raise the failure in it. The model may have forged the answer."""
    if not isinstance(answer, dict):
        raise _nonsense(uri, errand)
    if "memory" in answer:
        left = int(answer["memory"]) >> 20
        raise _invalid(uri, f"{errand.doing} takes more than the {left} MiB that are left to it.", _more_memory(errand))
    if "module" in answer:
        raise _lacks_module(uri, printable(str(answer["module"]), limit=80), errand)
    if "raised" in answer:
        raise _invalid(uri, f"{errand.doing} raises {printable(str(answer['raised']), limit=300)}.", errand.again)
    if "failure" not in answer:
        return answer
    try:
        failure = Failure.model_validate(answer["failure"])
        reason = Reason(failure.reason)
    except ValueError as error:
        raise _nonsense(uri, errand) from error
    raise JobError(reason, failure.object, failure.message, failure.next_step)


@contextmanager
def _hidden() -> Iterator[None]:
    """Forbid other processes of this user to read this process's memory and environment while the child lives."""
    libc = CDLL(None)
    before = libc.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(_PR_SET_DUMPABLE, before, 0, 0, 0)


@contextmanager
def _without_secrets() -> Iterator[None]:
    """Remove all variables that libraries do not need from the environment while a child starts and inherits it."""
    kept = dict(os.environ)
    for name in kept:
        if name not in _NEEDED and not name.startswith(_NEEDED_PREFIXES):
            del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(kept)


def _end(group: int | None) -> None:
    """Kill the child and every process that it started."""
    if group:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


def _await_start(answers: Connection) -> None:
    """Wait until the child is about to open the model. A child that dies earlier says nothing about the model."""
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
    call = getattr(import_module(module), name)
    answers.send_bytes(b"ready")
    bound_memory(memory)
    try:
        answer = json.dumps(_answered(call, json.loads(question))).encode()
    except MemoryError:
        answer = json.dumps({"memory": memory}).encode()
    answers.send_bytes(answer)


def _answered(call: Callable[[Json], Json], question: Json) -> Json:
    try:
        return call(question)
    except JobError as error:
        return {"failure": error.failure().to_dict()}
    except MemoryError:
        raise
    except ModuleNotFoundError as error:
        traceback.print_exception(error)
        return {"module": printable(str(error.name), limit=80)}
    except Exception as error:  # noqa: BLE001 - a hostile file may make a library raise anything
        traceback.print_exception(error)
        return {"raised": printable(f"{type(error).__name__}: {error}", limit=300)}


def _died(uri: str, code: int | None, errand: Errand) -> JobError:
    """Return what the end of the child means; the kernel kills with SIGKILL what takes too much memory."""
    message = f"{errand.process} died (exit code {code})."
    return _invalid(uri, message, _more_memory(errand) if code == -signal.SIGKILL else errand.again)


def _more_memory(errand: Errand) -> str:
    return f"Give the Job more memory, or {errand.smaller}."


def _lacks_module(uri: str, module: str, errand: Errand) -> JobError:
    package = module.partition(".")[0]
    return _invalid(
        uri,
        f"{errand.doing} needs the Python module {module}, which is not installed here.",
        f"Use an optimizer image that has {package}; on a machine of your own, `retune doctor` says how to install it.",
    )


def _nonsense(uri: str, errand: Errand) -> JobError:
    return _invalid(uri, f"{errand.process} gave no sensible answer.", errand.again)


def _invalid(uri: str, message: str, next_step: str) -> JobError:
    return JobError(Reason.MODEL_INVALID, uri, message, next_step)
