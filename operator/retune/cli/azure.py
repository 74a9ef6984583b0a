"""Read a blob of Azure, or make a link to it, with the variables by which `az storage` knows whoever asks."""

import datetime as dt
import os
from typing import Any

ACCOUNT, KEY, TOKEN, ENDPOINT = (
    "AZURE_STORAGE_ACCOUNT",
    "AZURE_STORAGE_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_STORAGE_SERVICE_ENDPOINT",
)
LOGIN = f"set {ACCOUNT}, and {KEY} or {TOKEN}, as for `az storage`"
"""What to do about a refusal."""
_API_VERSION = "2023-11-03"
"""Version of Azure's protocol, as in the Jobs: every cloud and emulator understands it."""
_CONNECT_SECONDS = 20


class AzureSystem:
    """What of fsspec's interface the command line needs, for paths az://CONTAINER/BLOB."""

    def __init__(self) -> None:
        """Read the variables; raises ImportError without the library, and PermissionError without a variable."""
        from azure.storage.blob import BlobServiceClient, ExponentialRetry  # noqa: PLC0415 - an optional library

        self._account, self._key = _variable(ACCOUNT), os.environ.get(KEY)
        self._service = BlobServiceClient(
            os.environ.get(ENDPOINT) or f"https://{self._account}.blob.core.windows.net",
            _credential(self._account, self._key),
            retry_policy=ExponentialRetry(initial_backoff=1, increment_base=2, retry_total=2, random_jitter_range=1),
            connection_timeout=_CONNECT_SECONDS,
            api_version=_API_VERSION,
        )

    def cat_file(self, uri: str, *, start: int, end: int) -> bytes:
        """Return bytes of a blob; raises FileNotFoundError and PermissionError."""
        return bytes(self._asked(uri, lambda blob: blob.download_blob(offset=start, length=end - start).readall()))

    def ls(self, uri: str, *, detail: bool) -> list[dict[str, Any]]:
        """Return files and folders directly in a folder, by fsspec's keys; raises PermissionError."""
        container, _, prefix = uri.removeprefix("az://").partition("/")
        begins = f"{prefix.rstrip('/')}/" if prefix else ""
        there = self._service.get_container_client(container)
        found = self._refused(uri, lambda: list(there.walk_blobs(name_starts_with=begins, delimiter="/")))
        return [
            {
                "name": f"{container}/{blob.name}",
                "type": "directory" if blob.name.endswith("/") else "file",
                "size": getattr(blob, "size", 0),
                "LastModified": getattr(blob, "last_modified", None),
            }
            for blob in found
        ]

    def get_file(self, uri: str, path: str) -> None:
        """Copy a blob to a path of this machine; raises FileNotFoundError and PermissionError."""
        with open(path, "wb") as file:  # noqa: PTH123 - fsspec's interface has texts
            self._asked(uri, lambda blob: blob.download_blob().readinto(file))

    def info(self, uri: str) -> None:
        """Raise FileNotFoundError or PermissionError where a blob cannot be read."""
        self._asked(uri, lambda blob: blob.get_blob_properties())

    def sign(self, uri: str, *, expiration: int, content_type: str) -> str:
        """Return an address that reads this one blob for `expiration` seconds; raises PermissionError without a key."""
        from azure.storage.blob import BlobSasPermissions, generate_blob_sas  # noqa: PLC0415 - an optional library

        if not self._key:
            raise PermissionError(f"a link is signed with {KEY}; {TOKEN} may do more than read one file")
        blob = self._blob(uri)
        token = generate_blob_sas(
            self._account,
            blob.container_name,
            blob.blob_name,
            account_key=self._key,
            permission=BlobSasPermissions(read=True),
            expiry=dt.datetime.now(dt.UTC) + dt.timedelta(seconds=expiration),
            content_type=content_type,
        )
        return f"{blob.url}?{token}"

    def _asked(self, uri: str, ask: Any) -> Any:
        return self._refused(uri, lambda: ask(self._blob(uri)))

    @staticmethod
    def _refused(uri: str, ask: Any) -> Any:
        from azure.core.exceptions import HttpResponseError  # noqa: PLC0415 - an optional library

        try:
            return ask()
        except HttpResponseError as error:
            if error.status_code == 404:
                raise FileNotFoundError(uri) from error
            if error.status_code in {401, 403, 409}:
                raise PermissionError(
                    f"{error.status_code} {getattr(error, 'error_code', '') or ''}".strip()
                ) from error
            raise

    def _blob(self, uri: str) -> Any:
        container, _, name = uri.removeprefix("az://").partition("/")
        return self._service.get_blob_client(container, name)


def _variable(name: str) -> str:
    if not os.environ.get(name):
        raise PermissionError(f"{name} is not set")
    return os.environ[name]


def _credential(account: str, key: str | None) -> Any:
    from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential  # noqa: PLC0415 - an optional library

    if key:
        return AzureNamedKeyCredential(account, key)
    return AzureSasCredential(_variable(TOKEN))
