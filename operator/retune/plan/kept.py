"""The versions that can serve again: what was delivered, the champion, and the champions before it.

A delivered model has two ways to serve: in the target's own way, by the value that the field had before the first
change, or by its bundle, as every other version.
"""

from retune.api.shown import Shown
from retune.api.status import ModelOptimizationStatus, Version


def own(status: ModelOptimizationStatus) -> Version | None:
    """Return the delivered model that the target serves in its own way: the newest, unless a newer one is held back."""
    original = status.original
    if original is None:
        return None
    as_delivered = (version for version in (status.champion, *status.versions) if version and version.run_name is None)
    return next((version for version in as_delivered if version.injected_value == original.injected_value), original)


def kept(status: ModelOptimizationStatus) -> tuple[Version, ...]:
    """Return each version that a person may have back, once, by number; a delivered one only where it has served."""
    known = (*status.versions, own(status), status.champion)
    by_digest = {version.digest: version for version in known if version is not None}
    return tuple(sorted(by_digest.values(), key=lambda version: version.version))


def known(status: ModelOptimizationStatus) -> tuple[Version, ...]:
    """Return each version whose bundle a status names: those that may serve again, and those that are not live yet."""
    waiting = (version for version in (status.original, status.candidate) if version is not None)
    return (*kept(status), *waiting)


def named(status: ModelOptimizationStatus, name: str | None) -> Version | None:
    """Return the version that is called by this number or digest; None where none is kept."""
    return next((version for version in kept(status) if name in {str(version.version), version.digest}), None)


def is_shown(version: Version) -> bool:
    """Return whether a version may be said to serve: nothing has shown that of one whose server was only ready."""
    return version.shown_by != Shown.NOTHING
