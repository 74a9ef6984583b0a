"""What a store of objects can do, and how it says that it cannot.

A store holds objects under keys, which are plain relative paths. An object is written as a whole or not at all, and
`create` writes it only where there is none yet: the one primitive on which everything that workers share stands.

Model servers import this module, so it needs no library for files on servers.
"""

import random
import re
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from optimizer_jobs.errors import RETRY_EXIT, JobError
from retune.contract.exits import Exit
from retune.contract.results import Reason

KEY_LIMIT = 512
"""Most characters of a key; object stores allow 1024 bytes, of which the store's own prefix takes some."""
SECRET = "the Secret that spec.execution.credentials.secretName names"  # noqa: S105 - a sentence
"""Where credentials are, in the words of Jobs; model servers have others."""
PROBES = "probes"
"""Prefix of the objects that `probe` leaves behind where it may not delete them."""

_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.2, 5.0
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=-]*")


class Kind(StrEnum):
    """What kind of fault a store has."""

    KEY = "key"
    """The key or the address is not a plain one."""
    BUCKET = "bucket"
    """There is no such bucket, or no such folder."""
    FORBIDDEN = "forbidden"
    """The credentials may not do it, or the server must not be connected to."""
    READ_ONLY = "read-only"
    """Reading works, and writing is refused."""
    THROTTLED = "throttled"
    """The server asks for fewer requests, and went on asking."""
    NETWORK = "network"
    """The server cannot be reached, or connections break."""
    SKEW = "skew"
    """The clocks of this machine and of the server differ, so that signatures are refused."""
    QUOTA = "quota"
    """There is no room for more."""
    TOO_LARGE = "too-large"
    """An object is larger than its reader takes."""
    DAMAGED = "damaged"
    """What was read is not what was written."""
    CONDITION = "condition"
    """The server does not honour conditional writes."""


_REASONS = {
    Kind.KEY: Reason.REQUEST_INVALID,
    Kind.THROTTLED: Reason.SOURCE_UNREACHABLE,
    Kind.NETWORK: Reason.SOURCE_UNREACHABLE,
    Kind.QUOTA: Reason.STORE_FULL,
}
_PASSING = {Kind.THROTTLED, Kind.NETWORK}


class StoreError(JobError):
    """A store cannot do what it was asked; the text is a sentence with what to do next."""

    def __init__(self, kind: Kind, uri: str, message: str, next_step: str) -> None:
        """Say what is wrong.

        Args:
            kind: What kind of fault it is.
            uri: Address of the store, or of the object.
            message: What is wrong, as a sentence.
            next_step: What a person should do, as a sentence.
        """
        exit_code = RETRY_EXIT if kind in _PASSING else Exit.BAD_INPUT
        super().__init__(_REASONS.get(kind, Reason.STORE_NOT_WRITABLE), uri, message, next_step, exit_code)
        self.kind = kind

    @property
    def passing(self) -> bool:
        """Whether it may pass by itself, so that it is worth trying again."""
        return self.kind in _PASSING


class AbsentError(LookupError):
    """There is no object with this key."""


@dataclass(frozen=True)
class Stat:
    """What a listing says of an object."""

    key: str
    size: int
    """Bytes."""
    modified: datetime
    """When it was last written, by the clock of the store."""


