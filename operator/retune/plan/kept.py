"""The versions that can serve again: what was delivered, the champion, and the champions before it."""

from retune.api.shown import Shown
from retune.api.status import ModelOptimizationStatus, Version


def kept(status: ModelOptimizationStatus) -> tuple[Version, ...]:
    """Return each version that a person may have back, once, by number."""
    known = (*status.versions, status.original, status.champion)
    by_digest = {version.digest: version for version in known if version is not None}
    return tuple(sorted(by_digest.values(), key=lambda version: version.version))


def known(status: ModelOptimizationStatus) -> tuple[Version, ...]:
    """Return each version whose bundle a status names: those that may serve again, and one that waits to go live."""
    waiting = (status.candidate,) if status.candidate else ()
    return (*kept(status), *waiting)


def named(status: ModelOptimizationStatus, name: str | None) -> Version | None:
    """Return the version that is called by this number or digest; None where none is kept."""
    return next((version for version in kept(status) if name in {str(version.version), version.digest}), None)


def is_shown(version: Version) -> bool:
    """Return whether a version may be said to serve: nothing has shown that of one whose server was only ready."""
    return version.shown_by != Shown.NOTHING
