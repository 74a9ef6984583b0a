"""What a URI names for a model server: a bundle, copied and verified, or an ONNX file as it was delivered."""

import re
from pathlib import Path

from optimizer_jobs.agent.environment import buckets_allowed
from optimizer_jobs.data.volumes import local_path
from optimizer_jobs.errors import JobError
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.names import MANIFEST, MODEL
from optimizer_jobs.stores.opening import is_bucket
from optimizer_jobs.stores.published import fetch_delivered, open_bundle
from retune.contract.results import Reason

_NAMED = re.compile(r".*/(?P<digest>[0-9a-f]{64})/?")


def as_uri(uri: str | Path) -> str:
    """Return a URI; a path of this machine is one of `file:///`."""
    text = str(uri)
    return text if "://" in text else f"file://{Path(text).resolve()}"


def fetched(uri: str, *, into: Path) -> Bundle | Path:
    """Return the bundle at a URI, from a private copy that was verified, or the ONNX file that is there.

    Args:
        uri: pvc://CLAIM/PATH, which is below /mnt/pvc/CLAIM as in Retune's Jobs; s3://BUCKET/PATH; gs://BUCKET/PATH; or
            file:///PATH. It leads to the folder of a bundle, to an ONNX file, or on a volume to a folder with one. A
            bundle must have the digest that the last part of the URI names.
        into: An empty folder for the copy.

    Raises:
        JobError: There is nothing, it is damaged, or the bucket cannot be read.
    """
    if not is_bucket(uri):
        place = local_path(uri)
        is_bundle = _NAMED.fullmatch(uri) or (place / MANIFEST).is_file()  # KServe mounts one where no path names it
        return _bundle(uri, into=into) if is_bundle else _file(place, uri)
    with buckets_allowed():
        return fetch_delivered(uri, into=into) if uri.endswith(".onnx") else _bundle(uri, into=into)


def _bundle(uri: str, *, into: Path) -> Bundle:
    named = _NAMED.fullmatch(uri)
    return open_bundle(uri.rstrip("/"), digest=f"sha256:{named['digest']}" if named else None, into=into)


def _file(place: Path, uri: str) -> Path:
    if place.is_dir():
        place = _of_folder(place, uri)
    if not place.is_file():
        raise JobError(
            Reason.MODEL_NOT_FOUND, uri, "there is no such file.", "Check the mount, and whether the model was written."
        )
    return place


def _of_folder(folder: Path, uri: str) -> Path:
    """Return the model of a folder that is no bundle: its only ONNX file, or the one of several with a model's name."""
    files = sorted(folder.glob("*.onnx"))
    if len(files) > 1 and folder / MODEL not in files:
        names = ", ".join(file.name for file in files[:5])
        message = f"there are several ONNX files ({names}), and none is {MODEL}."
        raise JobError(Reason.MODEL_NOT_FOUND, uri, message, "Name the one that serves.")
    return folder / MODEL if len(files) > 1 else next(iter(files), folder)
