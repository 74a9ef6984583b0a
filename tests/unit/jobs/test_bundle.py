"""A bundle is the same wherever it is made, appears whole or not at all, and is never opened when a byte changed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from optimizer_jobs.errors import JobError
from optimizer_jobs.models.bundle import Bundle, Lineage, manifest_digest, open_bundle, publish
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.names import MANIFEST
from optimizer_jobs.models.native import Native
from optimizer_jobs.models.onnx_file import check_onnx
from retune.api.model import ModelFormat
from retune.api.own_code import Factory
from retune.contract.paths import bundles
from retune.contract.results import Reason
from tests.unit.jobs.conftest import Claims
from tests.unit.jobs.faults import make_read_only, mounted_tmpfs

Make = Callable[..., Bundle]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")


def files(folder: Path) -> list[str]:
    """Return the relative names of all files under a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_the_same_content_has_the_same_digest(make: Make) -> None:
    """Two bundles of the same parts are byte for byte the same, whenever and wherever they are made."""
    first, second = make("first"), make("second")
    assert first.digest == second.digest
    for name in files(first.folder):
        assert (first.folder / name).read_bytes() == (second.folder / name).read_bytes()


def test_any_other_content_has_another_digest(make: Make, delivered: Path) -> None:
    """Model, options, techniques and lineage all count."""
    lineage = Lineage(resource="ml/digits", original_model="sha256:0", seed=1)
    variants = [
        make("a"),
        make("b", model=delivered / "conv.onnx"),
        make("c", engine=EngineOptions(threads=2)),
        make("d", techniques=("int8 dynamic",)),
        make("e", lineage=lineage),
    ]
    assert len({bundle.digest for bundle in variants}) == len(variants)


def test_run_and_trial_do_not_count(make: Make) -> None:
    """A candidate that a later run finds again has the digest under which it may have been rejected."""
    lineage = Lineage(resource="ml/digits", original_model="sha256:0", run="digits-1", trial=3)
    later = lineage.model_copy(update={"run": "digits-2", "trial": 9})
    assert make("a", lineage=lineage).digest == make("b", lineage=later).digest


def test_a_bundle_is_published_under_its_digest(make: Make, claims: Claims, store: str) -> None:
    """The published folder holds manifest, model and golden requests, readable for a server of another user."""
    bundle = make()
    reference = publish(bundle, uri=bundles(store))
    folder = claims.path(reference.uri)
    assert reference.uri == f"{store}/bundles/{bundle.digest.removeprefix('sha256:')}"
    assert files(folder) == ["bundle.json", "golden.json", "model.onnx"]
    assert folder.stat().st_mode & 0o777 == 0o755
    assert all(path.stat().st_mode & 0o777 == 0o644 for path in folder.iterdir())


def test_what_was_published_opens_as_it_was_made(make: Make, store: str) -> None:
    """Manifest, digest and golden requests survive the way through the store."""
    bundle = make()
    reference = publish(bundle, uri=bundles(store))
    opened = open_bundle(reference.uri, digest=reference.digest)
    assert opened.manifest == bundle.manifest
    assert opened.digest == bundle.digest == manifest_digest((opened.folder / MANIFEST).read_bytes())
    assert opened.golden == bundle.golden
    assert len(opened.golden.requests) == 8


def test_a_bundle_outlives_the_version_that_made_it(make: Make, claims: Claims, store: str) -> None:
    """A manifest written before fields with defaults were added opens under the digest it was published with."""
    bundle = make("new")
    content = json.loads((bundle.folder / MANIFEST).read_bytes())
    del content["task"], content["classes"], content["engine"]["streams"], content["engine"]["precision"]
    older = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    digest = manifest_digest(older)
    assert digest != bundle.digest
    folder = claims.path(bundles(store)) / digest.removeprefix("sha256:")
    shutil.copytree(bundle.folder, folder)
    (folder / MANIFEST).write_bytes(older)
    opened = open_bundle(f"{bundles(store)}/{folder.name}", digest=digest)
    assert (opened.digest, opened.manifest) == (digest, bundle.manifest)


def test_publishing_twice_changes_nothing(make: Make, claims: Claims, store: str) -> None:
    """The second time succeeds and leaves every file as it was."""
    bundle = make()
    first = publish(bundle, uri=bundles(store))
    before = {path: path.stat().st_mtime_ns for path in claims.path(first.uri).iterdir()}
    assert publish(bundle, uri=bundles(store)) == first
    assert {path: path.stat().st_mtime_ns for path in claims.path(first.uri).iterdir()} == before
    assert len(list(claims.path(bundles(store)).iterdir())) == 1


