"""Bundles in the store's volume, damaged as a disk or a person does it; on the local cluster, claims are folders."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e import kube
from tests.e2e.scenario import NAMESPACE

_MODEL = "model.onnx"


def folder_of(uri: str) -> Path:
    """Return the folder that a URI of a claim names."""
    claim, _, path = uri.removeprefix("pvc://").partition("/")
    volume = kube.get("persistentvolumeclaim", claim, namespace=NAMESPACE)["spec"]["volumeName"]
    return Path(kube.kubectl.get("persistentvolume", volume)["spec"]["hostPath"]["path"]) / path


@contextmanager
def damaged(uri: str) -> Iterator[None]:
    """Have a byte too many in the model of a bundle."""
    model = folder_of(uri) / _MODEL
    whole = model.stat().st_size
    with model.open("ab") as file:
        file.write(b"x")
    try:
        yield
    finally:
        with model.open("ab") as file:
            file.truncate(whole)


@contextmanager
def damaged_copy(uri: str) -> Iterator[str]:
    """Have a damaged copy of a bundle, beside all others; yields its URI."""
    store, _, digest = uri.rpartition("/")
    other = f"{store}-damaged/{digest}"
    shutil.copytree(folder_of(uri), folder_of(other))
    try:
        with damaged(other):
            yield other
    finally:
        shutil.rmtree(folder_of(other).parent)
