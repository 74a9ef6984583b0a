"""The variables of a Job's container that come from Secrets: only what the servers that it uses are asked with."""

from collections.abc import Iterable

from retune.api.base import Json
from retune.api.execution import Execution
from retune.contract.credentials import CREDENTIAL_KEYS, REGISTRY_KEYS
from retune.contract.paths import CREDENTIALS_VARIABLE
from retune.contract.requests import JobRequest, RegisterRequest
from retune.plan.store import is_shared
from retune.workloads.volumes import remote_schemes


def secret_variables(
    execution: Execution, request: JobRequest, *, default_store: str | None, default_secret: str
) -> list[Json]:
    """Return the variables that come from Secrets: the resource's, but of a registry with a Secret of its own from it.

    Where both have a key, the registry's counts for the registry, and is named where something is missing.

    Args:
        execution: What the resource says of its Jobs.
        request: What the Job is to do.
        default_store: Store of resources whose spec names none.
        default_secret: Secret of that store in the namespace of a resource; may be empty.
    """
    found = _credentials(*_secret(execution, request, default_store, default_secret))
    if not isinstance(request, RegisterRequest) or request.registry.credentials is None:
        return found
    name, scheme = request.registry.credentials.secret_name, request.registry.uri.partition("://")[0]
    own = [{"name": CREDENTIALS_VARIABLE, "value": name}, *_keys(name, REGISTRY_KEYS[scheme])]
    taken = {variable["name"] for variable in own}
    return [*own, *(variable for variable in found if variable["name"] not in taken)]


def _credentials(name: str, schemes: frozenset[str]) -> list[Json]:
    """Return the keys that the servers of the request are asked with; if one is absent, the Job says what is missing.

    The Secret is named key by key, so that nothing else in it reaches a Job.
    """
    keys = dict.fromkeys(key for scheme in sorted(schemes) for key in CREDENTIAL_KEYS[scheme])
    return [{"name": CREDENTIALS_VARIABLE, "value": name}, *_keys(name, keys)] if name and keys else []


def _secret(
    execution: Execution, request: JobRequest, default_store: str | None, default_secret: str
) -> tuple[str, frozenset[str]]:
    """Return the Secret that a Job is known by, and the schemes that it is for.

    What the spec names is for everything that the Job uses. The administrator's is for his own store alone.
    """
    schemes = remote_schemes(request)
    if execution.credentials:
        return execution.credentials.secret_name, schemes
    if default_store and is_shared(execution.artifact_store, default_store):
        return default_secret, schemes & {default_store.partition("://")[0]}
    return "", frozenset()


def _keys(secret: str, keys: Iterable[str]) -> list[Json]:
    """Return a variable for each key of a Secret, which need not be there."""
    reference = {"name": secret, "optional": True}
    return [{"name": key, "valueFrom": {"secretKeyRef": reference | {"key": key}}} for key in keys]
