"""A registered model in MLflow holds the champion and the challenger, and its aliases say which is which.

Aliases are set last, once every version is there whole, so that nothing half-published has a name that people load.
A second start finds what the first one has made.
"""

from dataclasses import dataclass

from optimizer_jobs.commands.register.publishing import Published, published
from optimizer_jobs.data.mlflow.aliases import Naming, naming_of
from optimizer_jobs.data.mlflow.refusals import registering
from optimizer_jobs.data.mlflow.versions import RESOURCE_TAG, Sink, open_sink
from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.progress import say
from retune.contract.requests import RegisterRequest
from retune.contract.results import Reason, RegisterResult

_MESSAGE_LIMIT = 1000


@dataclass(frozen=True)
class _Named:
    """A version of the registry and the alias that it is to have."""

    alias: str
    published: Published


def run(request: RegisterRequest) -> RegisterResult:
    """Make the registry say what the request wants, and return what it calls the versions.

    Raises:
        JobError: RegistryForbidden, RegistryRefused, RegistryConflict or RegistryUnreachable; or a bundle cannot be
            read. No alias has moved then, unless the server broke off between two of them.
    """
    with registering(request.registry.uri):
        sink = open_sink(request.registry.uri)
        say(f"{sink.uri}: registering")
        sink.ensure(f"Versions of {request.resource} that Retune's judge has accepted.")
        naming = naming_of(sink, request.registry.aliases.champion)
        _check_free(sink, naming, request)
        champion, challenger = (_published(sink, request, role) for role in ("champion", "challenger"))
        for version in (champion, challenger):
            if version is not None:
                naming.give(version.alias, version.published.version.number)
        if challenger is None:
            _take(naming, request)
    return RegisterResult(
        state=request.state,
        champion=champion.published.version.number if champion else None,
        challenger=challenger.published.version.number if challenger else None,
        message=_message(sink, naming, [version for version in (champion, challenger) if version is not None]),
    )


def _published(sink: Sink, request: RegisterRequest, role: str) -> _Named | None:
    entry = getattr(request, role)
    alias: str = getattr(request.registry.aliases, role)
    return _Named(alias, published(sink, request, entry)) if entry is not None else None


def _check_free(sink: Sink, naming: Naming, request: RegisterRequest) -> None:
    """Raise JobError where another resource says by one of the aliases what serves elsewhere."""
    aliases = request.registry.aliases
    for alias in (aliases.champion, aliases.challenger):
        holder = naming.holder(alias)
        other = holder.tags.get(RESOURCE_TAG) if holder else None
        if holder is not None and other not in {None, request.resource}:
            message = f"alias {alias} names version {holder.number}, which belongs to resource {other}."
            step = "Give each resource a model or aliases of its own in spec.registry, or remove the alias."
            raise JobError(Reason.REGISTRY_CONFLICT, sink.uri, message, step)


def _take(naming: Naming, request: RegisterRequest) -> None:
    """Take the challenger's alias away where a version of this resource has it: nothing waits any more."""
    alias = request.registry.aliases.challenger
    holder = naming.holder(alias)
    if holder is not None and holder.tags.get(RESOURCE_TAG) == request.resource:
        naming.take(alias)


def _message(sink: Sink, naming: Naming, versions: list[_Named]) -> str:
    """Return what is registered, as words."""
    said = [f"version {each.published.version.number} is {each.alias}" for each in versions]
    notes = [each.published.note for each in versions]
    words = "; ".join(
        filter(None, (f"{sink.uri}: {' and '.join(said) or 'no version has an alias'}", naming.words, *notes))
    )
    return printable(words, limit=_MESSAGE_LIMIT)
