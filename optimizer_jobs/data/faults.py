"""What a failed read means (absent, forbidden, out of reach) and what a person should do about it.

Storage libraries wrap each other's errors, so the whole chain of causes is examined.
"""

import os
from collections.abc import Iterator
from typing import Literal

from optimizer_jobs.data.addresses import RefusedError
from optimizer_jobs.data.remote import CREDENTIALS, has_credentials
from optimizer_jobs.data.transfer import CredentialsError
from optimizer_jobs.errors import RETRY_EXIT, JobError, printable
from retune.contract.results import Reason

What = Literal["Model", "Data"]
Kind = Literal["NOT_FOUND", "FORBIDDEN", "TOO_LARGE"]

_SECRET = "spec.execution.credentials.secretName"  # noqa: S105 - the name of a field
IDENTITY_CURE = "See that the pods' service account is one that the role trusts, and that its token is mounted."
_CHAIN_LIMIT = 20
_TOKEN_FILE, _ROLE = "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN"
_ABSENT = frozenset({"404", "NotFound", "NoSuchKey", "NoSuchBucket", "NoSuchVersion"})
"""S3 error codes for an object that does not exist."""
UNSIGNED = frozenset({"ExpiredToken", "InvalidToken", "TokenRefreshRequired", "AuthorizationHeaderMalformed", "400"})
"""S3 error codes, with status 400, for a session or region that is not taken; HEAD says only the last."""
_UNKNOWN = frozenset({"ResourceNotFound", "PublicAccessNotPermitted", "InvalidAuthenticationInfo"})
"""Azure's error codes for whom it does not know, beside those with a status that says so."""


def reason(what: What, kind: Kind) -> Reason:
    """Return the failure reason for a model or a data set, such as ModelNotFound for "Model" and "NOT_FOUND"."""
    return Reason[f"{what.upper()}_{kind}"]


def local_fault(error: Exception, *, uri: str, what: What) -> JobError | None:
    """Return the JobError for a failed read of a volume, or None when the error is not about the file."""
    if isinstance(error, PermissionError):
        return JobError(
            reason(what, "FORBIDDEN"),
            uri,
            f"the Job's user ({os.geteuid()}) may not read this file.",
            f"Make the file readable for group {os.getegid()} or for all (chmod a+r) and its folders searchable "
            "(chmod a+x).",
        )
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return JobError(
            reason(what, "NOT_FOUND"), uri, "there is no such file.", "Check the claim's name and the path inside it."
        )
    return None


def remote_fault(error: Exception, *, uri: str, what: What) -> JobError:
    """Return the JobError for a failed read from a server; the Job's policy retries one that may pass by itself."""
    scheme, chain = uri.partition("://")[0], list(causes(error))
    for cause in chain:
        if isinstance(cause, RefusedError):
            return JobError(reason(what, "FORBIDDEN"), uri, str(cause), "Give the address where the file itself lies.")
        if isinstance(cause, CredentialsError):
            return JobError(
                reason(what, "FORBIDDEN"), uri, str(cause), f"Correct it in the Secret that {_SECRET} names."
            )
        if words := identity_fault(cause):
            return JobError(reason(what, "FORBIDDEN"), uri, words, IDENTITY_CURE)
        if certificate_is_bad(cause):
            return JobError(
                reason(what, "FORBIDDEN"),
                uri,
                "the server's certificate is not trusted.",
                f"Put its authority's certificate, as PEM, into CA_CERTIFICATES of the Secret that {_SECRET} names.",
            )
    status = next((status for cause in chain if (status := _status(cause))), None)
    if status in {401, 403}:
        return _forbidden(uri, scheme, what)
    if status in {404, 410} or (status is None and isinstance(chain[-1], FileNotFoundError)):
        return JobError(
            reason(what, "NOT_FOUND"), uri, "there is no such file.", "Check the bucket or host, and the path."
        )
    detail = f"status {status}" if status else printable(f"{type(chain[-1]).__name__}: {chain[-1]}", limit=200)
    return unreachable(uri, f"the server cannot be read ({detail}).")


def unreachable(uri: str, message: str) -> JobError:
    """Return the JobError for a server that may work again later."""
    return JobError(
        Reason.SOURCE_UNREACHABLE,
        uri,
        message,
        "It is tried again; see that the server answers and that no network policy keeps Jobs from it.",
        RETRY_EXIT,
    )


def _forbidden(uri: str, scheme: str, what: What) -> JobError:
    if has_credentials(scheme):
        message, step = "the credentials do not allow reading it.", f"Correct the Secret that {_SECRET} names"
    else:
        message, step = "it is not public, and there are no credentials.", f"Name a Secret in {_SECRET}"
    return JobError(reason(what, "FORBIDDEN"), uri, message, f"{step}; it needs {CREDENTIALS[scheme]}.")


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the errors that caused it, the outermost first."""
    cause: BaseException | None = error
    for _ in range(_CHAIN_LIMIT):
        if cause is None:
            return
        yield cause
        cause = cause.__cause__ or cause.__context__


def identity_fault(error: BaseException) -> str | None:
    """Return why a pod's own identity (a web identity of AWS) gives no credentials, as a sentence, or None."""
    if isinstance(error, OSError) and error.filename and str(error.filename) == os.environ.get(_TOKEN_FILE):
        return f"the token of the pod's identity cannot be read ({_TOKEN_FILE}: {error.strerror})."
    if getattr(error, "operation_name", "") != "AssumeRoleWithWebIdentity":
        return None
    about = getattr(error, "response", {}).get("Error", {})
    said = printable(f"{about.get('Code')}: {about.get('Message')}", limit=200).rstrip(".")
    return f"the pod's identity is not given the role {os.environ.get(_ROLE)} ({said})."


def azure_answer(error: BaseException) -> tuple[int, str] | None:
    """Return HTTP status and error code of an error of Azure's library; None of any other.

    Of a container that is not public, Azure tells a stranger that it is not there, or that he is in conflict with it;
    that is status 401 here.
    """
    status, code = getattr(error, "status_code", None), getattr(error, "error_code", None)
    if not type(error).__module__.startswith("azure.") or not isinstance(status, int):
        return None
    name = str(getattr(code, "value", code) or "")
    return (401 if name in _UNKNOWN else status), name


def _status(error: BaseException) -> int | None:
    """Return the HTTP status that a library's error carries."""
    if found := azure_answer(error):
        return found[0]
    answer = getattr(error, "response", None)
    if isinstance(answer, dict):
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
        code = answer.get("Error", {}).get("Code")
        if code in UNSIGNED or (status == 404 and code not in _ABSENT):
            status = 403  # some servers answer 404 for an unknown user
    else:
        status = getattr(error, "status", None) or vars(error).get("code")
    if isinstance(status, int) and status >= 400:
        return status
    denied = isinstance(error, PermissionError) or (type(error) is OSError and str(error).startswith("Forbidden"))
    return 403 if denied else None


def certificate_is_bad(error: BaseException) -> bool:
    """Return whether a connection failed because the server's certificate is not trusted."""
    return type(error).__name__ in {"SSLCertVerificationError", "ClientConnectorCertificateError"} or (
        "CERTIFICATE_VERIFY_FAILED" in str(error)
    )
