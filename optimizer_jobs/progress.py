"""Lines for the person who watches a running Job. Results are not written here: they have a file and the last line."""

import sys


def say(text: str) -> None:
    """Write a line to stdout and flush it."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def step(number: int, total: int, *, text: str, about: str) -> None:
    """Announce a step before it starts, such as `[2/5] reading data (about 5 s) ...`."""
    say(f"[{number}/{total}] {text} (about {about}) ...")


def duration_words(seconds: float) -> str:
    """Return a duration in the unit that fits it, such as `45 s`, `2.5 min` or `4 h`."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.2g} {unit}" if seconds < 10 * size else f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
