"""A folder as a store: what volumes do wrong is a sentence, and half an object is never there."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from optimizer_jobs.stores.base import Kind, StoreError, require_conditional
from optimizer_jobs.stores.folder import FolderStore
from retune.contract.results import Reason
from tests.unit.jobs.faults import make_read_only, mounted_tmpfs

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
WRITER = """
import os, sys
from pathlib import Path
from optimizer_jobs.stores.folder import FolderStore
def stop(source, target):
    print("written", flush=True)
    sys.stdin.readline()
os.link = stop
FolderStore(Path(sys.argv[1])).create("a/one", b"one")
"""


def fails(store: FolderStore, key: str, content: bytes, kind: Kind) -> StoreError:
    """Write what must fail so."""
    with pytest.raises(StoreError) as caught:
        store.create(key, content)
    assert caught.value.kind is kind
    assert caught.value.object == f"{store.uri}/{key}"
    return caught.value


@needs_root
def test_a_full_volume_is_told_and_left_clean(tmp_path: Path) -> None:
    """And there is room for small objects again."""
    with mounted_tmpfs(tmp_path / "small", size="64k") as volume:
        store = FolderStore(volume, uri="pvc://small")
        assert fails(store, "large", b"x" * 100_000, Kind.QUOTA).reason is Reason.STORE_FULL
        assert not list(store.stats(""))
        assert not list((volume / ".writing").iterdir())
        assert store.create("small", b"x" * 1000)


@needs_root
def test_a_volume_that_may_only_be_read_is_told(tmp_path: Path) -> None:
    """What is there can still be read."""
    with mounted_tmpfs(tmp_path / "frozen", size="1m") as volume:
        store = FolderStore(volume)
        store.create("one", b"one")
        make_read_only(volume)
        assert fails(store, "two", b"two", Kind.READ_ONLY).reason is Reason.STORE_NOT_WRITABLE
        assert store.read("one", limit=10) == b"one"


def test_an_object_is_no_folder(tmp_path: Path) -> None:
    """Keys below it are refused, and not taken for keys that are there."""
    store = FolderStore(tmp_path / "store")
    store.create("one", b"one")
    fails(store, "one/two", b"two", Kind.KEY)


def test_a_writer_that_is_killed_leaves_no_object(tmp_path: Path) -> None:
    """Killed with -9 when everything but the name was written; a day later what it left is removed."""
    command = [sys.executable, "-c", WRITER, str(tmp_path / "store")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline().strip() == "written"
        writer.send_signal(signal.SIGKILL)
    store = FolderStore(tmp_path / "store")
    assert not list(store.stats(""))
    (left,) = (tmp_path / "store" / ".writing").iterdir()
    yesterday = time.time() - 90_000
    os.utime(left, (yesterday, yesterday))
    assert store.create("a/one", b"one")
    assert not list((tmp_path / "store" / ".writing").iterdir())


def test_a_volume_without_hard_links_is_refused_for_studies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network volumes have none, and say so."""

    def none(source: Path, target: Path) -> None:
        raise OSError(95, "Operation not supported", str(source), None, str(target))

    monkeypatch.setattr(os, "link", none)
    with pytest.raises(StoreError, match="Operation not supported"):
        require_conditional(FolderStore(tmp_path / "store"))
