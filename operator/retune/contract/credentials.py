"""Which keys of a Secret reach a Job, as environment variables of the same names.

A Secret often holds more than what a Job needs. No other key than these may ever be handed to one.
"""

from collections.abc import Mapping
from typing import Final

_TRUST: Final = ("CA_CERTIFICATES",)

CREDENTIAL_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "s3": (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
        *_TRUST,
    ),
    "gs": ("GOOGLE_CREDENTIALS", *_TRUST),
    "https": ("HTTPS_TOKEN", "HTTPS_HOST", *_TRUST),
}
"""Keys by the scheme of the URIs that they are for."""
