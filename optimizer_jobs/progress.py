"""Lines a person reads while a Job works. Never the place for a result: that has its own file and the last line."""

import sys


def say(text: str) -> None:
    """Write one line to stdout at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def step(number: int, total: int, *, text: str, about: str) -> None:
    """Announce a step before it starts, with how long it may take, such as `[2/5] reading data (about 5 s) ...`."""
    say(f"[{number}/{total}] {text} (about {about}) ...")
