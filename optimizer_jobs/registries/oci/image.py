"""A bundle as an image: its files under /models, as KServe and Kubernetes' image volumes want them.

The same bundle with the same annotations is the same image, digest by digest. It runs nothing, but an image volume is
taken for the platform of its node only, so there is a manifest for each, and they share their layers.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.names import MANIFEST as BUNDLE_MANIFEST
from optimizer_jobs.registries.oci.layers import Blob, Layer, write_layers
from optimizer_jobs.registries.oci.registry import INDEX, MANIFEST, Manifest
from optimizer_jobs.serving import ovms, triton
from retune.contract.requests import Server

FOLDER = "models"
"""Folder of the image that KServe looks into."""
ARCHITECTURES = ("amd64", "arm64")

RESOURCE = "dev.retune.resource"
"""Annotation with the resource that an image belongs to, as namespace/name."""

_CONFIG = "application/vnd.oci.image.config.v1+json"
_EPOCH = "1970-01-01T00:00:00Z"
_LAYOUTS = {Server.TRITON: triton.layout, Server.OVMS: ovms.layout}


@dataclass(frozen=True)
class Image:
    """What a registry is given, in this order: blobs, manifests, and the index that names them."""

    blobs: tuple[Blob, ...]
    manifests: tuple[Manifest, ...]
    index: Manifest


def build(
    bundle: Bundle, folder: Path, *, annotations: Mapping[str, str], servers: Sequence[Server] = (), name: str = "model"
) -> Image:
    """Write a bundle's layers into an existing folder, and return the image.

    Args:
        bundle: A verified bundle.
        folder: Where the layers are written; they have to stay there until they are sent.
        annotations: What is said of the image besides its bundle, resource and run.
        servers: Servers whose layout it holds too, under `serve/`.
        name: Name of the model in these layouts.

    Raises:
        JobError: One of these servers cannot serve the bundle.
        OSError: A layer cannot be written.
    """
    layers = write_layers(_files(bundle, servers, name), folder)
    configurations = {each: _configuration(layers, each) for each in ARCHITECTURES}
    said = _said(bundle) | dict(annotations)
    manifests = {each: _manifest(layers, config, said) for each, config in configurations.items()}
    return Image(
        blobs=(*(layer.blob for layer in layers), *configurations.values()),
        manifests=tuple(manifests.values()),
        index=_index(manifests, said),
    )


def _files(bundle: Bundle, servers: Sequence[Server], name: str) -> dict[str, bytes | Path]:
    """Return content by path in the image."""
    files: dict[str, bytes | Path] = {
        f"{FOLDER}/{file}": bundle.folder / file for file in (BUNDLE_MANIFEST, *bundle.manifest.files)
    }
    for server in servers:
        made = _LAYOUTS[server](bundle, name=name).files
        files |= {f"{FOLDER}/serve/{server.value.lower()}/{path}": content for path, content in made.items()}
    return files


def _said(bundle: Bundle) -> dict[str, str]:
    lineage = bundle.manifest.lineage
    said = {
        "org.opencontainers.image.title": lineage.resource,
        "org.opencontainers.image.version": bundle.digest.removeprefix("sha256:")[:12],
        "dev.retune.digest": bundle.digest,
        RESOURCE: lineage.resource,
    }
    return said | ({"dev.retune.run": lineage.run} if lineage.run else {})


def _configuration(layers: Sequence[Layer], architecture: str) -> Blob:
    content = {
        "architecture": architecture,
        "os": "linux",
        "created": _EPOCH,
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id for layer in layers]},
        "history": [{"created": _EPOCH, "created_by": "retune"} for _ in layers],
    }
    return Blob.of(_json(content), _CONFIG)


def _manifest(layers: Sequence[Layer], configuration: Blob, annotations: Mapping[str, str]) -> Manifest:
    content = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": configuration.descriptor,
        "layers": [layer.blob.descriptor for layer in layers],
        "annotations": annotations,
    }
    return Manifest(_json(content), MANIFEST)


def _index(manifests: Mapping[str, Manifest], annotations: Mapping[str, str]) -> Manifest:
    content = {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [
            manifest.descriptor | {"platform": {"architecture": each, "os": "linux"}}
            for each, manifest in manifests.items()
        ],
        "annotations": annotations,
    }
    return Manifest(_json(content), INDEX)


def _json(content: object) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
