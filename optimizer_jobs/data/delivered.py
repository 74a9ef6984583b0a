"""Where a delivered model lies: its file and what lies beside it, or its folder, whatever its URI leads through.

A URI of a registry is resolved once, to one version, and all files are of that version.
"""

from collections.abc import Callable
from dataclasses import dataclass

from optimizer_jobs.data.uris import Location, resolve, sibling
from optimizer_jobs.progress import say
from retune.api.model import ModelFormat
from retune.contract.results import Reason

REGISTRIES = ("mlflow",)
"""URI schemes of models in registries, which say themselves where their files lie."""


@dataclass(frozen=True)
class Source:
    """A model's file, or its folder."""

    uri: str
    """The file or folder as people know it; of a registry, by its version."""
    beside: Callable[[str], Location]
    """Returns where a file lies, by its path in the folder, or in the folder of the file; raises JobError for a path
    that is not plain."""
    name: str = ""
    """Name of the file; empty for a folder."""

    @property
    def file(self) -> Location:
        """Where the file lies; raises JobError where its URI is refused."""
        return self.beside(self.name)


def source_of(uri: str, format_: ModelFormat) -> Source:
    """Return where the model at a URI lies; of a registry, the version that the URI names now.

    Raises:
        JobError: ModelNotFound, ModelForbidden, ModelInvalid or SourceUnreachable, where a registry has no such model.
    """
    if uri.partition("://")[0] in REGISTRIES:
        return _registered(uri, format_)
    if format_.is_folder:
        folder = uri.rstrip("/")
        return Source(uri, lambda name: _resolved(f"{folder}/{name}"))
    return Source(uri, lambda name: _resolved(sibling(uri, name)), uri.rpartition("/")[2])


def _registered(uri: str, format_: ModelFormat) -> Source:
    from optimizer_jobs.data.mlflow.flavours import file_of
    from optimizer_jobs.data.mlflow.registry import find

    model = find(uri)
    path = file_of(model, format_)
    say(f"{model.own_uri}: reading {path}")
    folder, slash, name = (path, "/", "") if format_.is_folder else path.rpartition("/")
    return Source(f"{model.own_uri}/{path}", lambda other: model.place(f"{folder}{slash}{other}"), name)


def _resolved(uri: str) -> Location:
    return resolve(uri, refused=Reason.MODEL_FORBIDDEN, remote=True)
