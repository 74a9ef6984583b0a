"""The bundle: a model with everything that is needed to run it as it was judged, in a folder named by its digest.

A published bundle never changes. It is written to a temporary folder and then renamed, so nobody sees half a bundle.
"""

import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from optimizer_jobs.data.volumes import file_digest, local_path
from optimizer_jobs.errors import JobError, store_access
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.golden import Golden
from optimizer_jobs.models.names import GOLDEN, MANIFEST, MODEL, NATIVE
from optimizer_jobs.models.native import Native, NativeRecord
from optimizer_jobs.signature import Signature
from retune.api.model import Task
from retune.contract.requests import BundleRef, Document
from retune.contract.results import Reason

_MANIFEST_LIMIT = 1 << 20
_STALE_SECONDS = 3600
_TEMPORARY = ".writing-"


class Lineage(Document):
    """The origin of a bundle: resource, run, parent, data, seed and library versions."""

    resource: str
    """`namespace/name` of the ModelOptimization."""
    run: str | None = None
    """The run that first made it; absent for the model as delivered."""
    trial: int | None = None
    """The trial that first made it."""
    parent: str | None = None
    """Digest of the bundle that it was made from."""
    original_model: str
    """Digest of the model file as delivered."""
    data: Mapping[str, str] = {}
    """Digest of each data set that was used to make it, by split."""
    seed: int = 0
    versions: Mapping[str, str] = {}
    """Versions of the libraries that made it."""


class Manifest(Document):
    """The content of bundle.json."""

    format_version: Literal[1] = 1
    """Readers pass over fields that they do not know; what may not be passed over raises this number."""
    task: Task = Task.CLASSIFICATION
    engine: EngineOptions
    signature: Signature
    classes: tuple[int | str, ...] = ()
    """Label of each score column; empty means that the column's number is the label."""
    techniques: tuple[str, ...]
    """What was done to the model, in order, in words for people."""
    size_bytes: int
    """Size of the model with its external data."""
    model_digest: str
    files: Mapping[str, str]
    """Digest of every other file of the bundle, by name."""
    native: NativeRecord | None = None
    """The model in the format it was delivered in, where the bundle has it."""
    accepts_missing: Literal[True] | None = Field(default=None, alias="fillsHoles")
    """Set when inputs may have missing values (NaN), because the model handles them."""
    lineage: Lineage


@dataclass(frozen=True)
class Bundle:
    """A verified bundle in a folder of this machine."""

    folder: Path
    manifest: Manifest
    digest: str

    @property
    def model(self) -> Path:
        """The model file."""
        return self.folder / MODEL

    @property
    def native(self) -> Native | None:
        """The model in the format it was delivered in, or None when the bundle does not have it."""
        record = self.manifest.native
        return Native(self.folder / record.file, record.format, record.factory) if record else None

    @property
    def golden(self) -> Golden:
        """The golden requests, read from their file."""
        return Golden.model_validate_json((self.folder / GOLDEN).read_bytes())


def make_bundle(  # noqa: PLR0913 - the parts of a bundle, each by name
    folder: Path,
    *,
    model: Path,
    engine: EngineOptions,
    signature: Signature,
    techniques: tuple[str, ...],
    lineage: Lineage,
    golden: Golden,
    classes: tuple[int | str, ...] = (),
    task: Task = Task.CLASSIFICATION,
    native: Native | None = None,
    accepts_missing: bool = False,
) -> Bundle:
    """Write a bundle into the new folder `folder`. The same content always has the same digest.

    Args:
        folder: Folder of the bundle, which must not exist.
        model: The ONNX file; the external data files that it names are copied from its folder.
        engine: How the model is run.
        signature: Inputs and outputs of the model.
        techniques: What was done to the model, in order, in words for people.
        lineage: Origin of the bundle.
        golden: Golden requests.
        classes: Label of each score column; empty when the column's number is the label.
        task: What the model does.
        native: The model in the format it was delivered in, to be trained again.
        accepts_missing: Whether inputs may have missing values (NaN).
    """
    folder.mkdir(parents=True)
    size_bytes = _add_model(folder, model)
    record = _add_native(folder, native)
    (folder / GOLDEN).write_bytes(_canonical(golden))
    manifest = Manifest(
        engine=engine,
        signature=signature,
        task=task,
        native=record,
        accepts_missing=True if accepts_missing else None,
        classes=classes,
        techniques=techniques,
        size_bytes=size_bytes,
        model_digest=file_digest(folder / MODEL),
        files={path.name: file_digest(path) for path in sorted(folder.iterdir())},
        lineage=lineage,
    )
    written = _canonical(manifest)
    (folder / MANIFEST).write_bytes(written)
    return Bundle(folder=folder, manifest=manifest, digest=manifest_digest(written))


