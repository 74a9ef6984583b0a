"""Which volumes a Job needs and how they are mounted, read off its request; and whether it reads from servers.

A URI `pvc://CLAIM/PATH` names a PersistentVolumeClaim. A Job must never be able to write to a claim that it only reads.
"""

from collections.abc import Iterator

from retune.api.base import Json
from retune.api.production import Production
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


def claims_of(request: JobRequest) -> dict[str, bool]:
    """Return whether the Job may write to it, for each PersistentVolumeClaim that the request names.

    A Job writes to the store; a check also removes captured requests that are past their retention. A claim that holds
    such data beside other files is writable as a whole.
    """
    read = {claim: False for uri in _read(request) if (claim := _claim_of(uri))}
    written = {claim: True for uri in _written(request) if (claim := _claim_of(uri))}
    return dict(sorted((read | written).items()))


def store_claim_of(request: JobRequest) -> str | None:
    """Return the volume claim of the store that the Job works on; None where it is on none."""
    return _claim_of(request.bundle.uri if isinstance(request, VerifyRequest) else request.store)


def reads_from_servers(request: JobRequest) -> bool:
    """Return whether the Job reads anything that is not on a volume."""
    return any(_claim_of(uri) is None for uri in _read(request))


def _claim_of(uri: str) -> str | None:
    """Return the claim's name in `pvc://CLAIM/PATH`; None for any other scheme."""
    return uri.removeprefix(_SCHEME).split("/", 1)[0] if uri.startswith(_SCHEME) else None


def _written(request: JobRequest) -> Iterator[str]:
    """Yield every URI below which the Job writes."""
    if not isinstance(request, VerifyRequest):
        yield request.store
    if isinstance(request, CheckRequest) and request.production and request.production.kept_seconds:
        yield request.production.uri


def _read(request: JobRequest) -> Iterator[str]:
    """Yield every URI that the Job reads."""
    if isinstance(request, VerifyRequest):
        yield request.bundle.uri
        return
    if isinstance(request, BaselineRequest):
        yield request.model.uri
        if request.serves:
            yield request.serves.uri
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
    yield from (split.uri for split in (data.training, data.validation, data.test, data.calibration) if split)


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


def volumes(claims: dict[str, bool]) -> list[Json]:
    """Return a volume for each claim.

    A claim that is only read is read-only in the volume too, so that the kubelet leaves its files' group alone.

    Args:
        claims: Whether the Job may write to it, by the claim's name.
    """
    return [
        {"name": _volume_name(index), "persistentVolumeClaim": {"claimName": claim, "readOnly": not writable}}
        for index, (claim, writable) in enumerate(claims.items())
    ]


def volume_mounts(claims: dict[str, bool]) -> list[Json]:
    """Return a mount for each claim, at the path that `retune.contract.paths` promises.

    Args:
        claims: Whether the Job may write to it, by the claim's name.
    """
    return [
        {"name": _volume_name(index), "mountPath": f"{CLAIM_ROOT}/{claim}", "readOnly": not writable}
        for index, (claim, writable) in enumerate(claims.items())
    ]


def _volume_name(index: int) -> str:
    return f"claim-{index}"
