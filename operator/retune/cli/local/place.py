"""Where the files of a local run lie: claims are folders of this machine, and one more folder is the store.

A URI `pvc://CLAIM/PATH` means the same as in the cluster; the person who runs it says which folder is the claim.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from retune.api.spec import ModelOptimizationSpec
from retune.cli.access import AccessError

STORE_CLAIM = "retune-local"
"""Name under which the store's folder is a claim."""


@dataclass(frozen=True)
class Place:
    """The files of one resource."""

    claims: Mapping[str, Path]
    """Folder of each PersistentVolumeClaim by its name, the store's among them."""
    store: Path
    """Folder of the store."""
    name: str
    """Name of the resource."""
    code: tuple[Path, ...] = ()
    """Folders of the owner's own code."""

    @property
    def store_uri(self) -> str:
        """URI of the resource's folder in the store."""
        return f"pvc://{STORE_CLAIM}/{self.name}"

    def local(self, uri: str) -> Path:
        """Return the path of a URI in the store on this machine."""
        return self.store / uri.removeprefix(f"pvc://{STORE_CLAIM}/")

    def runs(self) -> tuple[str, ...]:
        """Return the names of all runs in the store, oldest first."""
        folder = self.local(f"{self.store_uri}/runs")
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
        return tuple(sorted(names, key=lambda name: int(name.rpartition("-r")[2] or 0)))


def place(
    claims: Mapping[str, Path], *, spec: ModelOptimizationSpec, store: Path, name: str, code: Sequence[Path] = ()
) -> Place:
    """Return where the files of a run lie.

    Args:
        claims: Folders by the name of the claim; of any other claim, the folder of its name in the working folder.
        spec: Names the claims that are needed.
        store: Folder of the store, which is made where it is absent.
        name: Name of the resource.
        code: Folders of the owner's own code.

    Raises:
        AccessError: A claim has no folder.
    """
    folders = {claim: claims.get(claim, Path(claim)) for claim in sorted(_claims_of(spec))}
    for claim, folder in folders.items():
        if not folder.is_dir():
            raise AccessError(
                f"claim {claim} is no folder here ({folder}): say where its files are with --claim {claim}=FOLDER"
            )
    store.mkdir(parents=True, exist_ok=True)
    return Place(claims=folders | {STORE_CLAIM: store}, store=store, name=name, code=tuple(code))


def _claims_of(spec: ModelOptimizationSpec) -> set[str]:
    """Return the names of the claims that model and data lie in."""
    data = spec.data
    sets = (data.training, data.validation, data.test, data.calibration)
    uris = [spec.model.uri, *(dataset.uri for dataset in sets if dataset)]
    return {uri.removeprefix("pvc://").partition("/")[0] for uri in uris if uri.startswith("pvc://")}
