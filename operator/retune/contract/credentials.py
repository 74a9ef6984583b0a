"""Which keys of a Secret reach a Job, as environment variables of the same names.

A Secret often holds more than what a Job needs. No other key than these may ever be handed to one.
"""

from collections.abc import Mapping
from typing import Final

_TRUST: Final = ("CA_CERTIFICATES",)

_S3: Final = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
)
_GS: Final = ("GOOGLE_CREDENTIALS",)
_AZ: Final = (
    "AZURE_STORAGE_ACCOUNT",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_SERVICE_ENDPOINT",
)
_MLFLOW: Final = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
)
_OCI: Final = (
    ".dockerconfigjson",
    "REGISTRY_HOST",
    "REGISTRY_USERNAME",
    "REGISTRY_PASSWORD",
    "REGISTRY_TOKEN",
    "REGISTRY_PLAIN_HTTP",
    "REGISTRY_SIGNING_KEY",
)

CREDENTIAL_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "s3": (*_S3, *_TRUST),
    "gs": (*_GS, *_TRUST),
    "az": (*_AZ, *_TRUST),
    "https": ("HTTPS_TOKEN", "HTTPS_HOST", *_TRUST),
    "mlflow": (*_MLFLOW, *_S3, *_GS, *_TRUST),
    "oci": (*_OCI, *_TRUST),
}
"""Keys by the scheme of the URIs that they are for. A registry may say that its files lie in a bucket."""

REGISTRY_KEYS: Final[Mapping[str, tuple[str, ...]]] = {"mlflow": (*_MLFLOW, *_TRUST), "oci": (*_OCI, *_TRUST)}
"""Keys of the Secret that is a registry's alone, by the scheme of its URI."""
