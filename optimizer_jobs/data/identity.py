"""Tokens of Microsoft Entra for a service account of Kubernetes (workload identity).

Only the token file that AZURE_FEDERATED_TOKEN_FILE names is shown to Entra, and no machine is asked for an identity.
"""

import os
import time
from pathlib import Path
from typing import Any

from azure.core.credentials import AccessToken

from optimizer_jobs.data.addresses import check_endpoint
from optimizer_jobs.data.transfer import CredentialsError
from optimizer_jobs.data.web import open_client

TOKEN_FILE, CLIENT, TENANT = "AZURE_FEDERATED_TOKEN_FILE", "AZURE_CLIENT_ID", "AZURE_TENANT_ID"
"""Variables that Microsoft's webhook gives to pods with workload identity."""

_AUTHORITY, _USUAL_AUTHORITY = "AZURE_AUTHORITY_HOST", "https://login.microsoftonline.com/"
_KIND = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


class FederatedCredential:
    """Gives tokens of Entra in exchange for the token of the pod's service account, which is read anew each time."""

    def __init__(self) -> None:
        """Read the variables; raises CredentialsError where one is missing, and RefusedError of an authority."""
        check_endpoint(_AUTHORITY)
        missing = [name for name in (CLIENT, TENANT) if not os.environ.get(name)]
        if missing:
            raise CredentialsError(f"{TOKEN_FILE} is set, and {' and '.join(missing)} is missing beside it.")
        self._file, self._client = Path(os.environ[TOKEN_FILE]), os.environ[CLIENT]
        authority = os.environ.get(_AUTHORITY) or _USUAL_AUTHORITY
        self._address = f"{authority.rstrip('/')}/{os.environ[TENANT]}/oauth2/v2.0/token"

    async def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        """Return a token for these scopes; raises CredentialsError where Entra, or the file, gives none."""
        form = {
            "grant_type": "client_credentials",
            "client_id": self._client,
            "scope": " ".join(scopes),
            "client_assertion_type": _KIND,
            "client_assertion": self._assertion(),
        }
        async with (
            await open_client() as session,
            session.post(self._address, data=form, allow_redirects=False) as response,
        ):
            answer = await response.json(content_type=None) if response.status in {200, 400, 401} else {}
        if not isinstance(answer, dict) or "access_token" not in answer:
            code = str(answer.get("error", "")) if isinstance(answer, dict) else ""
            raise CredentialsError(
                f"Entra gives client {self._client} no token (status {response.status} {code}): see that its federated "
                "credential names this namespace and service account."
            )
        return AccessToken(str(answer["access_token"]), int(time.time()) + int(answer["expires_in"]))

    async def close(self) -> None:
        """Nothing is kept open."""

    def _assertion(self) -> str:
        try:
            return self._file.read_text().strip()
        except OSError as error:
            raise CredentialsError(f"the file that {TOKEN_FILE} names cannot be read ({error.strerror}).") from error
