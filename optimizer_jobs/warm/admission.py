"""What a check host takes on: a check of its own namespace whose files it sees exactly as the Job would.

A request is hostile. What it names is read, and written to, with the host's mounts and rights, so a host takes nothing
that a Job of the operator would not be asked; and nothing of which it cannot know that the verdict would be the same.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from optimizer_jobs.data.uris import resolve
from optimizer_jobs.data.volumes import claim_folder
from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.warm import messages
from retune.api.production import Production
from retune.contract.paths import claim_of, is_below, place_of, removable_below
from retune.contract.requests import AnyRequest, CheckRequest


class RefusedError(Exception):
    """Why a host does not take a request, as a clause."""


@dataclass(frozen=True)
class Admission:
    """What a host takes on."""

    namespace: str
    places: Sequence[str] = ()
    """URIs of folders on servers that it may use as Jobs do, such as s3://bucket/path."""

    def require(self, request: AnyRequest, job_settings: str) -> CheckRequest:
        """Return the request if this host can answer it as the Job would.

        Args:
            request: What is asked.
            job_settings: Environment variables of the Job, as JSON.

        Raises:
            RefusedError: It cannot.
        """
        if not isinstance(request, CheckRequest):
            raise RefusedError("a check host does nothing but check windows")
        namespace, _, name = request.resource.partition("/")
        if namespace != self.namespace:
            raise RefusedError(f"it is the host of namespace {self.namespace}")
        if request.custom_metric is not None:
            raise RefusedError("a custom metric is measured beside the Job")
        if request.store.rstrip("/").rpartition("/")[2] != name:
            raise RefusedError("the store is not the resource's own folder")
        remote = [uri for uri in _uris(request) if not self._mounted(uri)]
        _require_alike(job_settings, with_servers=bool(remote))
        _require_writable(request)
        return request

    def _mounted(self, uri: str) -> bool:
        """Return whether a URI is on a claim, rather than on a server; raises RefusedError where it is on neither."""
        claim = claim_of(uri)
        if claim is not None:
            if not claim_folder(claim).is_dir():
                raise RefusedError(f"claim {printable(claim, limit=100)} is not mounted in it")
            return True
        if any(is_below(uri, place) for place in self.places):
            return False
        raise RefusedError(f"{printable(uri, limit=200)} is not among its places")


def _uris(request: CheckRequest) -> Iterator[str]:
    """Yield every URI that the check reads or writes below."""
    yield from (request.store, request.champion.uri, request.reference.uri)
    if request.followed:
        yield request.followed.uri
    if request.production:
        yield request.production.uri
        if request.production.labels:
            yield request.production.labels.uri


def _require_alike(job_settings: str, *, with_servers: bool) -> None:
    """Refuse where the Job's settings are others: its result might be another, too."""
    try:
        theirs = json.loads(job_settings)
        ours = messages.settings()
        names = (*messages.ALWAYS_ALIKE, *(messages.ALIKE_FOR_SERVERS if with_servers else ()))
        other = [name for name in names if theirs[name] != ours[name]]
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise RefusedError("the Job does not say by which settings it runs") from error
    if other:
        raise RefusedError(f"the Job and the host have different settings: {', '.join(other)}")


def _require_writable(request: CheckRequest) -> None:
    """Refuse where the host could not keep a page, or remove what is past its retention, as the Job would."""
    production = request.production
    written = [request.store]
    if production is not None and production.kept_seconds is not None:
        if not _own(production, request.store):
            raise RefusedError("captured requests beside the store lie outside of the own folder")
        written.append(production.uri)
    for uri in written:
        if claim_of(uri) is not None and not os.access(_folder(uri), os.W_OK):
            raise RefusedError(f"it cannot write to {printable(uri, limit=200)}")


def _own(production: Production, store: str) -> bool:
    """Return whether captured requests lie on another claim or in another bucket than the store, or where they may."""
    return place_of(production.uri) != place_of(store) or is_below(production.uri, removable_below(store))


def _folder(uri: str) -> str:
    """Return the folder of a claim that a URI leads to, or the next one above it that is there."""
    try:
        folder = resolve(uri).local
    except JobError as error:
        raise RefusedError(str(error)) from error
    while not folder.exists():
        folder = folder.parent
    return str(folder)
