"""Which volume claims a Job needs and how they are mounted, read off its request; and whether it reads from servers."""

from collections.abc import Iterator

from retune.api.base import Json, seconds
from retune.api.monitoring import Production
from retune.contract.paths import CLAIM_ROOT
from retune.contract.requests import (
    BaselineRequest,
    CheckRequest,
    GatherRequest,
    JobRequest,
    SearchRequest,
    VerifyRequest,
)

_SCHEME = "pvc://"


def claims(request: JobRequest) -> dict[str, bool]:
    """Return the name of every claim that `request` refers to, and whether the Job may write to it.

    Only the store is written to, and captured requests are removed when their time is over; a claim that holds both
    such and other things is writable.
    """
    needed = {name: False for uri in _read(request) if (name := claim_of(uri))}
    writable = {name: True for uri in _written(request) if (name := claim_of(uri))}
    return dict(sorted((needed | writable).items()))


def reads_from_servers(request: JobRequest) -> bool:
    """Return whether the Job reads anything that is not in a claim."""
    return any(claim_of(uri) is None for uri in _read(request))


def claim_of(uri: str) -> str | None:
    """Return the claim's name in `pvc://CLAIM/PATH`; None for any other scheme."""
    return uri.removeprefix(_SCHEME).split("/", 1)[0] if uri.startswith(_SCHEME) else None


def _written(request: JobRequest) -> Iterator[str]:
    """Yield every URI below which the Job writes."""
    if not isinstance(request, VerifyRequest):
        yield request.store
    if isinstance(request, CheckRequest) and request.production and seconds(request.production.retention):
        yield request.production.uri


def _read(request: JobRequest) -> Iterator[str]:
    """Yield every URI that the Job reads."""
    if isinstance(request, VerifyRequest):
        yield request.bundle.uri
        return
    if isinstance(request, BaselineRequest):
        yield request.model.uri
    else:
        yield request.champion.uri
    if isinstance(request, CheckRequest):
        yield from _checked(request)
        return
    if isinstance(request, GatherRequest):
        yield from _captured(request.production)
    elif isinstance(request, SearchRequest):
        yield request.original.uri
    data = request.data
    yield from (each.uri for each in (data.training, data.validation, data.test, data.calibration) if each)


def _checked(request: CheckRequest) -> Iterator[str]:
    yield request.reference.uri
    if request.followed:
        yield request.followed.uri
    if request.production:
        yield from _captured(request.production)


def _captured(production: Production) -> Iterator[str]:
    yield production.uri
    if production.labels:
        yield production.labels.uri


def volumes(needed: dict[str, bool]) -> list[Json]:
    """Return a volume per claim.

    A claim that is only read is read-only in the volume too, so that the kubelet leaves its files' group alone.
    """
    return [
        {"name": _volume(index), "persistentVolumeClaim": {"claimName": name, "readOnly": not writable}}
        for index, (name, writable) in enumerate(needed.items())
    ]


def mounts(needed: dict[str, bool]) -> list[Json]:
    """Return a mount per claim, at the path that `retune.contract` promises."""
    return [
        {"name": _volume(index), "mountPath": f"{CLAIM_ROOT}/{name}", "readOnly": not writable}
        for index, (name, writable) in enumerate(needed.items())
    ]


def _volume(index: int) -> str:
    return f"claim-{index}"
