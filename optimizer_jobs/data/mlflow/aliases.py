"""What a registry calls its versions: by aliases, or by tags on servers that have none."""

from typing import Protocol

from optimizer_jobs.data.mlflow.registry import ALIAS_TAG
from optimizer_jobs.data.mlflow.server import AnswerError
from optimizer_jobs.data.mlflow.versions import ABSENT, Sink, Version, version_in

_BAD = "INVALID_PARAMETER_VALUE"
_NOT_SERVED = frozenset({404, 405, 501})


class Naming(Protocol):
    """How a registry names versions. All errors are those of `Server.ask`."""

    words: str
    """What a person should know of it; empty where it is as everybody expects."""

    def holder(self, alias: str) -> Version | None:
        """Return the version that has an alias; None where none has."""
        ...

    def give(self, alias: str, number: str) -> None:
        """Give a version an alias, which no other has after it."""
        ...

    def take(self, alias: str) -> None:
        """Take an alias from whichever version has it."""
        ...


def naming_of(sink: Sink, alias: str) -> Naming:
    """Return how this server names versions, found by asking for an alias; errors are those of `Server.ask`."""
    own = _Aliases(sink)
    try:
        own.holder(alias)
    except AnswerError as error:
        if error.status in _NOT_SERVED:
            return _Tags(sink)
        raise
    return own


class _Aliases:
    words = ""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def holder(self, alias: str) -> Version | None:
        try:
            found = self._sink.server.ask("registered-models/alias", name=self._sink.name, alias=alias)
        except AnswerError as error:
            if error.code in {_BAD, ABSENT}:  # the model is there
                return None
            raise
        return version_in(found.get("model_version"))

    def give(self, alias: str, number: str) -> None:
        self._sink.server.send("registered-models/alias", name=self._sink.name, alias=alias, version=number)

    def take(self, alias: str) -> None:
        self._sink.server.send("registered-models/alias", method="DELETE", name=self._sink.name, alias=alias)


class _Tags:
    words = f"the server has no aliases, and tags {ALIAS_TAG} stand for them"

    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    def holder(self, alias: str) -> Version | None:
        return max(self._holders(alias), key=lambda version: int(version.number), default=None)

    def give(self, alias: str, number: str) -> None:
        before = self._holders(alias)
        named = {"name": self._sink.name, "version": number}
        self._sink.server.send("model-versions/set-tag", **named, key=ALIAS_TAG, value=alias)
        self._clear([version for version in before if version.number != number])

    def take(self, alias: str) -> None:
        self._clear(self._holders(alias))

    def _holders(self, alias: str) -> list[Version]:
        return [version for version in self._sink.versions() if version.tags.get(ALIAS_TAG) == alias]

    def _clear(self, versions: list[Version]) -> None:
        for version in versions:
            named = {"name": self._sink.name, "version": version.number}
            self._sink.server.send("model-versions/delete-tag", method="DELETE", **named, key=ALIAS_TAG)
