"""What a hostile model could do in the process that opens it; each takes a question and answers it, or not."""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from ctypes import CDLL
from pathlib import Path
from typing import Any

from optimizer_jobs.models.sandbox import _hidden

Json = Mapping[str, Any]
NOBODY = 65534


def crash(_: Json) -> Json:
    """Die as native code does."""
    os.abort()


def stall(_: Json) -> Json:
    """Never answer."""
    while True:
        pass


def gorge(_: Json) -> Json:
    """Take all memory there is."""
    taken = []
    while True:
        taken.append(bytearray(16 << 20))


def starve(_: Json) -> Json:
    """End as the kernel ends a process that takes too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def lack(_: Json) -> Json:
    """Need a package that is not there."""
    raise ModuleNotFoundError("No module named 'no_such_package.inner'", name="no_such_package.inner")


def flood(_: Json) -> Json:
    """Answer more than anybody wants to hear."""
    return {"words": "x" * (64 << 20)}


def babble(_: Json) -> Json:
    """Answer a failure that is none."""
    return {"failure": {"reason": "NotOne"}}


def trip(_: Json) -> Json:
    """Raise what nobody thought of."""
    raise RecursionError("too deep")


def breed(question: Json) -> Json:
    """Leave a process behind, and say which."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    Path(question["note"]).write_text(str(child.pid))
    return {"pid": child.pid}


def pry(_: Json) -> Json:
    """Look for credentials in the environment that this process started with, and in the one it has."""
    return {"own": Path("/proc/self/environ").read_bytes().decode() + str(dict(os.environ))}


def pry_as_nobody() -> None:
    """Print what a process of the same user, who is not root, reads of this one's environment before and while hidden.

    Hiding is all that is tried here, because this user may not start the interpreter of root's own folders.
    """
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        CDLL(None).prctl(4, 1, 0, 0, 0)  # as any process is that a user starts
    print(_seen_by_child())
    with _hidden():
        print(_seen_by_child())


def _seen_by_child() -> str:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            found = Path(f"/proc/{os.getppid()}/environ").read_bytes()
        except PermissionError:
            found = b"hidden"
        os.write(writer, found.replace(b"\0", b" "))
        os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        return pipe.read()
