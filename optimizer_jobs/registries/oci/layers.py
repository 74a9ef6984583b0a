"""Layers of an image: tar files in gzip's form, which are the same bytes on every machine.

What a compressor makes of the same bytes changes with its version, and a layer would get another digest and be sent
again. So gzip's stored form is written, which every reader of gzip takes.
"""

import hashlib
import io
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

MEDIA_TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
LARGE_BYTES = 1 << 20
"""Size from which a file has a layer of its own, so that it is not sent again when another file changes."""

_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
"""Deflate, no name, no time, no system."""
_BLOCK = 0xFFFF
_COPIED = 1 << 20


@dataclass(frozen=True)
class Blob:
    """Content that a registry is given under its digest."""

    content: bytes | Path
    digest: str
    size: int
    media_type: str

    @property
    def descriptor(self) -> dict[str, object]:
        """How manifests name it."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": self.size}

    @classmethod
    def of(cls, content: bytes, media_type: str) -> "Blob":
        """Return bytes as a blob."""
        return cls(content, digest_of(content), len(content), media_type)


@dataclass(frozen=True)
class Layer:
    """A layer, and the digest of its tar file, which the image's configuration names."""

    blob: Blob
    diff_id: str


def digest_of(content: bytes) -> str:
    """Return the digest of bytes as registries write it."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def write_layers(files: Mapping[str, bytes | Path], folder: Path) -> tuple[Layer, ...]:
    """Write files as layers: the small ones together, and each large one by itself.

    Args:
        files: Content by absolute path in the image, without the leading slash.
        folder: Existing folder that the layers are written into.

    Raises:
        OSError: A file cannot be read, or a layer not be written.
    """
    small = {path: content for path, content in files.items() if _size(content) < LARGE_BYTES}
    groups = [small, *({path: files[path]} for path in sorted(files.keys() - small.keys()))]
    return tuple(_write(group, folder / f"layer-{number}") for number, group in enumerate(groups) if group)


def _size(content: bytes | Path) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _write(files: Mapping[str, bytes | Path], path: Path) -> Layer:
    with path.open("wb") as sink:
        stored = _Stored(sink)
        with tarfile.open(fileobj=stored, mode="w|", bufsize=_COPIED, format=tarfile.PAX_FORMAT) as tar:
            for folder in sorted({str(parent) for name in files for parent in PurePosixPath(name).parents} - {"."}):
                tar.addfile(_entry(folder, tarfile.DIRTYPE, 0o755))
            for name in sorted(files):
                _add(tar, name, files[name])
        stored.finish()
    blob = Blob(path, f"sha256:{stored.whole.hexdigest()}", path.stat().st_size, MEDIA_TYPE)
    return Layer(blob, f"sha256:{stored.inner.hexdigest()}")


def _add(tar: tarfile.TarFile, name: str, content: bytes | Path) -> None:
    entry = _entry(name, tarfile.REGTYPE, 0o644)
    entry.size = _size(content)
    with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as source:
        tar.addfile(entry, source)


def _entry(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    """Return an entry that belongs to root and is as old as it can be."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = kind, mode
    return entry


class _Stored(io.RawIOBase):
    """Takes bytes and writes them in gzip's stored form."""

    def __init__(self, sink: BinaryIO) -> None:
        super().__init__()
        self.whole, self.inner = hashlib.sha256(), hashlib.sha256()
        self._sink, self._buffer = sink, bytearray()
        self._checksum, self._length = 0, 0
        self._put(_HEADER)

    def write(self, content: object, /) -> int:
        """Take bytes; what fills no block waits for more."""
        taken = memoryview(content).cast("B")  # type: ignore[arg-type]  # what tarfile gives is bytes
        self.inner.update(taken)
        self._checksum = zlib.crc32(taken, self._checksum)
        self._length += len(taken)
        self._buffer += taken
        whole = len(self._buffer) - len(self._buffer) % _BLOCK
        for start in range(0, whole, _BLOCK):
            self._block(self._buffer[start : start + _BLOCK], is_last=False)
        del self._buffer[:whole]
        return len(taken)

    def finish(self) -> None:
        """Write the last block and the checksum."""
        self._block(self._buffer, is_last=True)
        self._put(self._checksum.to_bytes(4, "little") + (self._length % (1 << 32)).to_bytes(4, "little"))

    def _block(self, content: bytearray, *, is_last: bool) -> None:
        size = len(content)
        self._put(bytes([is_last]) + size.to_bytes(2, "little") + (size ^ _BLOCK).to_bytes(2, "little"))
        self._put(content)

    def _put(self, content: bytes | bytearray) -> None:
        self.whole.update(content)
        self._sink.write(content)