def _add_model(folder: Path, model: Path) -> int:
    """Copy the ONNX file and its external data files into an empty folder, and return their bytes."""
    from optimizer_jobs.models.external import external_files

    shutil.copyfile(model, folder / MODEL)
    for name in external_files(model):
        shutil.copyfile(model.parent / name, folder / name)
    return sum(path.stat().st_size for path in folder.iterdir())


def _add_native(folder: Path, native: Native | None) -> NativeRecord | None:
    if native is None:
        return None
    name = f"{NATIVE}{native.path.suffix}"
    shutil.copyfile(native.path, folder / name)
    return NativeRecord(file=name, format=native.format, factory=native.factory)


def manifest_digest(written: bytes) -> str:
    """Return the bundle's digest, which is computed from the manifest's bytes and so covers every file.

    The bytes as written count, not the fields that this version knows, so that the digest stays the same in later
    versions. Run and trial are left out, so that a bundle that a later run makes again has the same digest.

    Raises:
        ValueError: It is no JSON, or no bundle's manifest.
        RecursionError: It is nested too deeply.
    """
    content = json.loads(written)
    lineage = content.get("lineage") if isinstance(content, dict) else None
    if not isinstance(lineage, dict):
        raise ValueError("it is no bundle's manifest")  # noqa: TRY004 - what is wrong is the content
    content["lineage"] = {key: value for key, value in lineage.items() if key not in {"run", "trial"}}
    return f"sha256:{hashlib.sha256(_as_json(content)).hexdigest()}"


def publish(bundle: Bundle, *, uri: str) -> BundleRef:
    """Copy a bundle into the folder of bundles at `uri`.

    A bundle that is already there stays as it is. One that is not what its digest says is put aside and made anew.

    Raises:
        JobError: StoreFull or StoreNotWritable, and nothing is left behind; or BundleForbidden or BundleCorrupt when
            the bundle cannot be verified afterwards.
    """
    name = bundle.digest.removeprefix("sha256:")
    target_uri = f"{uri.rstrip('/')}/{name}"
    parent = local_path(uri)
    with store_access(target_uri):
        parent.mkdir(parents=True, exist_ok=True)
        if _is_damaged(target_uri, bundle.digest):
            put_aside(parent / name)
        if not (parent / name).exists():
            _sweep(parent)
            _place(bundle, parent / name)
    open_bundle(target_uri, digest=bundle.digest)
    return BundleRef(uri=target_uri, digest=bundle.digest)


def holds_only_a_bundle(folder: Path, digest: str) -> bool:
    """Return whether a folder is that of a bundle with this digest, and nobody has put anything else into it."""
    try:
        manifest, actual = _read_manifest(folder, folder.name)
        inside = {path.name: path.lstat().st_mode for path in folder.iterdir()}
    except (JobError, OSError):
        return False
    return actual == digest and inside.keys() <= {MANIFEST, *manifest.files} and all(map(stat.S_ISREG, inside.values()))


def _is_damaged(uri: str, digest: str) -> bool:
    try:
        open_bundle(uri, digest=digest)
    except JobError as error:
        return error.reason is Reason.BUNDLE_CORRUPT
    return False


def put_aside(folder: Path) -> None:
    """Remove a folder, which loses its name first: nobody sees half of it. It takes no space."""
    aside = folder.with_name(f"{_TEMPORARY}{uuid.uuid4().hex}")
    with suppress(FileNotFoundError):
        folder.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def open_bundle(uri: str, *, digest: str | None = None, into: Path | None = None) -> Bundle:
    """Open the bundle at `uri` and verify every file.

    Args:
        uri: URI of the bundle's folder.
        digest: Digest that the bundle must have; None accepts any.
        into: Folder for a private copy, which is then the one that is verified; None opens the bundle in place.

    Raises:
        JobError: BundleNotFound, BundleForbidden, or BundleCorrupt naming the file.
    """
    folder = local_path(uri)
    if not folder.is_dir():
        raise JobError(Reason.BUNDLE_NOT_FOUND, uri, "there is no bundle.", "Restore it in the store, or run again.")
    try:
        return _open(folder, uri, digest=digest, into=into)
    except PermissionError as error:
        raise JobError(
            Reason.BUNDLE_FORBIDDEN, uri, "this process may not read the bundle.", "Make its files readable for all."
        ) from error


