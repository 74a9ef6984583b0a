"""Which volumes a Job needs and how they are mounted, read off its request; and what kinds of servers it uses.

A URI `pvc://CLAIM/PATH` names a PersistentVolumeClaim. A Job must never be able to write to what it only reads, nor to
another resource's folder of a claim that both keep their artifacts on: of the store it can write to its own folder.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from retune.api.base import Json
from retune.api.production import Production
from retune.contract.paths import CLAIM_ROOT, claim_of, is_below
from retune.contract.requests import (
    BaselineRequest,
    CheckRequest,
    GatherRequest,
    JobRequest,
    RegisterRequest,
    SearchRequest,
    VerifyRequest,
)
from retune.workloads.security import CONTAINER_SECURITY

PREPARING = "store"
"""Name of the init container that makes the folders that the Job writes to."""
_MAKE_FOLDERS = 'for folder in "$@"; do mkdir -p "$folder" || true; done'


@dataclass(frozen=True)
class Claim:
    """What a Job sees of a PersistentVolumeClaim."""

    name: str
    folders: tuple[str, ...] = ()
    """Folders that it may write to, as paths in the claim; the empty path is the whole claim."""
    read: bool = False
    """Whether it reads anything outside of them, for which the whole claim is mounted read-only."""

    @property
    def path(self) -> str:
        """Where the claim is mounted, as `retune.contract.paths` promises."""
        return f"{CLAIM_ROOT}/{self.name}"


def claims_of(request: JobRequest) -> tuple[Claim, ...]:
    """Return what a Job sees of each PersistentVolumeClaim that its request names, in the order of their names.

    A Job writes to the resource's own folder of the store. A check also removes captured requests that are past their
    retention, from their folder alone, and never from another folder of the store's claim.
    """
    written = _outermost(uri.rstrip("/") for uri in _written(request))
    beyond = (uri for uri in _read(request) if not any(is_below(uri, folder) for folder in written))
    read = {claim for uri in beyond if (claim := claim_of(uri))}
    folders: dict[str, list[str]] = {claim: [] for claim in read}
    for uri in written:
        folders.setdefault(claim_of(uri) or "", []).append(_path_of(uri))
    return tuple(Claim(name, tuple(folders[name]), read=name in read) for name in sorted(folders))


def store_claim_of(request: JobRequest) -> str | None:
    """Return the volume claim of the store that the Job works on; None where it is on none."""
    return claim_of(request.bundle.uri if isinstance(request, VerifyRequest) else request.store)


def _outermost(uris: Iterable[str]) -> list[str]:
    """Return the folders on claims among these, without those that lie in another one."""
    folders = sorted({uri for uri in uris if claim_of(uri)})
    return [uri for uri in folders if not any(is_below(uri, other) for other in folders if other != uri)]


def _path_of(uri: str) -> str:
    return uri.partition("://")[2].partition("/")[2]


def remote_schemes(request: JobRequest) -> frozenset[str]:
    """Return the schemes, such as `s3`, of what the Job reads or writes and what is not on a volume."""
    uris = (*_written(request), *_read(request))
    return frozenset(uri.partition("://")[0] for uri in uris if claim_of(uri) is None)


def _written(request: JobRequest) -> Iterator[str]:
    """Yield every URI below which the Job writes."""
    if isinstance(request, VerifyRequest | RegisterRequest):
        return
    yield request.store
    production = request.production if isinstance(request, CheckRequest) else None
    if production and production.kept_seconds and claim_of(production.uri) != claim_of(request.store):
        yield production.uri


def _read(request: JobRequest) -> Iterator[str]:
    """Yield every URI that the Job reads."""
    if isinstance(request, VerifyRequest):
        yield request.bundle.uri
        if request.shadow:
            yield request.shadow.production.uri
        return
    if isinstance(request, RegisterRequest):
        yield request.registry.uri
        yield request.store
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


def volumes(claims: tuple[Claim, ...]) -> list[Json]:
    """Return a volume for each claim.

    A claim that is only read is read-only in the volume too, so that the kubelet leaves its files' group alone.
    """
    return [
        {"name": _volume_name(index), "persistentVolumeClaim": {"claimName": claim.name, "readOnly": not claim.folders}}
        for index, claim in enumerate(claims)
    ]


def volume_mounts(claims: tuple[Claim, ...]) -> list[Json]:
    """Return the mounts of each claim: read-only where it lies, and over that each folder that may be written to."""
    return [mount for index, claim in enumerate(claims) for mount in _mounts(_volume_name(index), claim)]


def _mounts(volume: str, claim: Claim) -> Iterator[Json]:
    if claim.read:
        yield {"name": volume, "mountPath": claim.path, "readOnly": True}
    for folder in claim.folders:
        below = {"subPath": folder} if folder else {}
        yield {"name": volume, "mountPath": f"{claim.path}/{folder}".rstrip("/"), "readOnly": False} | below


def preparing_container(
    claims: tuple[Claim, ...], *, image: str, image_pull_policy: str, resources: Json
) -> Json | None:
    """Return the init container that makes the folders that the Job writes to; None where it writes to none.

    The kubelet makes a missing folder too, but as root: on a volume whose own folder belongs to the Job's user and that
    takes no fsGroup, the Job could not write to it. What this container cannot make is left to the kubelet.

    Args:
        claims: What the Job sees of each claim.
        image: An image of the operator's settings, never one of the spec: it sees the whole of these claims.
        image_pull_policy: When the kubelet pulls it.
        resources: Requests and limits of the Job's own container. They cost nothing, because that one has not started
            yet, and whatever a LimitRange or a quota demands, both have it or neither.
    """
    written = [(index, claim) for index, claim in enumerate(claims) if any(claim.folders)]
    if not written:
        return None
    folders = [f"{claim.path}/{folder}" for _, claim in written for folder in claim.folders]
    return {
        "name": PREPARING,
        "image": image,
        "imagePullPolicy": image_pull_policy,
        "command": ["/bin/sh", "-c", _MAKE_FOLDERS, "sh", *folders],
        "resources": resources,
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": [
            {"name": _volume_name(index), "mountPath": claim.path, "readOnly": False} for index, claim in written
        ],
    }


def _volume_name(index: int) -> str:
    return f"claim-{index}"
