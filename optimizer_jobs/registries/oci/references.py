"""Names of repositories, tags and digests, by the grammar of the distribution specification."""

import re
from dataclasses import dataclass

from optimizer_jobs.errors import JobError
from retune.contract.results import Reason

SCHEME = "oci"

_HOST = r"(?P<host>[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[1-9][0-9]{0,4})?)"
_PART = r"[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(f"{SCHEME}://{_HOST}/(?P<name>{_PART}(/{_PART})*)")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[a-f0-9]{64}")
_LIMIT = 255
_DOCKER_HUB = {"docker.io": "registry-1.docker.io", "index.docker.io": "registry-1.docker.io"}
"""Docker Hub's name in references, and the host that answers for it."""


@dataclass(frozen=True)
class Repository:
    """A repository of a registry."""

    host: str
    """Host of the registry, with its port where the reference has one."""
    name: str

    @property
    def reference(self) -> str:
        """Its address, as specs name it."""
        return f"{SCHEME}://{self.host}/{self.name}"

    @property
    def authority(self) -> str:
        """Host and port that answer for it."""
        return _DOCKER_HUB.get(self.host, self.host)

    @property
    def hostname(self) -> str:
        """The host alone."""
        return self.authority.partition(":")[0]


def parse(reference: str) -> Repository:
    """Return the repository that `oci://HOST[:PORT]/REPOSITORY` names; raises JobError RequestInvalid."""
    found = _REFERENCE.fullmatch(reference)
    if found is None or len(found["name"]) > _LIMIT:
        rule = "Write oci://HOST/REPOSITORY or oci://HOST:PORT/REPOSITORY in lower case, without a tag or a digest."
        raise JobError(Reason.REQUEST_INVALID, reference, "this names no repository of a registry.", rule)
    return Repository(found["host"], found["name"])


def check_tag(tag: str) -> str:
    """Return a tag; raises JobError RequestInvalid for what can be none."""
    if not _TAG.fullmatch(tag):
        rule = "A tag has letters, digits and _ . -, 128 at most, and begins with a letter, a digit or _."
        raise JobError(Reason.REQUEST_INVALID, repr(tag), "this can be no tag.", rule)
    return tag


def check_digest(digest: str) -> str:
    """Return a digest; raises JobError RequestInvalid for what can be none."""
    if not is_digest(digest):
        raise JobError(Reason.REQUEST_INVALID, repr(digest), "this is no digest.", "Name one, as sha256:HEX.")
    return digest


def is_digest(text: str) -> bool:
    """Return whether a text is a SHA-256 digest as registries write it."""
    return _DIGEST.fullmatch(text) is not None