def _open(folder: Path, uri: str, *, digest: str | None, into: Path | None) -> Bundle:
    manifest, actual = _read_manifest(folder, uri)
    if digest is not None and actual != digest:
        raise _corrupt(uri, f"{MANIFEST} has digest {actual} instead of {digest}")
    if into is not None:
        folder = _private_copy(folder, manifest, into / folder.name, uri)
    for name, expected in manifest.files.items():
        _check_file(folder / name, expected, uri)
    return Bundle(folder=folder, manifest=manifest, digest=actual)


def _private_copy(folder: Path, manifest: Manifest, copy: Path, uri: str) -> Path:
    """Copy the files that the manifest lists, so that the files that are verified are the files that are used."""
    copy.mkdir(parents=True, exist_ok=True)
    for name in (MANIFEST, *manifest.files):
        _check_regular(folder / name, uri)
        shutil.copyfile(folder / name, copy / name)
    return copy


def _read_manifest(folder: Path, uri: str) -> tuple[Manifest, str]:
    """Return the manifest and the bundle's digest."""
    path = folder / MANIFEST
    _check_regular(path, uri)
    if path.stat().st_size > _MANIFEST_LIMIT:
        raise _corrupt(uri, f"{MANIFEST} is larger than {_MANIFEST_LIMIT} bytes")
    written = path.read_bytes()
    try:
        manifest = Manifest.model_validate_json(written)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _corrupt(uri, f"{MANIFEST} is not a manifest ({where}: {first['msg']})") from error
    required = {MODEL, GOLDEN} | ({manifest.native.file} if manifest.native else set())
    if required - set(manifest.files) or any(Path(name).name != name for name in manifest.files):
        raise _corrupt(uri, f"{MANIFEST} does not list plain names with {', '.join(sorted(required))}")
    return manifest, manifest_digest(written)


def _check_file(path: Path, expected: str, uri: str) -> None:
    _check_regular(path, uri)
    actual = file_digest(path)
    if actual != expected:
        raise _corrupt(uri, f"{path.name} has digest {actual} instead of {expected}")


def _check_regular(path: Path, uri: str) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError as error:
        raise _corrupt(uri, f"{path.name} is missing") from error
    if not stat.S_ISREG(mode):
        raise _corrupt(uri, f"{path.name} is not a regular file")


def _corrupt(uri: str, what: str) -> JobError:
    return JobError(
        Reason.BUNDLE_CORRUPT, uri, f"{what}.", "Restore the bundle in the store, or delete its folder and run again."
    )


def _place(bundle: Bundle, target: Path) -> None:
    """Copy to a folder beside `target`, flush to disk, rename. If another process was faster, its copy stays."""
    beside = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=target.parent))
    try:
        for name in (MANIFEST, *bundle.manifest.files):
            _copy_durably(bundle.folder / name, beside / name)
        beside.chmod(0o755)
        _sync(beside)
        _rename(beside, target)
        _sync(target.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _rename(source: Path, target: Path) -> None:
    try:
        source.rename(target)
    except OSError:
        if not target.is_dir():
            raise


def _copy_durably(source: Path, target: Path) -> None:
    with source.open("rb") as reader, target.open("wb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
        writer.flush()
        os.fsync(writer.fileno())
    target.chmod(0o644)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(parent: Path) -> None:
    """Remove temporary folders of writers that were killed long ago."""
    for path in parent.glob(f"{_TEMPORARY}*"):
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > _STALE_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def _canonical(document: Document) -> bytes:
    """Return a document as JSON in one canonical form: sorted keys, no spaces, no empty fields."""
    return _as_json(document.model_dump(mode="json", by_alias=True, exclude_none=True))


def _as_json(content: object) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
