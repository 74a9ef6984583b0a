"""Sealed records of a run: what a Job has come to, which its next start reads back and believes only with its seal."""

from typing import Any

from optimizer_jobs.seal import Seal
from optimizer_jobs.stores.base import Kind, Store, StoreError
from retune.contract.paths import leftover_run

_LIMIT = 1 << 20


def run_key(run: str, *names: str) -> str:
    """Return the key of what a run has written, below the folder of its resource; without names, that of its folder."""
    return "/".join((leftover_run(run), *names))


def read_record(store: Store, key: str, seal: Seal) -> Any | None:
    """Return a record; None where it is damaged, larger than any record, or was not sealed by this key.

    Raises:
        AbsentError: There is none.
        StoreError: The store cannot be read.
    """
    try:
        content = store.read(key, limit=_LIMIT)
    except StoreError as error:
        if error.kind is not Kind.TOO_LARGE:
            raise
        return None
    return seal.opened(content)
