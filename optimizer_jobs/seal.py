"""Seals of records: what a Job reads back from the store is believed only if it was sealed by this run's own Jobs.

The store is a volume that others may be able to write to. A record without the right seal is as good as none. Outside a
cluster there is no key, and a seal shows damage only.
"""

import hashlib
import hmac
import json
import os
from dataclasses import dataclass
from typing import Any

from retune.contract.paths import SEAL_VARIABLE, STUDY_SEAL_VARIABLE

_RECORD, _SEAL = "record", "seal"


@dataclass(frozen=True)
class Seal:
    """A key by which records are sealed."""

    key: str

    def of(self, record: Any) -> str:
        """Return the seal of a record, which is anything that JSON can hold."""
        text = json.dumps(record, sort_keys=True, separators=(",", ":"))
        return hmac.new(self.key.encode(), text.encode(), hashlib.sha256).hexdigest()

    def fits(self, record: Any, seal: Any) -> bool:
        """Return whether a record has this very seal."""
        return isinstance(seal, str) and hmac.compare_digest(self.of(record).encode(), seal.encode())

    def sealed(self, record: Any) -> bytes:
        """Return a record with its seal, as the content of a file."""
        return json.dumps({_RECORD: record, _SEAL: self.of(record)}).encode()

    def opened(self, content: bytes) -> Any | None:
        """Return the record in a file's content; None where it is damaged, or was not sealed by this key."""
        try:
            document = json.loads(content)
            record, seal = document[_RECORD], document[_SEAL]
        except (ValueError, LookupError, TypeError, RecursionError):
            return None
        return record if self.fits(record, seal) else None


def own_seal() -> Seal:
    """Return the seal of what this Job records for its own next start."""
    return Seal(os.environ.get(SEAL_VARIABLE, ""))


def study_seal() -> Seal:
    """Return the seal of the trials of this run's search."""
    return Seal(os.environ.get(STUDY_SEAL_VARIABLE, ""))
