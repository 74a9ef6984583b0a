"""Where the files of a local run lie: claims as folders of this machine, and a store that keeps what was found.

`pvc://CLAIM/PATH` means the same as in the cluster, with the claim's folder given by the person who runs it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from retune.api.spec import ModelOptimizationSpec
from retune.cli.access import AccessError

STORE_CLAIM = "retune-local"
"""Name under which the store's folder is a claim."""


@dataclass(frozen=True)
class Place:
    """One resource's files: the folder of each claim, and the store, which is a claim of its own."""

    claims: Mapping[str, Path]
    store: Path
    name: str

    @property
    def store_uri(self) -> str:
        """The store as the Jobs know it."""
        return f"pvc://{STORE_CLAIM}/{self.name}"

    def local(self, uri: str) -> Path:
        """Return the path of a URI in the store."""
        return self.store / uri.removeprefix(f"pvc://{STORE_CLAIM}/")

    def runs(self) -> tuple[str, ...]:
        """Return the names of all runs in the store, oldest first."""
        folder = self.local(f"{self.store_uri}/runs")
        found = folder.iterdir() if folder.is_dir() else ()
        return tuple(sorted((path.name for path in found), key=lambda name: int(name.rpartition("-r")[2] or 0)))


def place(given: Mapping[str, Path], *, spec: ModelOptimizationSpec, store: Path, name: str) -> Place:
    """Return the place of a run; a claim that the spec names and nobody gave is looked for in the working folder.

    Raises AccessError naming the claim that is not there.
    """
    folders = {claim: given.get(claim, Path(claim)) for claim in sorted(_named(spec))}
    for claim, folder in folders.items():
        if not folder.is_dir():
            raise AccessError(
                f"claim {claim} is no folder here ({folder}): say where its files are with --claim {claim}=FOLDER"
            )
    store.mkdir(parents=True, exist_ok=True)
    return Place(claims=folders | {STORE_CLAIM: store}, store=store, name=name)


def _named(spec: ModelOptimizationSpec) -> set[str]:
    """Return the claims that model and data lie in."""
    data = spec.data
    sets = (data.training, data.validation, data.test, data.calibration)
    uris = [spec.model.uri, *(each.uri for each in sets if each)]
    return {uri.removeprefix("pvc://").partition("/")[0] for uri in uris if uri.startswith("pvc://")}
