"""What goes wrong with a registry that is written to, as an error with a sentence and what to do."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from optimizer_jobs.data.addresses import RefusedError
from optimizer_jobs.data.faults import causes, certificate_is_bad
from optimizer_jobs.data.mlflow.server import AnswerError, UnfitAnswerError
from optimizer_jobs.data.remote import CREDENTIALS, has_credentials
from optimizer_jobs.data.transfer import CredentialsError
from optimizer_jobs.errors import RETRY_EXIT, JobError, printable
from retune.contract.paths import CREDENTIALS_VARIABLE
from retune.contract.results import Reason

HOST_REFUSED = "Invalid Host header"
_FIELD = "spec.registry.credentials, or spec.execution.credentials,"
_ADDRESS = "Give the address of a tracking server in MLFLOW_TRACKING_URI."
_BUSY = frozenset({408, 425, 429})


@contextmanager
def registering(uri: str) -> Iterator[None]:
    """Turn what goes wrong with requests to a registry into a JobError.

    Raises:
        JobError: RegistryForbidden, RegistryRefused or RegistryUnreachable.
    """
    try:
        yield
    except JobError:
        raise
    except Exception as error:  # libraries and addresses have errors of their own
        raise _fault(error, uri) from error


def refused(uri: str, message: str, step: str) -> JobError:
    """Return that the registry does not take what it was given."""
    return JobError(Reason.REGISTRY_REFUSED, uri, message, step)


def _fault(error: Exception, uri: str) -> JobError:
    if isinstance(error, AnswerError):
        return _answered(error, uri)
    if isinstance(error, UnfitAnswerError):
        return refused(uri, str(error), _ADDRESS)
    chain = list(causes(error))
    known = next((cause for cause in chain if isinstance(cause, RefusedError | CredentialsError)), None)
    if known is not None:
        return JobError(Reason.REGISTRY_FORBIDDEN, uri, str(known), f"Correct it in the Secret that {_secret()}.")
    if any(map(certificate_is_bad, chain)):
        step = f"Put its authority's certificate, as PEM, into CA_CERTIFICATES of the Secret that {_secret()}."
        return JobError(Reason.REGISTRY_FORBIDDEN, uri, "the server's certificate is not trusted.", step)
    return _unreachable(uri, printable(f"{type(chain[-1]).__name__}: {chain[-1]}", limit=200))


def _answered(error: AnswerError, uri: str) -> JobError:
    """Return what a refused request means."""
    if error.status == 403 and HOST_REFUSED in error.message:
        message = f"the server does not answer under the name in MLFLOW_TRACKING_URI ({HOST_REFUSED})."
        step = "Start it with --allowed-hosts and that name, with its port."
        return JobError(Reason.REGISTRY_FORBIDDEN, uri, message, step)
    if error.status in {401, 403}:
        return _forbidden(error, uri)
    if error.status >= 500 or error.status in _BUSY:
        return _unreachable(uri, str(error))
    if not error.code and error.status in {404, 405}:
        message = f"the server does not know a request that registering needs (status {error.status})."
        return refused(uri, message, f"{_ADDRESS} It must be MLflow 2.0 or later.")
    return refused(uri, f"the server refuses a request ({error}).", "See the server's log, and correct what it names.")


def _forbidden(error: AnswerError, uri: str) -> JobError:
    said = f" ({error.message})" if error.message else ""
    if has_credentials("mlflow"):
        message = f"the credentials do not allow writing to it{said}."
        step = f"Let that user edit the model and the experiment, or correct the Secret that {_secret()}"
    else:
        message, step = f"it is not public, and there are no credentials{said}.", f"Name a Secret in {_FIELD[:-1]}"
    return JobError(Reason.REGISTRY_FORBIDDEN, uri, message, f"{step}; it needs {CREDENTIALS['mlflow']}.")


def _secret() -> str:
    """Return which Secret is meant, as the end of a sentence."""
    name = os.environ.get(CREDENTIALS_VARIABLE)
    return f"is called {name}" if name else f"{_FIELD} names"


def _unreachable(uri: str, detail: str) -> JobError:
    return JobError(
        Reason.REGISTRY_UNREACHABLE,
        uri,
        f"the server cannot be asked ({detail}).",
        "It is tried again; see that the server answers and that no network policy keeps Jobs from it.",
        RETRY_EXIT,
    )
