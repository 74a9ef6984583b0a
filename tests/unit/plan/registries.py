"""What a registry has to say once nothing disturbs a resource any more."""

from collections.abc import Mapping

from retune.api.status import ModelOptimizationStatus, Version

REGISTRY = {"uri": "mlflow://digits"}
"""A registry as a spec names it."""


def wrongly_named(status: ModelOptimizationStatus, aliases: Mapping[str, str]) -> str | None:
    """Return what the registry says wrongly of what serves and what waits; None where all is right.

    Args:
        status: The resource's status at rest.
        aliases: Digests of bundles by alias in the registry.
    """
    if status.registry is None:
        return None
    due: dict[str, Version | None] = {"challenger": status.candidate}
    due |= {"champion": status.champion} if status.registry.champion_told else {}
    for alias, version in due.items():
        if aliases.get(alias) != (version.digest if version else None):
            return f"{alias} is {aliases.get(alias)} in the registry at rest, and should be {version}"
    return None
