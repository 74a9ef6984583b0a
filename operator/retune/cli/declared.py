"""Who declares a field of a spec: a Git repository, a manifest that somebody applies, or nobody.

A tool that applies what Git declares takes back whatever is changed elsewhere. So a field that it declares is changed
in Git, and all others may be changed in the cluster: such a tool leaves alone what it does not declare.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from retune.api.base import Json

MANAGER = "retune-cli"
"""Field manager of what the command line writes. Flux takes back what managers whose names begin with `kubectl` own."""
_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass(frozen=True)
class Declarer:
    """Who declares a field."""

    name: str
    """Name of the field manager."""

    @property
    def is_person(self) -> bool:
        """Whether a person applies a manifest with kubectl, and nothing takes a change back by itself."""
        return self.name.startswith("kubectl")


def declarer(raw: Json, path: Sequence[str]) -> Declarer | None:
    """Return who declares a field; None where nobody does, or only somebody's single command.

    Args:
        raw: The object as the API server holds it, with its managed fields.
        path: The field's path, such as `("spec", "rollout", "rollbackTo")`.
    """
    metadata = raw["metadata"]
    entries = [entry for entry in metadata.get("managedFields", ()) if "subresource" not in entry]
    applying = (entry for entry in entries if entry["operation"] == "Apply" and entry["manager"] != MANAGER)
    names = [entry["manager"] for entry in applying if _has(entry.get("fieldsV1", {}), [f"f:{part}" for part in path])]
    applied = metadata.get("annotations", {}).get(_APPLIED)
    if applied and _has(json.loads(applied), path):
        names += _writers_of(entries, ("f:metadata", "f:annotations", f"f:{_APPLIED}")) or ["kubectl apply"]
    machines = [name for name in names if not Declarer(name).is_person]
    return next((Declarer(name) for name in [*machines, *names]), None)


def _writers_of(entries: Sequence[Json], path: Sequence[str]) -> list[str]:
    return [entry["manager"] for entry in entries if _has(entry.get("fieldsV1", {}), path)]


def _has(document: Any, path: Sequence[str]) -> bool:
    for part in path:
        if not isinstance(document, dict) or part not in document:
            return False
        document = document[part]
    return True


def paths_of(change: Json, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of every value in a nested change."""
    for name, value in change.items():
        if isinstance(value, dict):
            yield from paths_of(value, (*above, name))
        else:
            yield (*above, name)


def manifest(change: Json) -> str:
    """Return a change as the lines of a manifest; what is to be taken out is said beside it."""
    lines = yaml.safe_dump(change, sort_keys=False).splitlines()
    return "\n".join(line.replace(": null", ":   # take this out") for line in lines)