def test_publishing_mends_a_damaged_bundle(make: Make, claims: Claims, store: str) -> None:
    """Fault 23: what is not what its digest says is nobody's bundle; the right one takes its place."""
    bundle = make()
    reference = publish(bundle, uri=bundles(store))
    (claims.path(reference.uri) / "model.onnx").write_bytes(b"half")
    assert publish(bundle, uri=bundles(store)) == reference
    assert open_bundle(reference.uri, digest=reference.digest).digest == bundle.digest
    assert len(list(claims.path(bundles(store)).iterdir())) == 1


def test_many_writers_of_one_bundle_all_succeed(make: Make, claims: Claims, store: str) -> None:
    """Workers that find the same candidate at once publish it once, without leftovers."""
    bundle, found = make(), []
    writers = [threading.Thread(target=lambda: found.append(publish(bundle, uri=bundles(store)))) for _ in range(12)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(found) == 12
    assert len(list(claims.path(bundles(store)).iterdir())) == 1


def test_external_data_travels_in_the_bundle(make: Make, delivered: Path, tmp_path: Path, store: str) -> None:
    """Weights beside the model are in the bundle, in its size and under its digest."""
    path = tmp_path / "external.onnx"
    onnx.save(onnx.load(delivered / "mlp.onnx"), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    reference = publish(make(model=path), uri=bundles(store))
    opened = open_bundle(reference.uri, digest=reference.digest)
    assert set(opened.manifest.files) == {"golden.json", "model.onnx", "w.bin"}
    assert opened.manifest.size_bytes == path.stat().st_size + (tmp_path / "w.bin").stat().st_size
    assert check_onnx(opened.model) == opened.manifest.signature


def test_a_private_copy_holds_only_what_the_manifest_names(
    make: Make, claims: Claims, store: str, tmp_path: Path
) -> None:
    """With `into`, the files used are those verified; a stranger beside them is not even copied."""
    reference = publish(make(), uri=bundles(store))
    os.mkfifo(claims.path(reference.uri) / "stranger")
    opened = open_bundle(reference.uri, digest=reference.digest, into=tmp_path / "private")
    assert opened.folder.is_relative_to(tmp_path / "private")
    assert files(opened.folder) == ["bundle.json", "golden.json", "model.onnx"]


def corrupt(uri: str, digest: str | None = None) -> str:
    """Open a bundle that must be refused as BundleCorrupt, and return the sentence."""
    with pytest.raises(JobError) as caught:
        open_bundle(uri, digest=digest)
    assert caught.value.reason is Reason.BUNDLE_CORRUPT
    assert caught.value.object == uri
    return caught.value.message


@pytest.mark.parametrize("name", ["model.onnx", "golden.json"])
def test_a_changed_file_is_named(make: Make, claims: Claims, store: str, name: str) -> None:
    """One flipped bit, or a missing file, is seen and named."""
    reference = publish(make(), uri=bundles(store))
    path = claims.path(reference.uri) / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert name in corrupt(reference.uri)
    path.unlink()
    assert f"{name} is missing" in corrupt(reference.uri)


def test_a_changed_manifest_is_seen_by_its_digest(make: Make, claims: Claims, store: str) -> None:
    """Other options under the old digest are refused, as is another bundle in its place."""
    reference = publish(make(), uri=bundles(store))
    path = claims.path(reference.uri) / "bundle.json"
    manifest = json.loads(path.read_text())
    manifest["engine"]["threads"] = 64
    path.write_text(json.dumps(manifest))
    assert "instead of" in corrupt(reference.uri, reference.digest)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"formatVersion": 99}', "x" * (2 << 20)])
def test_a_manifest_that_is_none_is_refused(make: Make, claims: Claims, store: str, content: str) -> None:
    """Garbage, foreign versions and endless files are refused in a sentence."""
    reference = publish(make(), uri=bundles(store))
    (claims.path(reference.uri) / "bundle.json").write_text(content)
    assert "bundle.json" in corrupt(reference.uri)


def test_a_manifest_cannot_name_files_elsewhere(make: Make, claims: Claims, store: str) -> None:
    """Names in a manifest are plain names of the bundle's own folder."""
    reference = publish(make(), uri=bundles(store))
    path = claims.path(reference.uri) / "bundle.json"
    manifest = json.loads(path.read_text())
    manifest["files"]["../../../secret"] = manifest["modelDigest"]
    path.write_text(json.dumps(manifest))
    assert "plain names" in corrupt(reference.uri)


def delivered_as(path: Path) -> Native:
    """A file in another format, which a bundle only carries."""
    path.write_bytes(b"weights")
    return Native(path, ModelFormat.SAFETENSORS, Factory(entry_point="package.module:build"))


def test_the_native_file_travels_in_the_bundle(make: Make, store: str, tmp_path: Path) -> None:
    """It is published and verified like every other file, and does not count as size."""
    native = delivered_as(tmp_path / "net.safetensors")
    bundle, plain = make("with", native=native), make("without")
    opened = open_bundle(publish(bundle, uri=bundles(store)).uri, digest=bundle.digest)
    assert opened.native == Native(opened.folder / "native.safetensors", native.format, native.factory)
    assert opened.native.path.read_bytes() == b"weights"
    assert opened.manifest.size_bytes == plain.manifest.size_bytes
    opened.native.path.write_bytes(b"changed")
    assert "native.safetensors" in corrupt(f"file://{opened.folder}")


@pytest.mark.parametrize("file", ["../../../secret", "/etc/passwd", "golden.bin"])
def test_the_native_file_is_one_of_the_bundles_own(
    make: Make, claims: Claims, store: str, tmp_path: Path, file: str
) -> None:
    """A manifest cannot make a Job open what the bundle does not hold to a digest."""
    reference = publish(make(native=delivered_as(tmp_path / "net.safetensors")), uri=bundles(store))
    path = claims.path(reference.uri) / "bundle.json"
    manifest = json.loads(path.read_text())
    manifest["native"]["file"] = file
    path.write_text(json.dumps(manifest))
    assert "plain names" in corrupt(reference.uri)


def test_a_linked_file_is_refused(make: Make, claims: Claims, store: str, delivered: Path) -> None:
    """A link in place of the model is refused, even when it leads to the same bytes."""
    reference = publish(make(), uri=bundles(store))
    model = claims.path(reference.uri) / "model.onnx"
    model.unlink()
    model.symlink_to(delivered / "mlp.onnx")
    assert "not a regular file" in corrupt(reference.uri)


def test_an_absent_bundle_is_not_found(store: str) -> None:
    """The URI is in the sentence."""
    with pytest.raises(JobError) as caught:
        open_bundle(f"{store}/bundles/{'0' * 64}")
    assert caught.value.reason is Reason.BUNDLE_NOT_FOUND


@needs_root
def test_a_full_store_is_named_and_left_clean(make: Make, claims: Claims) -> None:
    """A store without space gives StoreFull with its URI; nothing half-published stays, and space makes it work."""
    bundle = make()
    with mounted_tmpfs(claims.root / "small", size="48k") as volume:
        with pytest.raises(JobError) as caught:
            publish(bundle, uri="pvc://small/bundles")
        assert caught.value.reason is Reason.STORE_FULL
        assert caught.value.object.startswith("pvc://small/bundles/")
        assert not files(volume)
        assert not list((volume / "bundles").iterdir())
        subprocess.run(["mount", "-o", "remount,size=1m", str(volume)], check=True)
        assert open_bundle(publish(bundle, uri="pvc://small/bundles").uri).digest == bundle.digest


@needs_root
def test_a_read_only_store_is_named(make: Make, claims: Claims) -> None:
    """A store that cannot be written gives StoreNotWritable, not a stack of errors."""
    with mounted_tmpfs(claims.root / "frozen", size="1m") as volume:
        make_read_only(volume)
        with pytest.raises(JobError) as caught:
            publish(make(), uri="pvc://frozen/bundles")
    assert caught.value.reason is Reason.STORE_NOT_WRITABLE


WRITER = """
import sys
from pathlib import Path
from optimizer_jobs.models import bundle
copy = bundle._copy_durably
def pause(source, target):
    copy(source, target)
    print("half", flush=True)
    sys.stdin.read()
bundle._copy_durably = pause
bundle.publish(bundle.open_bundle(sys.argv[1]), uri=sys.argv[2])
"""


def test_a_killed_writer_leaves_nothing_that_counts(make: Make, claims: Claims, store: str) -> None:
    """Killed in the middle, a writer leaves no bundle under its name; the next writer succeeds and tidies up."""
    bundle = make()
    command = [sys.executable, "-c", WRITER, f"file://{bundle.folder}", bundles(store)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"half\n"
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    leftover = next(claims.path(bundles(store)).iterdir())
    assert leftover.name.startswith(".writing-")
    os.utime(leftover, (0, 0))
    reference = publish(bundle, uri=bundles(store))
    assert [path.name for path in claims.path(bundles(store)).iterdir()] == [reference.uri.rpartition("/")[2]]
