"""From a URI such as mlflow://digits@champion to one version of a model, and to the folder that its files lie in.

An alias is looked up once. Everything that is read after it belongs to the version that it named then.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from pydantic import TypeAdapter, ValidationError

from optimizer_jobs.data.faults import remote_fault, unreachable
from optimizer_jobs.data.mlflow.artifacts import ArtifactSystem
from optimizer_jobs.data.mlflow.server import AnswerError, Server, UnfitAnswerError, tracking_server
from optimizer_jobs.data.uris import Location, resolve
from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.progress import say
from retune.api.base import MlflowUri
from retune.contract.results import Reason

SCHEME = "mlflow"
ALIAS_TAG = "retune.alias"
"""Tag of a version that stands for an alias on servers that have none."""

_URI: TypeAdapter[str] = TypeAdapter(MlflowUri)
_VERSION = re.compile(r"[1-9][0-9]{0,8}")
_LOGGED = re.compile(r"models:/(m-[0-9a-zA-Z]{1,64})")
_ROOT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=:+ -]*(/[A-Za-z0-9_][A-Za-z0-9_.=:+ -]*)*")
_BUCKETS = ("s3", "gs")
_NO_SUCH, _BAD = "RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"
_NOT_SERVED = frozenset({404, 405, 501})
_HOST_REFUSED = "Invalid Host header"
_WAIT = "PENDING_REGISTRATION"
_KEEP = (
    "Start the server with --artifacts-destination, so that it hands files out itself, or keep them in s3:// or gs://."
)


@dataclass(frozen=True)
class Named:
    """A model by its name, and by an alias or a version."""

    uri: str
    name: str
    alias: str | None = None
    version: str | None = None


@dataclass(frozen=True)
class Registered:
    """One version of a model."""

    uri: str
    """URI that it was found by."""
    name: str
    version: str
    place: Callable[[str], Location]
    """Returns where a file of it lies, by its path in the model's folder; raises JobError for a path that is not
    plain."""

    @property
    def own_uri(self) -> str:
        """URI of this version, whatever it was found by."""
        return _uri_of(self.name, self.version)


def find(uri: str) -> Registered:
    """Return the version that a URI names now.

    Raises:
        JobError: ModelNotFound, ModelForbidden, ModelInvalid or SourceUnreachable.
    """
    named = _named(uri)
    with _asking(named):
        server = tracking_server()
    found = _by_alias(server, named) if named.alias else _by_version(server, named)
    version = _checked_version(found, named)
    fixed = replace(named, version=version)
    if named.alias:
        say(f"{uri} is version {version}")
    _check_ready(found, fixed)
    return Registered(uri, named.name, version, _places(server, _root(server, fixed), fixed))


def _named(uri: str) -> Named:
    try:
        _URI.validate_python(uri)
    except ValidationError as error:
        message = f"{error.errors()[0]['msg']}."
        raise JobError(Reason.MODEL_FORBIDDEN, uri, message, "Correct spec.model.uri.") from error
    name, mark, which = re.split("([@/])", uri.removeprefix(f"{SCHEME}://"))
    is_alias = mark == "@"
    return Named(uri, unquote(name), alias=which if is_alias else None, version=None if is_alias else which)


def _uri_of(name: str, version: str) -> str:
    return f"{SCHEME}://{quote(name, safe='+=')}/{version}"


def _by_alias(server: Server, named: Named) -> Any:
    try:
        with _asking(named):
            return server.ask("registered-models/alias", name=named.name, alias=str(named.alias)).get("model_version")
    except _AliasesUnknownError:
        return _by_tag(server, named)


def _by_tag(server: Server, named: Named) -> Any:
    """Return the newest version with the tag that stands for an alias, on a server without aliases."""
    say(f"the server has no aliases: looking for a version with tag {ALIAS_TAG}={named.alias}")
    wanted = f"name='{named.name}' and tags.`{ALIAS_TAG}`='{named.alias}'"
    try:
        with _asking(named):
            found = server.ask("model-versions/search", filter=wanted, max_results="1", order_by="version_number DESC")
    except _AliasesUnknownError:  # it cannot be searched either
        found = {}
    versions = found.get("model_versions")
    if isinstance(versions, list) and versions:
        return versions[0]
    message = f"the server has no aliases, and no version of {named.name} has the tag {ALIAS_TAG}={named.alias}."
    name_it = f"Name a version, such as {_uri_of(named.name, '1')}, or set that tag."
    raise JobError(Reason.MODEL_NOT_FOUND, named.uri, message, name_it)


def _by_version(server: Server, named: Named) -> Any:
    with _asking(named):
        return server.ask("model-versions/get", name=named.name, version=str(named.version)).get("model_version")


def _checked_version(found: Any, named: Named) -> str:
    version = str(found.get("version")) if isinstance(found, dict) else ""
    if not _VERSION.fullmatch(version) or named.version not in {None, version}:
        raise _strange(named, "its answer names no version of a model.")
    return version


def _check_ready(found: Any, named: Named) -> None:
    status = str(found.get("status") or "READY")
    if status == _WAIT:
        raise unreachable(named.uri, f"version {named.version} is being registered.")
    if status != "READY":
        said = printable(str(found.get("status_message") or status), limit=200)
        message = f"version {named.version} was not registered ({said})."
        raise JobError(Reason.MODEL_INVALID, named.uri, message, "Register it again.")


def _root(server: Server, named: Named) -> str:
    """Return the URI of the folder that the files of a version lie in."""
    with _asking(named):
        answer = server.ask("model-versions/get-download-uri", name=named.name, version=str(named.version))
        root = str(answer.get("artifact_uri") or "")
        logged = _LOGGED.fullmatch(root)
        if logged:
            root = _logged(server.ask(f"logged-models/{logged[1]}"))
    return root


def _logged(answer: dict[str, Any]) -> str:
    """Return the folder of a logged model, which a version of MLflow 3 may be registered from."""
    model = answer.get("model")
    info = model.get("info") if isinstance(model, dict) else None
    return str(info.get("artifact_uri") or "") if isinstance(info, dict) else ""


def _places(server: Server, root: str, named: Named) -> Callable[[str], Location]:
    """Return what finds the files of a version: on the server, or in a bucket."""
    scheme = root.partition(":")[0]
    if scheme in _BUCKETS and root.startswith(f"{scheme}://"):
        return lambda name: resolve(f"{root.rstrip('/')}/{name}", refused=Reason.MODEL_FORBIDDEN, remote=True)
    if scheme != "mlflow-artifacts":
        shown = printable(root, limit=200)
        message = f"the server says that the files lie at {shown!r}, which is not read from here."
        raise JobError(Reason.MODEL_FORBIDDEN, named.uri, message, _KEEP)
    folder, system = _proxied(server, root, named), ArtifactSystem(server)
    own = _uri_of(named.name, str(named.version))

    def place(name: str) -> Location:
        if {"", ".", ".."} & set(name.split("/")):
            message = f"{printable(name, limit=100)!r} is no path in the folder of the model."
            raise JobError(Reason.MODEL_FORBIDDEN, named.uri, message, "Register a model that MLflow has written.")
        return Location(fs=system, path=f"{folder}/{name}", uri=f"{own}/{name}")

    return place


def _proxied(server: Server, root: str, named: Named) -> str:
    """Return a folder's path below the root of the server's artifacts."""
    folder = root.removeprefix("mlflow-artifacts:")
    if folder.startswith("//"):
        host, _, folder = folder.removeprefix("//").partition("/")
        if host != urlsplit(server.base).netloc:
            message = f"the server says that another one hands the files out: {printable(host, limit=100)!r}."
            raise JobError(Reason.MODEL_FORBIDDEN, named.uri, message, "Give that server in MLFLOW_TRACKING_URI.")
    folder = folder.strip("/")
    if not _ROOT.fullmatch(folder):
        raise _strange(named, f"the folder that its answer names is not plain: {printable(root, limit=200)!r}.")
    return folder


class _AliasesUnknownError(Exception):
    """The server does not know the request that was to find an alias."""


@contextmanager
def _asking(named: Named) -> Iterator[None]:
    """Turn what goes wrong with a request about a model into a JobError."""
    try:
        yield
    except AnswerError as error:
        raise _refused(error, named) from error
    except UnfitAnswerError as error:
        raise _strange(named, str(error)) from error
    except Exception as error:  # libraries and addresses have errors of their own
        raise remote_fault(error, uri=named.uri, what="Model") from error


def _refused(error: AnswerError, named: Named) -> Exception:
    """Return what a refused request means."""
    by_alias = named.alias is not None and named.version is None
    if by_alias and (error.code == _BAD or (error.code == _NO_SUCH and "alias" in error.message.lower())):
        message = f"{named.name} has no alias {named.alias}."
        return JobError(Reason.MODEL_NOT_FOUND, named.uri, message, "Set the alias, or name another one.")
    if error.code == _NO_SUCH:
        what = named.name if named.version is None else f"version {named.version} of {named.name}"
        message = f"the server has no {'model ' if named.version is None else ''}{what}."
        return JobError(Reason.MODEL_NOT_FOUND, named.uri, message, "Check name and version: it may be deleted.")
    if by_alias and error.status in _NOT_SERVED:
        return _AliasesUnknownError()
    if error.status == 403 and _HOST_REFUSED in error.message:
        return _unknown_host(named)
    return remote_fault(error, uri=named.uri, what="Model")


def _unknown_host(named: Named) -> JobError:
    return JobError(
        Reason.MODEL_FORBIDDEN,
        named.uri,
        f"the server does not answer under the name in MLFLOW_TRACKING_URI ({_HOST_REFUSED}).",
        "Start it with --allowed-hosts and that name, with its port.",
    )


def _strange(named: Named, message: str) -> JobError:
    return JobError(
        Reason.MODEL_INVALID, named.uri, message, "Give the address of a tracking server in MLFLOW_TRACKING_URI."
    )
