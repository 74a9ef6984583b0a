"""What can go wrong with a call, sorted by what to do next, and which of these errors a Status document stands for.

A `Refused` would be refused again, so a person must hear of it. A `Transient` says nothing about the request, and a
write that ended in one may have succeeded.
"""

import re
from typing import Any

from retune.api.base import Json

_RBAC = re.compile(r'cannot (?P<verb>\S+) resource "(?P<resource>[^"]+)" in API group "(?P<group>[^"]*)"')
_MANAGER = re.compile(r'conflict with "(?P<manager>[^"]+)"')
_DENIED = re.compile(
    r"admission webhook|denied (the )?request|denied by|violates PodSecurity|not allowed by", re.IGNORECASE
)
_QUOTA = re.compile(r"exceeded quota|insufficient quota to|status unknown for quota")
_MESSAGE_LIMIT = 800


class ApiError(Exception):
    """Any answer other than success."""


class NoCluster(Exception):  # noqa: N818 - named after what is missing
    """Nothing says which API server to talk to, or what says so cannot be used."""


class Transient(ApiError):  # noqa: N818 - named after what it says of the world
    """The server, or the way to it, is in trouble; a write may have succeeded all the same."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds that the server asked to be left alone; None where it did not."""


class Conflict(ApiError):  # noqa: N818
    """The object has changed since it was read: read again and decide again."""


class NotFound(ApiError):  # noqa: N818
    """The object is not there."""


class AlreadyExists(ApiError):  # noqa: N818
    """An object of that name is there already."""


class NamespaceGone(ApiError):  # noqa: N818
    """The namespace is being deleted or is gone: nothing is to be done in it any more."""


class Refused(ApiError):  # noqa: N818
    """The server refuses for a good reason, and would again."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        """Forbidden, QuotaExceeded, AdmissionDenied, FieldConflict, NameConflict, RequestTooLong or Invalid."""
        self.message = message


def error_of(method: str, path: str, code: int, status: Json, *, retry_after: float | None = None) -> ApiError:
    """Return the error that a Status document stands for.

    Args:
        method: HTTP verb of the request.
        path: Path of the request.
        code: HTTP status of the answer.
        status: The Status document; empty where the answer was none.
        retry_after: Seconds that the server asked to be left alone.
    """
    message = str(status.get("message") or f"{method} {path} was answered with {code}")[:_MESSAGE_LIMIT]
    reason = status.get("reason")
    if code in {401, 408, 410, 429} or code >= 500:
        return Transient(message, retry_after=retry_after)
    if _namespace_gone(code, status, message):
        return NamespaceGone(message)
    if code == 404:
        return NotFound(message)
    if code == 409:
        return AlreadyExists(message) if reason == "AlreadyExists" else _conflict(status, message)
    return _refused(code, path, message)


def is_of_quota(message: str) -> bool:
    """Whether a refusal is a ResourceQuota's that leaves no room, or that nobody has counted yet."""
    return _QUOTA.search(message) is not None


def _namespace_gone(code: int, status: Json, message: str) -> bool:
    details = status.get("details") or {}
    if code == 404:
        return details.get("kind") == "namespaces"
    terminating = any(cause.get("reason") == "NamespaceTerminating" for cause in _causes(status))
    return code == 403 and (terminating or "because it is being terminated" in message)


def _causes(status: Json) -> list[Any]:
    return (status.get("details") or {}).get("causes") or []


def _conflict(status: Json, message: str) -> ApiError:
    causes = [cause for cause in _causes(status) if cause.get("reason") == "FieldManagerConflict"]
    if not causes:
        return Conflict(message)
    named = [match["manager"] for cause in causes if (match := _MANAGER.search(cause.get("message", "")))]
    fields = ", ".join(str(cause.get("field", "")) for cause in causes)
    managers = ", ".join(dict.fromkeys(named)) or "another manager"
    text = f"{managers} owns {fields}: let it give the field up, or set spec.target.injection.takeover to Force"
    return Refused("FieldConflict", text[:_MESSAGE_LIMIT])


def _refused(code: int, path: str, message: str) -> Refused:
    if is_of_quota(message):
        return Refused("QuotaExceeded", message)
    denied = _RBAC.search(message) if code == 403 else None
    if denied:
        return Refused("Forbidden", _rbac_sentence(denied, path))
    if code == 403 or _DENIED.search(message):
        return Refused("AdmissionDenied", message)
    return Refused("Invalid", message)


def _rbac_sentence(denied: re.Match[str], path: str) -> str:
    resource = f"{denied['resource']}.{denied['group']}" if denied["group"] else denied["resource"]
    namespace = re.search(r"/namespaces/([^/]+)", path)
    where = f"in namespace {namespace[1]}" if namespace else "in all namespaces"
    return f"Retune may not {denied['verb']} {resource} {where}: grant it to its service account (see the chart's role)"
