"""Run one command of the contract, and always end with a result document and an exit code.

Works the same in a Job and by hand. Never ends without a result, unless a signal stops it.
"""

import argparse
import logging
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import NoReturn

from pydantic import ValidationError

from optimizer_jobs.data.uris import resolve
from optimizer_jobs.errors import RETRY_EXIT, JobError, printable, scratch_error, store_error
from optimizer_jobs.progress import say
from optimizer_jobs.stores.opening import is_bucket
from retune.contract.exits import Exit
from retune.contract.paths import REQUEST_FILE, RESULT_FILE
from retune.contract.requests import AnyRequest, parse_request
from retune.contract.results import Failure, JobResult, Reason, encode_result

COMMANDS = {
    "inspect": "optimizer_jobs.commands.inspection.command:run",
    "survey": "optimizer_jobs.commands.survey:run",
    "render": "optimizer_jobs.commands.render:run",
    "suggest": "optimizer_jobs.commands.suggest.command:run",
    "baseline": "optimizer_jobs.commands.baseline:run",
    "gather": "optimizer_jobs.commands.gather.command:run",
    "search": "optimizer_jobs.commands.search.command:run",
    "judge": "optimizer_jobs.commands.judge.command:run",
    "verify": "optimizer_jobs.commands.verify.command:run",
    "check": "optimizer_jobs.commands.check.command:run",
    "register": "optimizer_jobs.commands.register.command:run",
}
"""`module:function` by command, imported when it is run; the function takes the request and returns the result."""

_REQUEST_LIMIT = 1 << 20


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command of a request file and return the exit code; the result is the last line of stdout."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(stream=sys.stdout, format="%(message)s")
    logging.getLogger("optimizer_jobs").setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, _stop)
    result, code = execute(Path(options.request))
    _deliver(encode_result(result), Path(options.result))
    return code


def execute(request: Path) -> tuple[JobResult, int]:
    """Run the command in a request file, and return its result and the exit code."""
    store = str(request)
    try:
        document = _load(request)
        store = getattr(document, "store", store)
        return _command(document), Exit.DONE
    except JobError as error:
        return error.failure(), int(error.exit)
    except OSError as error:
        of_store = None if is_bucket(store) else store_error(error, uri=store)  # a bucket's faults are no OSErrors
        job_error = scratch_error(error, store=_folder_of(store)) or of_store
        return (job_error.failure(), int(job_error.exit)) if job_error is not None else _unexpected(error)
    except MemoryError:
        return _out_of_memory(), RETRY_EXIT
    except ModuleNotFoundError as error:
        return _lacks_module(error), Exit.BAD_INPUT
    except Exception as error:  # noqa: BLE001 - whatever it is, the operator must hear of it
        return _unexpected(error)


def _folder_of(store: str) -> str | None:
    """Return the folder of a store on this machine; None where the request names no store."""
    try:
        return str(resolve(store).local)
    except JobError:
        return None


_CURE = "Correct these fields; where the image does not know one, use the optimizer image of the operator's release."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m optimizer_jobs", description=__doc__)
    parser.add_argument("--request", default=REQUEST_FILE, help="JSON file with the request (default: %(default)s)")
    parser.add_argument("--result", default=RESULT_FILE, help="file for the JSON result (default: %(default)s)")
    return parser


def _load(path: Path) -> AnyRequest:
    try:
        with path.open("rb") as file:
            return parse_request(file.read(_REQUEST_LIMIT))
    except OSError as error:
        raise JobError(
            Reason.REQUEST_INVALID, str(path), f"the request cannot be read ({error.strerror}).", "Check --request."
        ) from error
    except ValidationError as error:
        raise JobError(Reason.REQUEST_INVALID, str(path), _faults(error), _CURE) from error


def _faults(error: ValidationError) -> str:
    faults = error.errors(include_url=False, include_input=False)
    shown = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults[:5])
    return f"the request has {len(faults)} wrong fields: {shown}."


def _command(request: AnyRequest) -> JobResult:
    module, _, function = COMMANDS[request.command].partition(":")
    say(f"{request.command} for {request.resource}")
    result: JobResult = getattr(import_module(module), function)(request)
    return result


def _unexpected(error: Exception) -> tuple[Failure, int]:
    traceback.print_exception(error)
    kind = type(error).__name__
    failure = JobError(
        Reason.UNEXPECTED, kind, f"the Job broke: {error}.", "It is tried again; if it stays, report its log as a bug."
    )
    return failure.failure(), RETRY_EXIT


def _lacks_module(error: ModuleNotFoundError) -> Failure:
    traceback.print_exception(error)
    return JobError(
        Reason.UNEXPECTED,
        f"Python module {error.name}",
        "it is not installed here.",
        "Use the optimizer's image; on a machine of your own, `retune doctor` says how to install it.",
    ).failure()


def _out_of_memory() -> Failure:
    return JobError(
        Reason.UNEXPECTED,
        "memory",
        "the Job ran out of memory.",
        "Raise spec.execution.resources.limits.memory, or give less data.",
    ).failure()


def _deliver(payload: bytes, path: Path) -> None:
    try:
        path.write_bytes(payload)
    except OSError as error:
        sys.stderr.write(f"result not written to {printable(str(path), limit=200)}: {error.strerror}\n")
    say(payload.decode())


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    """Exit at once through SystemExit, so that clean-up code runs; the operator starts another pod."""
    raise SystemExit(128 + number)
