"""A repository of images holds the champion and the challenger, and its tags say which is which."""

from optimizer_jobs.errors import printable
from optimizer_jobs.progress import say
from optimizer_jobs.registries.oci.roles import Accepted, Named, Tags, assign
from retune.contract.requests import RegisterRequest, RegistryEntry
from retune.contract.results import RegisterResult

_MESSAGE_LIMIT = 1000


def run(request: RegisterRequest) -> RegisterResult:
    """Push what the repository lacks, move its tags, and return the digests of the images; raises as `command.run`."""
    uri, aliases = request.registry.uri, request.registry.aliases
    say(f"{uri}: registering")
    named = assign(
        uri,
        champion=_accepted(request.champion),
        challenger=_accepted(request.challenger),
        tags=Tags(challenger=aliases.challenger, champion=aliases.champion),
    )
    return RegisterResult(
        state=request.state,
        champion=named.champion,
        challenger=named.challenger,
        message=_message(request, named),
    )


def _accepted(entry: RegistryEntry | None) -> Accepted | None:
    return None if entry is None else Accepted(entry.bundle)


def _message(request: RegisterRequest, named: Named) -> str:
    """Return what the tags name now, as words."""
    aliases = request.registry.aliases
    pairs = ((aliases.champion, named.champion), (aliases.challenger, named.challenger))
    said = [f"{tag} is {digest}" for tag, digest in pairs if digest is not None]
    words = f"{request.registry.uri}: {' and '.join(said) or 'no tag is set'}"
    return printable(words, limit=_MESSAGE_LIMIT)
