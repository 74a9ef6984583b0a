"""`python -m optimizer_jobs.warm.ask --host NAME`: the Job of a check, which has a check host do the work.

Whatever the host cannot or will not do is done here, as without a host, and the log says why. Only a verdict is taken
from a host, and only the one that was asked for: a failure there may be the host's own.
"""

import argparse
import json
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from optimizer_jobs.warm import messages
from retune.contract.paths import CHECK_HOST_PORT, REQUEST_FILE, RESULT_FILE, RESULT_LIMIT

Json = dict[str, Any]

_OK = 200
_CONNECT_SECONDS = 5.0
_PATIENCE_SECONDS = messages.WAIT_SECONDS + messages.RUN_SECONDS + 15.0
_ALIVE = ((socket.TCP_KEEPIDLE, 10), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))
"""A host whose node has gone is noticed after 25 s."""


class NoVerdictError(Exception):
    """Why the host has no verdict, as a clause."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Have the host check the window, or do it here; return the exit code. The result is the last line of stdout."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _stop)
    try:
        payload = _verdict(options.host, options.port, Path(options.request))
        Path(options.result).write_bytes(payload)
    except (NoVerdictError, OSError) as why:
        _say(f"checked here, not by host {options.host}: {why}")
        from optimizer_jobs.run import main as alone

        return alone(["--request", options.request, "--result", options.result])
    _say(payload.decode())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m optimizer_jobs.warm.ask", description=__doc__)
    parser.add_argument("--host", required=True, help="name of the check host")
    parser.add_argument("--port", type=int, default=CHECK_HOST_PORT, help="its port (default: %(default)s)")
    parser.add_argument("--request", default=REQUEST_FILE, help="JSON file with the request (default: %(default)s)")
    parser.add_argument("--result", default=RESULT_FILE, help="file for the JSON result (default: %(default)s)")
    return parser


def _verdict(host: str, port: int, request: Path) -> bytes:
    """Return the result that the host has for a request; raises NoVerdictError, or OSError, with the reason."""
    with request.open("rb") as file:
        asked = file.read(messages.REQUEST_BYTES + 1)
    if len(asked) > messages.REQUEST_BYTES:
        raise NoVerdictError(f"the request has more than {messages.REQUEST_BYTES} bytes")
    status, payload = _answer(host, port, asked)
    answer = _object(payload, "its answer")
    if status != _OK:
        raise NoVerdictError(_line(answer.get("refused") or f"it answers with status {status}"))
    sys.stdout.write(str(answer.get("log", "")))
    return _believed(str(answer.get("result", "")).encode(), asked)


def _answer(host: str, port: int, asked: bytes) -> tuple[int, bytes]:
    """Return status and body of the host's answer; by hand, as importing http.client is a quarter of the Job."""
    with socket.create_connection((host, port), _CONNECT_SECONDS) as connection:
        connection.settimeout(_PATIENCE_SECONDS)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _ALIVE:
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
        connection.sendall(_head(host, len(asked)) + asked)
        with connection.makefile("rb") as answered:
            answer = answered.read(messages.ANSWER_BYTES)
    head, end, body = answer.partition(b"\r\n\r\n")
    status = head.split(b" ", 2)[1:2]
    if not (end and status and status[0].isdigit()):
        raise NoVerdictError("it broke off")
    return int(status[0]), body


def _head(host: str, length: int) -> bytes:
    lines = (
        f"POST {messages.CHECK_PATH} HTTP/1.1",
        f"Host: {host}",
        f"Content-Length: {length}",
        f"{messages.RELEASE_HEADER}: {messages.release()}",
        f"{messages.SETTINGS_HEADER}: {json.dumps(messages.settings())}",
    )
    return "\r\n".join((*lines, "", "")).encode()


def _believed(payload: bytes, asked: bytes) -> bytes:
    """Return a result as it came, once it is a check's, of this window and champion, and fits."""
    result, request = _object(payload, "its result"), _object(asked, "the request")
    known = {
        "kind": "Check",
        "specHash": request["specHash"],
        "window": request["window"]["index"],
        "championDigest": request["champion"]["digest"],
    }
    if len(payload) > RESULT_LIMIT or any(result.get(name) != value for name, value in known.items()):
        raise NoVerdictError("its result is not one of this check")
    return payload


def _object(payload: bytes, what: str) -> Json:
    try:
        found = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise NoVerdictError(f"{what} is no JSON") from error
    if not isinstance(found, dict):
        raise NoVerdictError(f"{what} is no JSON object")
    return found


def _line(words: object) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in str(words)[:500])


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _stop(number: int, _frame: FrameType | None) -> NoReturn:
    """Exit at once through SystemExit; the operator starts another pod."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
