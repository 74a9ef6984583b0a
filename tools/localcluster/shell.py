"""Running programs, telling progress, and locks: the few things every other module needs.

A failed program always ends in a `ClusterError` that names the program and shows the end of what it printed.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

SHOWN_LINES = 25


class ClusterError(Exception):
    """Something a person has to know: what is wrong, where, and what to do next."""


def say(text: str) -> None:
    """Tell one step of progress on standard error, so that standard output stays for results."""
    print(f"[localcluster] {text}", file=sys.stderr, flush=True)


def tail(text: str, *, lines: int = SHOWN_LINES) -> str:
    """The last lines of a text, indented."""
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines()[-lines:])


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    check: bool = True,
) -> str:
    """Run a program to its end and return its standard output.

    Raises ClusterError when it cannot be started, or when it fails and `check` holds.
    """
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(words, env=env, cwd=cwd, input=stdin, capture_output=True, text=True, check=False)
    except OSError as error:
        raise ClusterError(f"{words[0]} cannot be started: {error}") from error
    if check and done.returncode != 0:
        shown = tail(done.stderr or done.stdout)
        raise ClusterError(f"`{' '.join(words)}` failed with exit code {done.returncode}:\n{shown}")
    return done.stdout


def run_logged(
    argv: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> None:
    """Run a long program with its output in a log file; the error shows the log's end and path."""
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [str(word) for word in argv]
    with log.open("wb") as sink:
        done = subprocess.run(
            words,
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode != 0:
        shown = tail(log.read_text(errors="replace"))
        raise ClusterError(f"{words[0]} failed with exit code {done.returncode}; the end of {log}:\n{shown}")


def wait_for(ready: Callable[[], bool], *, what: str, seconds: float, hint: Callable[[], str] | None = None) -> None:
    """Poll until `ready()` holds; raises ClusterError with the hint after `seconds`."""
    end = time.monotonic() + seconds
    pause = 0.02
    while not ready():
        if time.monotonic() > end:
            more = f"\n{hint()}" if hint else ""
            raise ClusterError(f"{what} did not happen within {seconds:.0f} s{more}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.25)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file; says so when another process holds it. Ends with the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another command that holds {path}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def write_if_changed(path: Path, text: str, *, mode: int = 0o600) -> bool:
    """Write a file atomically unless it already has this text; returns whether it changed."""
    if path.exists() and path.read_text() == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.touch(mode=mode)
    fresh.chmod(mode)
    fresh.write_text(text)
    fresh.replace(path)
    return True
