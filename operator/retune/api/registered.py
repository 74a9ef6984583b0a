"""`status.registry`: what the registry of accepted versions was told, and the Job that tells it."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from retune.api.base import StatusPart, Time, map_list, one_of
from retune.api.bounds import Address, Hash, Registered, Word


class Role(StrEnum):
    """What a registered version is to the target."""

    CHAMPION = "Champion"
    CHALLENGER = "Challenger"


class RegisteredVersion(StatusPart):
    """A version in the registry that has an alias there."""

    role: Annotated[Word, Field(description=f"What it is to the target: {one_of(Role)}.")]
    alias: Word
    """Its alias, the value of its tag retune.alias, or the tag of its image."""
    digest: Hash
    """Digest of its bundle."""
    version: Registered
    """Number of the version in the registry, or the digest of its image."""


class RegistryStatus(StatusPart):
    """What the registry was told last, and the Job that is to tell it more."""

    uri: Address
    """The registered model, or the repository of images."""
    versions: tuple[RegisteredVersion, ...] = Field(default=(), max_length=2, json_schema_extra=map_list("role"))
    """The versions that have an alias."""
    champion_told: bool = False
    """Whether any Job was to say which version serves: from then on that is said of the delivered model too."""
    state: Hash | None = None
    """Hash of all that the registry was told last; absent while it was told nothing."""
    job: int = Field(default=0, ge=0)
    """Number of the last Job that was to tell it something."""
    wanted: Hash | None = None
    """Hash of what that Job is to tell; absent once it is told."""
    failures: int = Field(default=0, ge=0)
    """Jobs in a row that have failed to."""
    retry_after: Time | None = None
    """After a failure: when the next Job may start."""