class Store(Protocol):
    """A store of objects.

    Every method raises StoreError where the store cannot do it. Faults that may pass by themselves are tried again a
    few times before that, with growing pauses.
    """

    @property
    def uri(self) -> str:
        """The address of the store, for messages."""

    def read(self, key: str, *, limit: int) -> bytes:
        """Return a small object; raises AbsentError, and StoreError (TOO_LARGE) above `limit` bytes."""

    def fetch(self, key: str, path: Path, *, limit: int) -> int:
        """Copy a large object into the file `path`, whole or not at all, and return its size in bytes.

        A copy that breaks off is resumed where it ended, within the call and by the next call for the same `path`.
        Raises AbsentError, and StoreError (TOO_LARGE) above `limit` bytes, or DAMAGED where it changed meanwhile.
        """

    def create(self, key: str, content: bytes | Path) -> bool:
        """Write an object unless there is one, and return whether this call has written it.

        Of several callers at once exactly one gets True, with one exception: where the answer to the very write was
        lost on its way and the write was repeated, the writer gets False. Who must know puts a token of his own into
        the content and reads it back.
        """

    def replace(self, key: str, content: bytes | Path) -> None:
        """Write an object, whether there is one or not."""

    def stats(self, prefix: str, *, after: str | None = None) -> Iterator[Stat]:
        """Yield the objects whose keys begin with `prefix`, in order of their keys (by bytes).

        Args:
            prefix: Beginning of the keys, which may end within a name; empty yields all.
            after: Yield only keys after this one.
        """

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are not there are no error."""


def checked(key: str) -> str:
    """Return a key that is a plain relative path; raises StoreError (KEY) for any other.

    Its names are of letters, digits and `. - _ =` and begin with a letter, a digit or `_`, so that a key is the same
    file on every volume and the same object on every server, and never leaves the store.
    """
    if len(key) <= KEY_LIMIT and all(_SEGMENT.fullmatch(segment) for segment in key.split("/")):
        return key
    raise StoreError(
        Kind.KEY,
        repr(key[:KEY_LIMIT]),
        f"a key is a plain relative path of at most {KEY_LIMIT} letters, digits and . - _ =",
        "Name a path without '..', empty parts and special characters.",
    )


def checked_prefix(prefix: str) -> str:
    """Return the beginning of keys; raises StoreError (KEY) where no key can begin so."""
    if prefix:
        checked(prefix.removesuffix("/"))
    return prefix


def pause(attempt: int) -> None:
    """Wait before another attempt: twice as long each time, and not at the same moment as others who wait."""
    longest = min(_LONGEST_PAUSE_SECONDS, _PAUSE_SECONDS * 2**attempt)
    time.sleep(random.uniform(longest / 2, longest))


@dataclass(frozen=True)
class Conditional:
    """Whether a store honours conditional creates."""

    honoured: bool
    words: str
    """What was found, as a sentence."""


def probe(store: Store) -> Conditional:
    """Find out whether a store honours conditional creates: an object is created twice, and the second must be refused.

    Where they are not honoured, nothing takes their place. A lock that is made of a unique token and a listing ("write
    my claim, list, the smallest claim wins") holds only while no writer pauses between its last look and its write, and
    a container that shares its processor pauses as long as it likes; and the write itself still replaces what another
    one wrote. So a study there would lose trials without a word, and `require_conditional` refuses instead. Bundles
    need no condition: two writers of one digest write the same files.

    Raises:
        StoreError: The store cannot be written, or cannot be reached.
    """
    key = f"{PROBES}/{uuid.uuid4().hex}"
    first, second = b"first", b"second"
    store.create(key, first)  # False where its answer was lost, which does not matter here
    refused = not store.create(key, second)
    try:
        kept = store.read(key, limit=len(second)) == first
    except AbsentError:
        return Conditional(honoured=False, words=f"{store.uri} does not show an object that was just written to it.")
    with suppress(StoreError):  # rights to delete are not needed
        store.delete([key])
    if refused and kept:
        return Conditional(honoured=True, words=f"{store.uri} refuses to create an object that exists.")
    return Conditional(
        honoured=False,
        words=f"{store.uri} replaces an object that exists, although it was asked to keep it.",
    )


def require_conditional(store: Store) -> None:
    """Refuse a store on which workers would overwrite each other's trials; raises StoreError (CONDITION)."""
    found = probe(store)
    if not found.honoured:
        raise StoreError(
            Kind.CONDITION,
            store.uri,
            found.words,
            "Use a server that honours If-None-Match (S3, Azure) or ifGenerationMatch (Google), or a pvc:// store.",
        )
