"""Signatures of images in cosign's form, by a key that the registry's Secret may have.

A signature says that whoever has the key has pushed the image, and nothing about how it got there. Every platform's
manifest is signed besides the index, because container runtimes look at the one that they run.
"""

import base64
import json
import os
from collections.abc import Iterable, Iterator
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from optimizer_jobs.data.transfer import CredentialsError
from optimizer_jobs.registries.oci.access import UnfitAnswerError
from optimizer_jobs.registries.oci.layers import Blob, digest_of
from optimizer_jobs.registries.oci.references import Repository, is_digest
from optimizer_jobs.registries.oci.registry import MANIFEST, Manifest, Registry

KEY = "REGISTRY_SIGNING_KEY"
"""Environment variable with a private key on P-256, as PEM text without a password."""

_PAYLOAD = "application/vnd.dev.cosign.simplesigning.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_SIGNATURE = "dev.cosignproject.cosign/signature"
_TYPE = "cosign container image signature"
_ALGORITHM = ec.ECDSA(SHA256(), deterministic_signing=True)
_MOST_SIGNATURES = 32


def signing_key() -> ec.EllipticCurvePrivateKey | None:
    """Return the key of the environment, or None without one; raises CredentialsError for what is none."""
    text = os.environ.get(KEY, "").strip()
    if not text:
        return None
    try:
        key = load_pem_private_key(text.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise CredentialsError(f"{KEY} is no private key as PEM without a password.") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise CredentialsError(f"{KEY} is no key on the curve P-256 (prime256v1).")
    return key


async def sign(
    registry: Registry, repository: Repository, digests: Iterable[str], key: ec.EllipticCurvePrivateKey
) -> None:
    """Sign manifests that are there. Signatures of others stay, and what this key has signed is not signed again.

    Raises:
        UnfitAnswerError: What the registry has in the place of the signatures is none of cosign's.
    """
    for digest in digests:
        found = await registry.manifest(_tag(digest))
        layers = _layers(found) if found else []
        payload = _payload(repository, digest)
        if not any(_fits(layer, payload, key.public_key()) for layer in layers):
            await _add(registry, digest, layers, payload, key)


async def verified(registry: Registry, digest: str, public_key: str) -> bool:
    """Return whether a signature of an image is that of a key.

    Args:
        registry: The repository of the image.
        digest: Digest of the image, or of one of its manifests.
        public_key: The key on P-256, as PEM text.

    Raises:
        CredentialsError: This is no such key.
    """
    found = await registry.manifest(_tag(digest))
    key = _public(public_key)
    for layer in _layers(found) if found else []:
        payload = await registry.blob(str(layer["digest"]))
        if _is_about(payload, digest) and _fits(layer, payload, key):
            return True
    return False


def _tag(digest: str) -> str:
    return f"{digest.replace(':', '-')}.sig"


def _payload(repository: Repository, digest: str) -> bytes:
    """Return what is signed."""
    about = {
        "critical": {
            "identity": {"docker-reference": f"{repository.host}/{repository.name}"},
            "image": {"docker-manifest-digest": digest},
            "type": _TYPE,
        },
        "optional": None,
    }
    return json.dumps(about, separators=(",", ":")).encode()


async def _add(
    registry: Registry, digest: str, layers: list[dict[str, Any]], payload: bytes, key: ec.EllipticCurvePrivateKey
) -> None:
    """Put a signature beside those that are there."""
    blob = Blob.of(payload, _PAYLOAD)
    signature = base64.b64encode(key.sign(payload, _ALGORITHM)).decode()
    signed = [*layers, blob.descriptor | {"annotations": {_SIGNATURE: signature}}]
    rootfs = {"type": "layers", "diff_ids": [layer["digest"] for layer in signed]}
    configuration = Blob.of(_json({"architecture": "", "os": "", "config": {}, "rootfs": rootfs}), _CONFIG)
    for each in (blob, configuration):
        if not await registry.has_blob(each.digest):
            await registry.put_blob(each)
    content = {"schemaVersion": 2, "mediaType": MANIFEST, "config": configuration.descriptor, "layers": signed}
    await registry.put_manifest(Manifest(_json(content), MANIFEST), tag=_tag(digest))


def _layers(found: Manifest) -> list[dict[str, Any]]:
    """Return the signatures of a manifest; raises UnfitAnswerError where it is of something else."""
    return list(_checked(found.content))


def _checked(content: bytes) -> Iterator[dict[str, Any]]:
    try:
        layers = json.loads(content)["layers"]
    except (ValueError, TypeError, KeyError, RecursionError):
        layers = None
    if not isinstance(layers, list) or len(layers) > _MOST_SIGNATURES:
        raise UnfitAnswerError("what it has as signatures of the image are none of cosign's.")
    for layer in layers:
        if not isinstance(layer, dict) or not is_digest(str(layer.get("digest"))):
            raise UnfitAnswerError("what it has as a signature of the image is none of cosign's.")
        yield layer


def _is_about(payload: bytes, digest: str) -> bool:
    try:
        critical = json.loads(payload)["critical"]
        return bool(critical["type"] == _TYPE and critical["image"]["docker-manifest-digest"] == digest)
    except (ValueError, TypeError, KeyError, RecursionError):
        return False


def _fits(layer: dict[str, Any], payload: bytes, key: ec.EllipticCurvePublicKey) -> bool:
    """Return whether a layer has this key's signature of a payload."""
    annotations = layer.get("annotations")
    text = annotations.get(_SIGNATURE) if isinstance(annotations, dict) else None
    if layer["digest"] != digest_of(payload) or not isinstance(text, str):
        return False
    try:
        key.verify(base64.b64decode(text, validate=True), payload, ec.ECDSA(SHA256()))
    except (ValueError, InvalidSignature):
        return False
    return True


def _public(text: str) -> ec.EllipticCurvePublicKey:
    try:
        key = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CredentialsError("the key is no public key as PEM.") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise CredentialsError("the key is none on the curve P-256 (prime256v1).")
    return key


def _json(content: object) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
