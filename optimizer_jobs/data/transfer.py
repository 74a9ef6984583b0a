"""What every transfer from elsewhere keeps to: time limits, and whose certificates and credentials count."""

CA_VARIABLE = "CA_CERTIFICATES"
"""Environment variable with certificates, as PEM text, that are trusted besides the usual ones."""

TIME_LIMIT_SECONDS = 1800.0
"""Time one file may take to arrive."""

CONNECT_SECONDS = 20.0
"""Time a server may take to take a connection."""

SILENCE_SECONDS = 60.0
"""Time a server may send nothing."""


class CredentialsError(ValueError):
    """What the environment has as credentials cannot be used; the message is a sentence."""
