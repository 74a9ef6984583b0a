"""Open the file systems of s3://, gs://, az:// and https:// URIs with credentials from the environment.

In the cluster, the environment comes from the Secret that the spec names. Never uses the credentials of the machine
itself, and never follows a redirect to another host.
"""

import base64
import json
import os
import re
import ssl
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem

from optimizer_jobs.data.addresses import check_endpoint, check_host
from optimizer_jobs.data.transfer import CONNECT_SECONDS, SILENCE_SECONDS, CredentialsError, authorities
from retune.contract.credentials import CREDENTIAL_KEYS
from retune.contract.paths import CREDENTIALS_VARIABLE

CREDENTIALS: Mapping[str, str] = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_CREDENTIALS, the JSON key of a service account",
    "az": "AZURE_STORAGE_ACCOUNT, and AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN",
    "https": "HTTPS_TOKEN, and in HTTPS_HOST the host that it is for",
    "mlflow": "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN",
}
"""The environment variables that a scheme reads its credentials from, in words."""

_SHOWN: Mapping[str, tuple[str, ...]] = {
    "gs": ("GOOGLE_CREDENTIALS",),
    "az": ("AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_FEDERATED_TOKEN_FILE"),
    "https": ("HTTPS_TOKEN",),
    "mlflow": ("MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_USERNAME"),
}
"""Variables any of which means that a scheme has credentials."""
_KEYS = tuple(dict.fromkeys(key for keys in CREDENTIAL_KEYS.values() for key in keys))
"""What a Secret with credentials may hold."""
_S3_ENDPOINTS, _GS_ENDPOINT = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"), "STORAGE_EMULATOR_HOST"
_AZ_ENDPOINT = "AZURE_STORAGE_SERVICE_ENDPOINT"
"""Variables by which the libraries ask another server than the cloud's own."""
_ATTEMPTS = 3
_BLOCK = 8 << 20


def open_system(scheme: str, host: str, *, writes: bool = False) -> AbstractFileSystem:
    """Return the file system of a scheme.

    Args:
        scheme: `s3`, `gs`, `az` or `https`.
        host: The server of an https URI, and otherwise the bucket or container.
        writes: Whether it is a store, which is written to; the rest is opened with as few rights as it needs.

    Raises:
        RefusedError: The host is an address that Jobs must not connect to.
        CredentialsError: The credentials in the environment cannot be used, or their Secret is missing.
    """
    check_secret()
    return _SYSTEMS[scheme](host, "read_write" if writes else "read_only")


def has_credentials(scheme: str) -> bool:
    """Return whether the environment has credentials for a scheme."""
    if scheme == "s3":
        return _aws_credentials() is not None
    return any(os.environ.get(variable) for variable in _SHOWN[scheme])


def check_secret() -> None:
    """Refuse to ask any server while the Secret is missing: what a server says to a stranger explains nothing.

    Raises CredentialsError.
    """
    secret = os.environ.get(CREDENTIALS_VARIABLE)
    if secret and not any(os.environ.get(key) for key in _KEYS):
        raise CredentialsError(f"Secret {secret} does not exist in this namespace, or has none of {', '.join(_KEYS)}.")


