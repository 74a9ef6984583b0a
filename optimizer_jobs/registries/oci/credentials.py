"""What a registry knows a Job by, from the environment: the form of Docker's own files, or one host's user and token.

Each credential is for the hosts that the Secret itself names, so that no spec can have it sent elsewhere.
"""

import base64
import binascii
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from optimizer_jobs.data.transfer import CredentialsError
from optimizer_jobs.registries.oci.references import Repository

DOCKER_CONFIG = ".dockerconfigjson"
"""Environment variable with JSON as `docker login` keeps it; the key of Secrets of type
`kubernetes.io/dockerconfigjson`."""
HOST = "REGISTRY_HOST"
USERNAME, PASSWORD, TOKEN = "REGISTRY_USERNAME", "REGISTRY_PASSWORD", "REGISTRY_TOKEN"
PLAIN_HTTP = "REGISTRY_PLAIN_HTTP"
"""Environment variable with the host, and port, of a registry that speaks no TLS."""

_SAME_AS = {"docker.io": ("index.docker.io", "docker.io")}


@dataclass(frozen=True)
class Credentials:
    """What a registry is shown; empty for none."""

    basic: str = field(default="", repr=False)
    """User and password as the header `Authorization: Basic` has them."""
    bearer: str = field(default="", repr=False)
    """A token that the registry itself takes."""
    refresh: str = field(default="", repr=False)
    """A token that the registry's token service takes for others."""

    def __bool__(self) -> bool:
        return bool(self.basic or self.bearer or self.refresh)


def credentials_for(repository: Repository) -> Credentials:
    """Return what the environment has for a repository; raises CredentialsError for what cannot be used."""
    if os.environ.get(HOST) == repository.host:
        return _of_host()
    return _of_docker(repository)


def speaks_plainly(repository: Repository) -> bool:
    """Return whether the environment says that this registry speaks no TLS."""
    return os.environ.get(PLAIN_HTTP) == repository.host


def _of_host() -> Credentials:
    user, password, token = (os.environ.get(name, "") for name in (USERNAME, PASSWORD, TOKEN))
    if user and password:
        return Credentials(basic=_basic(user, password, USERNAME))
    if user or (password and not token):
        raise CredentialsError(f"{USERNAME} and {PASSWORD} are needed both.")
    return Credentials(bearer=_token(token, TOKEN))


def _of_docker(repository: Repository) -> Credentials:
    entries = _entries()
    for key in _keys(repository):
        if key in entries:
            return _of_entry(entries[key], f"{DOCKER_CONFIG} for {key}")
    return Credentials()


def _entries() -> Mapping[str, Any]:
    """Return the entries of Docker's file by host or path, without scheme and version."""
    text = os.environ.get(DOCKER_CONFIG, "").strip()
    if not text:
        return {}
    try:
        auths = json.loads(text)["auths"]
        return {_plain(key): entry for key, entry in auths.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CredentialsError(f"{DOCKER_CONFIG} is no JSON with auths, as docker login writes it.") from error


def _plain(key: str) -> str:
    return key.rpartition("://")[2].rstrip("/").removesuffix("/v1").removesuffix("/v2")


def _keys(repository: Repository) -> Iterator[str]:
    """Yield the keys that fit a repository, the longest path first, as the kubelet reads them."""
    for host in _SAME_AS.get(repository.host, (repository.host,)):
        parts = repository.name.split("/")
        for length in range(len(parts), 0, -1):
            yield f"{host}/{'/'.join(parts[:length])}"
        yield host


def _of_entry(entry: Any, where: str) -> Credentials:
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise CredentialsError(f"{where} is no object of texts.")
    refresh, bearer = (_token(entry.get(name, ""), where) for name in ("identitytoken", "registrytoken"))
    if refresh or bearer:
        return Credentials(refresh=refresh, bearer=bearer)
    user, password = entry.get("username", ""), entry.get("password", "")
    if not user and entry.get("auth"):
        user, password = _decoded(entry["auth"], where)
    if not user or not password:
        raise CredentialsError(f"{where} has neither auth nor username and password.")
    return Credentials(basic=_basic(user, password, where))


def _decoded(auth: str, where: str) -> tuple[str, str]:
    try:
        user, _, password = base64.b64decode(auth, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError) as error:
        raise CredentialsError(f"{where} has an auth that is no user and password in base64.") from error
    return user, password


def _basic(user: str, password: str, where: str) -> str:
    if ":" in user:
        raise CredentialsError(f"{where} has a user with a colon, which no user's name can have.")
    return base64.b64encode(f"{user}:{password}".encode()).decode()


def _token(token: str, where: str) -> str:
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise CredentialsError(f"{where} has a token with a line break, a space or the like.")
    return token
