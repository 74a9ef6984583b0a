"""What an error of a storage library means for a store, with what a person should do about it."""

from dataclasses import dataclass
from typing import Any

from optimizer_jobs.data.addresses import RefusedError
from optimizer_jobs.data.faults import IDENTITY_CURE, UNSIGNED, azure_answer, causes, certificate_is_bad, identity_fault
from optimizer_jobs.data.remote import CREDENTIALS, has_credentials
from optimizer_jobs.data.transfer import CredentialsError
from optimizer_jobs.errors import printable
from optimizer_jobs.stores.base import SECRET, Kind, StoreError

ABSENT = frozenset({"404", "NoSuchKey", "NoSuchVersion", "NotFound", "BlobNotFound"})
"""Error codes of S3 and Azure for an object that is not there."""
GONE_UPLOADS = frozenset({"NoSuchUpload", "InvalidBlockList"})
"""Error codes for an upload in parts that is gone: it has ended already, and the answer to its end was lost; or, on
Azure, another writer's end has thrown its parts away."""

_SKEW = frozenset({"RequestTimeTooSkewed", "RequestExpired"})
_SKEW_WORDS = ("short-lived token", "Request date header")
"""What Google says of a token, and Azure of a request, whose time does not fit."""
_NO_BUCKET = frozenset({"NoSuchBucket", "ContainerNotFound"})
_QUOTA = frozenset({"QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage"})
_READ_ONLY = frozenset({"MethodNotAllowed", "XMinioReadOnly", "BlobImmutableDueToPolicy"})
_THROTTLED = frozenset({"SlowDown", "ServiceUnavailable", "TooManyRequests", "RequestLimitExceeded"})


@dataclass(frozen=True)
class Answer:
    """What a server answered, as far as the library tells."""

    status: int | None = None
    """HTTP status; None where no answer came."""
    code: str = ""
    """Error code of S3 or Azure, or empty."""
    text: str = ""


def answer_of(error: BaseException) -> Answer:
    """Return what a server answered, from the errors that the libraries wrap around each other."""
    for cause in causes(error):
        if found := azure_answer(cause):
            return Answer(*found, text=str(cause))
        response = getattr(cause, "response", None)
        if isinstance(response, dict) and "Error" in response:
            return _of_s3(response)
        code = vars(cause).get("code") or getattr(cause, "status", None)
        if isinstance(code, int | str) and str(code).isdigit() and int(code) >= 400:
            return Answer(int(code), text=str(vars(cause).get("message", cause)))
        if type(cause) is OSError and str(cause).startswith("Forbidden"):  # as gcsfs says it
            return Answer(403, text=str(cause))
    if isinstance(error, FileNotFoundError):
        return Answer(404)
    return Answer(text=" ".join(map(str, causes(error))))


def _of_s3(response: dict[str, Any]) -> Answer:
    about = response["Error"]
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return Answer(status, str(about.get("Code", "")), str(about.get("Message", "")))


def fault(error: Exception, *, uri: str, writing: bool) -> StoreError:
    """Return the StoreError for an error of a storage library.

    Args:
        error: The error.
        uri: Address of the object.
        writing: Whether an object was to be written.
    """
    refusal = _before_the_answer(error, uri)
    if refusal is not None:
        return refusal
    answer = answer_of(error)
    if answer.code in _SKEW or any(words in answer.text for words in _SKEW_WORDS):
        return StoreError(
            Kind.SKEW,
            uri,
            "the server refuses signatures of this time: the clocks of the node and of the server differ.",
            "Set the clock of the node, or of the server, by NTP.",
        )
    if answer.code in _QUOTA or answer.status == 507:
        return StoreError(
            Kind.QUOTA, uri, "the bucket has reached its quota.", "Free space in the bucket, or have its quota raised."
        )
    if answer.code in _NO_BUCKET or (writing and answer.status == 404 and answer.code in {"", "404", "NotFound"}):
        return missing_bucket(uri)
    if answer.code in UNSIGNED | _READ_ONLY or answer.status in {
        401,
        403,
        404,
        405,
    }:  # some answer 404 for an unknown user
        return _refused(uri, answer, writing=writing)
    return _passing(error, uri, answer)


def missing_bucket(uri: str) -> StoreError:
    """Return the error of a bucket that is not there."""
    return StoreError(
        Kind.BUCKET,
        uri,
        f"there is no such {_noun(uri)}.",
        f"Create the {_noun(uri)}, or correct its name in the address of the store.",
    )


def read_only(uri: str) -> StoreError:
    """Return the error of a bucket whose objects may be read and not written."""
    return StoreError(
        Kind.READ_ONLY,
        uri,
        "the credentials may read there, and may not write.",
        f"Allow {SECRET} to write objects, or lift what makes the {_noun(uri)} read-only.",
    )


def _noun(uri: str) -> str:
    return "container" if uri.startswith("az:") else "bucket"


def _before_the_answer(error: Exception, uri: str) -> StoreError | None:
    """Return the error of a server that was not asked, because it may not be or is not trusted."""
    for cause in causes(error):
        if isinstance(cause, RefusedError):
            return StoreError(Kind.FORBIDDEN, uri, str(cause), "Name a server that Jobs may connect to.")
        if isinstance(cause, CredentialsError):
            return StoreError(Kind.FORBIDDEN, uri, str(cause), f"Correct it in {SECRET}.")
        if words := identity_fault(cause):
            return StoreError(Kind.FORBIDDEN, uri, words, IDENTITY_CURE)
        if certificate_is_bad(cause):
            cure = f"Put its authority's certificate, as PEM, into CA_CERTIFICATES of {SECRET}."
            return StoreError(Kind.FORBIDDEN, uri, "the server's certificate is not trusted.", cure)
    return None


def _refused(uri: str, answer: Answer, *, writing: bool) -> StoreError:
    if answer.code in _READ_ONLY or answer.status == 405:
        return read_only(uri)
    scheme = uri.partition("://")[0]
    if has_credentials(scheme):
        message = f"the credentials do not allow {'writing' if writing else 'reading'} there."
        return StoreError(Kind.FORBIDDEN, uri, message, f"Correct {SECRET}; it needs {CREDENTIALS[scheme]}.")
    cure = f"Put them into {SECRET}: {CREDENTIALS[scheme]}."
    return StoreError(Kind.FORBIDDEN, uri, "it is not public, and there are no credentials.", cure)


def _passing(error: Exception, uri: str, answer: Answer) -> StoreError:
    if answer.code in _THROTTLED or answer.status in {429, 503}:
        return StoreError(
            Kind.THROTTLED,
            uri,
            "the server asks for fewer requests, and still does after several tries.",
            "It is tried again; let fewer workers run at once, or have the server's limits raised.",
        )
    last = list(causes(error))[-1]
    detail = f"status {answer.status}" if answer.status else printable(f"{type(last).__name__}: {last}", limit=200)
    return StoreError(
        Kind.NETWORK,
        uri,
        f"the server does not answer as it should ({detail}).",
        "It is tried again; see that the server answers and that no network policy keeps Jobs from it.",
    )
