"""Have a repository say which image serves and which is to serve next.

Tags that say so are moved last, when every image is there whole. A second start finds what the first one has sent.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from optimizer_jobs.progress import say
from optimizer_jobs.registries.oci.pushing import digest_of, push, retag
from optimizer_jobs.stores.published import open_bundle
from retune.contract.requests import BundleRef

_TAG_DIGITS = 16


@dataclass(frozen=True)
class Accepted:
    """A version that a repository is to have."""

    bundle: BundleRef
    annotations: Mapping[str, str] = field(default_factory=dict)
    """What is said of it besides its bundle, resource and run."""


@dataclass(frozen=True)
class Tags:
    """What a repository calls versions by what they are to the target."""

    challenger: str = "challenger"
    champion: str = "champion"


@dataclass(frozen=True)
class Named:
    """What a repository says now."""

    champion: str | None
    """Digest of the image that serves; None where nothing was to be said of it."""
    challenger: str | None
    """Digest of the image that is to serve next; None where there is none."""


def assign(reference: str, *, champion: Accepted | None, challenger: Accepted | None, tags: Tags) -> Named:
    """Push what is not there, and then move the tags; without a challenger, its tag goes with the champion's.

    Not every registry removes a tag, and none has to let a Job do so.

    Args:
        reference: `oci://HOST[:PORT]/REPOSITORY`.
        champion: The version that serves; None leaves its tag where it is.
        challenger: The version that is accepted and does not serve yet, or None.
        tags: The tags.

    Raises:
        JobError: As `pushing.push`, or a bundle cannot be read. No tag has moved then, unless the registry broke off
            between two of them.
    """
    serves, waits = (_pushed(reference, each) for each in (champion, challenger))
    if serves is not None:
        retag(reference, serves, tags.champion)
    if waits is not None:
        retag(reference, waits, tags.challenger)
    elif serves is not None and digest_of(reference, tags.challenger) is not None:
        retag(reference, serves, tags.challenger)
    return Named(serves, waits)


def bundle_tag(digest: str) -> str:
    """Return the tag that names a bundle's image for as long as the registry keeps it."""
    return f"bundle-{digest.removeprefix('sha256:')[:_TAG_DIGITS]}"


def _pushed(reference: str, accepted: Accepted | None) -> str | None:
    """Return the digest of a version's image, which is pushed where there is none."""
    if accepted is None:
        return None
    tag = bundle_tag(accepted.bundle.digest)
    found = digest_of(reference, tag)
    if found is not None:
        return found
    with tempfile.TemporaryDirectory(prefix="register-") as folder:
        bundle = open_bundle(accepted.bundle.uri, digest=accepted.bundle.digest, into=Path(folder))
        done = push(bundle, reference, tags=[tag], annotations=accepted.annotations)
    say(f"  {reference}: {tag} is {done.digest} now")
    return done.digest
