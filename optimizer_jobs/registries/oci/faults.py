"""What it means that a registry was not given something, and what a person should do about it."""

from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import ClientError

from optimizer_jobs.data.addresses import RefusedError
from optimizer_jobs.data.faults import causes, certificate_is_bad
from optimizer_jobs.data.transfer import CredentialsError
from optimizer_jobs.errors import RETRY_EXIT, JobError, printable
from optimizer_jobs.registries.oci.access import RefusalError, UnfitAnswerError
from optimizer_jobs.registries.oci.credentials import DOCKER_CONFIG, HOST, PLAIN_HTTP, credentials_for
from optimizer_jobs.registries.oci.patience import ATTEMPTS, may_pass
from optimizer_jobs.registries.oci.references import Repository
from retune.contract.results import Reason

_SECRET = "the Secret that holds the registry's credentials"  # noqa: S105 - a sentence
_NO_TLS = ("WRONG_VERSION_NUMBER", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE", "HTTP_REQUEST")
"""What the TLS library says of a server that answers in clear text."""


@contextmanager
def told(repository: Repository) -> Iterator[None]:
    """Turn what goes wrong with a registry into a JobError that names the repository.

    Raises:
        JobError: RegistryForbidden, RegistryRefused, or RegistryUnreachable where it may pass by itself.
    """
    try:
        yield
    except (CredentialsError, RefusedError, UnfitAnswerError, OSError, ClientError) as error:
        raise _fault(error, repository) from error


def _fault(error: Exception, repository: Repository) -> JobError:
    before = _before_the_answer(error, repository.reference)
    if before is not None:
        return before
    if isinstance(error, RefusalError) and not may_pass(error):
        return _refused(error, repository)
    return _unreachable(error, repository.reference)


def _before_the_answer(error: Exception, uri: str) -> JobError | None:
    """Return the error of a registry that was not asked, or whose answer is none."""
    for cause in causes(error):
        if isinstance(cause, RefusedError):
            return JobError(Reason.REGISTRY_FORBIDDEN, uri, str(cause), "Name a registry that Jobs may connect to.")
        if isinstance(cause, CredentialsError):
            return JobError(Reason.REGISTRY_FORBIDDEN, uri, str(cause), f"Correct it in {_SECRET}.")
        if certificate_is_bad(cause):
            cure = f"Put its authority's certificate, as PEM, into CA_CERTIFICATES of {_SECRET}."
            return JobError(Reason.REGISTRY_FORBIDDEN, uri, "the registry's certificate is not trusted.", cure)
        if any(word in str(cause) for word in _NO_TLS):
            cure = f"Name its host and port in {PLAIN_HTTP} of {_SECRET}, where it is one of your own network."
            return JobError(Reason.REGISTRY_FORBIDDEN, uri, "the registry speaks no TLS.", cure)
        if isinstance(cause, UnfitAnswerError):
            cure = "See that this is the address of a registry, and what lies between it and the Jobs."
            return JobError(Reason.REGISTRY_REFUSED, uri, f"the registry is not as it should be: {cause}", cure)
    return None


def _refused(error: RefusalError, repository: Repository) -> JobError:
    uri, said = repository.reference, f"({error})"
    if error.status in {401, 403}:
        return _forbidden(repository, said)
    if error.status == 405 or error.code == "UNSUPPORTED":
        return JobError(
            Reason.REGISTRY_REFUSED,
            uri,
            f"the registry can only be read {said}.",
            "Lift what makes it read-only: maintenance, garbage collection, a mirror, or its configuration.",
        )
    if error.status == 404:
        return JobError(
            Reason.REGISTRY_REFUSED,
            uri,
            f"there is no such repository {said}.",
            "Create the repository or its project in the registry, or correct its name.",
        )
    if error.status == 413:
        cure = "Raise the limit of the registry, or of the proxy before it (nginx: client_max_body_size)."
        return JobError(Reason.REGISTRY_REFUSED, uri, f"the registry takes no file of this size {said}.", cure)
    cure = "See what the registry's own log says of it: a quota, a tag that may not be moved, or a policy."
    return JobError(Reason.REGISTRY_REFUSED, uri, f"the registry refuses it {said}.", cure)


def _forbidden(repository: Repository, said: str) -> JobError:
    keys = f"{DOCKER_CONFIG}, or {HOST} with a user or a token"
    if credentials_for(repository):
        message = f"the credentials do not allow pushing there {said}."
        cure = f"Let them pull and push in this repository, or correct {_SECRET}."
    else:
        message = f"it takes nothing without credentials, and there are none for {repository.host} {said}."
        cure = f"Give {keys} in {_SECRET}."
    return JobError(Reason.REGISTRY_FORBIDDEN, repository.reference, message, cure)


def _unreachable(error: Exception, uri: str) -> JobError:
    last = list(causes(error))[-1]
    cure = "It is tried again; see that the registry answers and that no network policy keeps Jobs from it."
    message = f"the registry cannot be reached ({printable(f'{type(last).__name__}: {last}', limit=200)})."
    if isinstance(error, RefusalError) and error.status == 429:
        message = f"the registry asks for fewer requests, and still does after {ATTEMPTS} tries."
        cure = "It is tried again; have the registry's limits raised, or give credentials with higher ones."
    elif isinstance(error, RefusalError):
        message = f"the registry does not do as it should ({error}), {ATTEMPTS} times in a row."
    return JobError(Reason.REGISTRY_UNREACHABLE, uri, message, cure, RETRY_EXIT)
