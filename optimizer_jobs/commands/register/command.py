"""The command `register`: a registry holds the champion and the challenger, and says which is which.

Aliases or tags are set last, once every version is there whole, so that nothing half-published has a name that people
load. A second start finds what the first one has made.
"""

from optimizer_jobs.commands.register import in_mlflow, in_oci
from retune.contract.requests import RegisterRequest
from retune.contract.results import RegisterResult

_KINDS = {"mlflow": in_mlflow.run, "oci": in_oci.run}


def run(request: RegisterRequest) -> RegisterResult:
    """Make the registry say what the request wants, and return what it calls the versions.

    Raises:
        JobError: RegistryForbidden, RegistryRefused, RegistryConflict or RegistryUnreachable; or a bundle cannot be
            read. Nothing says anything else than before then, unless the server broke off between two aliases.
    """
    return _KINDS[request.registry.uri.partition("://")[0]](request)
