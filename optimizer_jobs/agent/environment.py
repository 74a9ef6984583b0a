"""What a pod tells a process beside or in a model server, and where that process leaves the reason of its end."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from optimizer_jobs.errors import JobError
from optimizer_jobs.stores.base import SECRET
from retune.contract.paths import PRIVATE_ADDRESSES_VARIABLE, RESULT_FILE
from retune.contract.results import Reason

BUNDLE_VARIABLE = "MODEL_URI"
"""Environment variable with the URI of a bundle. Retune owns it, see `spec.target.injection`."""
THREADS_VARIABLE = "CPU_LIMIT"
"""Environment variable with the cores of the container, by the downward API: `resourceFieldRef: limits.cpu`."""

_METADATA_VARIABLE = "AWS_EC2_METADATA_DISABLED"
"""What `data.remote` sets, so that no request goes to the machine's metadata service while a bucket is opened."""
_TERMINATION_LOG = Path(RESULT_FILE)
_TERMINATION_LIMIT = 4000


def threads_of(environment: Mapping[str, str]) -> int | None:
    """Return the cores that the container has, at least one; None where nobody says.

    Raises:
        JobError: The variable is no whole number.
    """
    text = environment.get(THREADS_VARIABLE)
    if not text:
        return None
    if not text.isdigit():
        raise JobError(
            Reason.REQUEST_INVALID,
            THREADS_VARIABLE,
            f"it is {text!r:.40}, and not a whole number of cores.",
            "Take it from the downward API: resourceFieldRef: {resource: limits.cpu}.",
        )
    return max(1, int(text))


def sentence_of(error: JobError) -> str:
    """Return an error as a sentence of this pod, where credentials come from the environment and from no Secret."""
    return str(error).replace(SECRET, "this server's environment")


def leave_last_words(words: str) -> None:
    """Leave the reason of a failure where `kubectl describe` and Retune find it, if this is a container."""
    if _TERMINATION_LOG.exists():
        with suppress(OSError):
            _TERMINATION_LOG.write_text(words[:_TERMINATION_LIMIT], encoding="utf-8")


@contextmanager
def buckets_allowed() -> Iterator[None]:
    """Let private addresses be asked: who runs this server has named them. The environment stays as it was after it."""
    before = {name: os.environ.get(name) for name in (PRIVATE_ADDRESSES_VARIABLE, _METADATA_VARIABLE)}
    os.environ.setdefault(PRIVATE_ADDRESSES_VARIABLE, "Allow")
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