def _s3(bucket: str, rights: str) -> AbstractFileSystem:  # noqa: ARG001 - one account for all buckets, with its own rights
    from s3fs import S3FileSystem

    from optimizer_jobs.data.web import CheckedResolver

    for variable in _S3_ENDPOINTS:
        check_endpoint(variable)
    client = {"region_name": os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION"), "verify": _ca_file()}
    return S3FileSystem(
        anon=not has_credentials("s3"),
        client_kwargs={name: value for name, value in client.items() if value},
        config_kwargs={
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": SILENCE_SECONDS,
            "connector_args": {"resolver": CheckedResolver()},
            "retries": {"max_attempts": _ATTEMPTS, "mode": "standard"},
        },
        default_block_size=_BLOCK,
        skip_instance_cache=True,
    )


def _aws_credentials() -> object | None:
    """Return the credentials that AWS's library finds, without asking the machine's metadata service."""
    from botocore.session import Session

    os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
    credentials: object | None = Session().get_credentials()
    return credentials


def _gs(bucket: str, rights: str) -> AbstractFileSystem:  # noqa: ARG001 - one account for all buckets
    from gcsfs.core import GCSFileSystem

    check_endpoint(_GS_ENDPOINT)
    return GCSFileSystem(
        token=_service_account(rights) or "anon", block_size=_BLOCK, timeout=SILENCE_SECONDS, skip_instance_cache=True
    )


def _service_account(rights: str) -> object | None:
    """Return the environment's service account with these rights. Tokens come from Google only, whatever it names."""
    from google.oauth2.service_account import Credentials

    key = os.environ.get("GOOGLE_CREDENTIALS")
    if not key:
        return None
    try:
        info = json.loads(key) | {"token_uri": "https://oauth2.googleapis.com/token"}
        scopes = [f"https://www.googleapis.com/auth/devstorage.{rights}"]
        account: object = Credentials.from_service_account_info(info, scopes=scopes)  # type: ignore[no-untyped-call]
    except (ValueError, TypeError) as error:
        raise CredentialsError("GOOGLE_CREDENTIALS is not the JSON key of a service account.") from error
    return account


def _az(container: str, rights: str) -> AbstractFileSystem:  # noqa: ARG001 - one account for all, with its own rights
    from optimizer_jobs.data.containers import Account, AzureSystem

    check_endpoint(_AZ_ENDPOINT)
    name, endpoint = os.environ.get("AZURE_STORAGE_ACCOUNT", ""), os.environ.get(_AZ_ENDPOINT)
    if not re.fullmatch("[a-z0-9]{3,24}", name):
        raise CredentialsError(
            "AZURE_STORAGE_ACCOUNT, the name of the storage account that has the container, is none."
        )
    return AzureSystem(Account(endpoint or f"https://{name}.blob.core.windows.net", _azure_credential(name)))


def _azure_credential(account: str) -> Any:
    """Return what Azure is to know the Job by: a key before a token, and both before the pod's own identity."""
    from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential

    from optimizer_jobs.data.identity import TOKEN_FILE, FederatedCredential

    if key := os.environ.get("AZURE_STORAGE_KEY"):
        try:
            base64.b64decode(key, validate=True)
        except ValueError as error:
            raise CredentialsError("AZURE_STORAGE_KEY is no key of a storage account, which is in Base64.") from error
        return AzureNamedKeyCredential(account, key)
    if token := os.environ.get("AZURE_STORAGE_SAS_TOKEN"):
        return AzureSasCredential(token)
    return FederatedCredential() if os.environ.get(TOKEN_FILE) else None


def _https(host: str, rights: str) -> AbstractFileSystem:  # noqa: ARG001 - nothing is written there
    from fsspec.implementations.http import HTTPFileSystem

    from optimizer_jobs.data.web import open_client

    check_host(host.partition(":")[0])
    return HTTPFileSystem(
        get_client=open_client,
        headers={"Accept-Encoding": "identity"} | _token(host),
        block_size=0,
        skip_instance_cache=True,
    )


def _token(host: str) -> dict[str, str]:
    """Return the header with the token, but only for the host that the token is for."""
    token = os.environ.get("HTTPS_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token and os.environ.get("HTTPS_HOST") == host else {}


def _ca_file() -> str | None:
    """Return a file with all trusted certificates, or None without added ones; AWS's library wants a file."""
    extra = authorities()
    if not extra:
        return None
    usual = ssl.get_default_verify_paths().cafile
    path = Path(tempfile.gettempdir()) / f"trusted-{os.getpid()}.pem"
    path.write_text("\n".join([Path(usual).read_text() if usual else "", extra]))
    return str(path)


_SYSTEMS: dict[str, Callable[[str, str], AbstractFileSystem]] = {"s3": _s3, "gs": _gs, "az": _az, "https": _https}
