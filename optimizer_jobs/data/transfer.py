"""What all transfers from servers share: time limits, trusted certificates, the credentials error."""

import os

from retune.contract.paths import AUTHORITIES_VARIABLE

CA_VARIABLE = "CA_CERTIFICATES"
"""Environment variable with certificates, as PEM text, that are trusted besides the usual ones."""

TIME_LIMIT_SECONDS = 1800.0
"""Longest time of one file's transfer."""

CONNECT_SECONDS = 20.0
"""Longest time for a server to accept a connection."""

SILENCE_SECONDS = 60.0
"""Longest time in which a server may send nothing."""


class CredentialsError(ValueError):
    """The credentials in the environment cannot be used; the message is a sentence."""


def authorities() -> str:
    """Return certificates, as PEM text, that are trusted besides the usual ones; empty where there are none."""
    return "\n".join(text for name in (CA_VARIABLE, AUTHORITIES_VARIABLE) if (text := os.environ.get(name)))
