"""Lines for the person who watches a running Job. Results are not written here: they have a file and the last line."""

import sys


def say(text: str) -> None:
    """Write a line to stdout and flush it."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def step(number: int, total: int, *, text: str, about: str) -> None:
    """Announce a step before it starts, such as `[2/5] reading data (about 5 s) ...`."""
    say(f"[{number}/{total}] {text} (about {about}) ...")
