"""Give a registry a bundle as an image, and move the tags that say what it is to the target.

Files go first, then the manifests, signatures where there is a key, and tags last: whenever this ends before its time,
no tag names anything but a whole image, and the next time sends what is missing.
"""

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.progress import say
from optimizer_jobs.registries.oci.access import RefusalError
from optimizer_jobs.registries.oci.faults import told
from optimizer_jobs.registries.oci.image import RESOURCE, Image, build
from optimizer_jobs.registries.oci.references import Repository, check_digest, check_tag, parse
from optimizer_jobs.registries.oci.registry import Manifest, Registry, registry_of
from optimizer_jobs.registries.oci.signing import sign, signing_key, verified
from retune.contract.requests import Server
from retune.contract.results import Reason

_LOST = "MANIFEST_BLOB_UNKNOWN"
"""The registry's word where a manifest names a blob that it does not have."""


@dataclass(frozen=True)
class Pushed:
    """An image in a registry."""

    digest: str
    """Digest of the image, for every platform."""
    reference: str
    """Its address by that digest, as KServe's `storageUri` takes it: oci://HOST/REPOSITORY@sha256:..."""


def push(
    bundle: Bundle,
    reference: str,
    *,
    tags: Sequence[str] = (),
    annotations: Mapping[str, str] | None = None,
    servers: Sequence[Server] = (),
    name: str = "model",
) -> Pushed:
    """Give a registry a bundle, and set tags on it. What is there already is not sent again.

    Args:
        bundle: A verified bundle.
        reference: `oci://HOST[:PORT]/REPOSITORY`.
        tags: Tags that are to name it; each is moved if it names another image.
        annotations: What is said of the image besides its bundle, resource and run.
        servers: Servers whose layout the image holds too, under `/models/serve/`.
        name: Name of the model in these layouts.

    Raises:
        JobError: RegistryForbidden, RegistryRefused, RegistryUnreachable; RegistryConflict for a tag that names the
            image of somebody else; RequestInvalid for what can be no reference or tag; or ModelInvalid and the like
            where one of the servers cannot serve the bundle.
    """
    repository, wanted = parse(reference), tuple(map(check_tag, tags))
    with tempfile.TemporaryDirectory(prefix="image-") as folder, told(repository):
        image = build(bundle, Path(folder), annotations=annotations or {}, servers=servers, name=name)
        asyncio.run(_push(image, repository, wanted))
    return Pushed(image.index.digest, f"{repository.reference}@{image.index.digest}")


def retag(reference: str, digest: str, tag: str) -> None:
    """Have a tag name the image with a digest, which is in the repository; raises JobError as `push`."""
    repository = parse(reference)
    with told(repository):
        found = asyncio.run(_retag(repository, check_digest(digest), check_tag(tag)))
    if not found:
        cure = "Push it again; the registry may have removed what no tag named."
        raise JobError(Reason.REGISTRY_REFUSED, f"{repository.reference}@{digest}", "there is no such image.", cure)


def digest_of(reference: str, tag: str) -> str | None:
    """Return the digest that a tag names, or None where there is no such tag; raises JobError as `push`."""
    repository = parse(reference)
    with told(repository):
        return asyncio.run(_digest_of(repository, check_tag(tag)))


def verify(reference: str, digest: str, public_key: str) -> bool:
    """Return whether an image has a signature of a key.

    Args:
        reference: `oci://HOST[:PORT]/REPOSITORY`.
        digest: Digest of the image.
        public_key: The key on P-256, as PEM text.

    Raises:
        JobError: As `push`.
    """
    repository = parse(reference)
    with told(repository):
        return asyncio.run(_verify(repository, check_digest(digest), public_key))


async def _push(image: Image, repository: Repository, tags: Sequence[str]) -> None:
    key = signing_key()
    async with registry_of(repository) as registry:
        if await registry.digest_of(image.index.digest) is None:
            await _send(image, registry)
        if key is not None:
            manifests = (*image.manifests, image.index)
            await sign(registry, repository, [manifest.digest for manifest in manifests], key)
        for tag in tags:
            await _set(registry, image.index, tag, repository)


async def _send(image: Image, registry: Registry) -> None:
    """Send files and manifests; all of the files where the registry has lost one that it said it had."""
    await _send_blobs(image, registry, all_of_them=False)
    try:
        await _send_manifests(image, registry)
    except RefusalError as error:
        if error.code != _LOST:
            raise
        say("the registry lacks a file that it said it had: sending all of them")
        await _send_blobs(image, registry, all_of_them=True)
        await _send_manifests(image, registry)


async def _send_blobs(image: Image, registry: Registry, *, all_of_them: bool) -> None:
    for blob in image.blobs:
        if all_of_them or not await registry.has_blob(blob.digest):
            await registry.put_blob(blob)


async def _send_manifests(image: Image, registry: Registry) -> None:
    for manifest in (*image.manifests, image.index):
        await registry.put_manifest(manifest)


async def _set(registry: Registry, manifest: Manifest, tag: str, repository: Repository) -> None:
    """Have a tag name an image, unless it names that of somebody else."""
    if await registry.digest_of(tag) == manifest.digest:
        return
    named = await registry.manifest(tag)
    if named is not None and named.annotations.get(RESOURCE) != manifest.annotations.get(RESOURCE):
        raise _conflict(named, tag, repository)
    await registry.put_manifest(manifest, tag=tag)


def _conflict(named: Manifest, tag: str, repository: Repository) -> JobError:
    owner = named.annotations.get(RESOURCE)
    whose = f"resource {printable(str(owner), limit=200)}" if owner else "nobody that Retune knows of"
    message = f"tag {tag} names an image of {whose}, and is left where it is."
    step = "Give each resource a repository or tags of its own, or remove the tag."
    return JobError(Reason.REGISTRY_CONFLICT, repository.reference, message, step)


async def _retag(repository: Repository, digest: str, tag: str) -> bool:
    async with registry_of(repository) as registry:
        found = await registry.manifest(digest)
        if found is not None:
            await _set(registry, found, tag, repository)
        return found is not None


async def _digest_of(repository: Repository, tag: str) -> str | None:
    async with registry_of(repository) as registry:
        return await registry.digest_of(tag)


async def _verify(repository: Repository, digest: str, public_key: str) -> bool:
    async with registry_of(repository) as registry:
        return await verified(registry, digest, public_key)
