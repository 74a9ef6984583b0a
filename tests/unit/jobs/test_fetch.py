"""A fetched file is exactly the file that was promised, or the Job says why not."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from optimizer_jobs.data.fetch import fetch
from optimizer_jobs.data.volumes import file_digest
from optimizer_jobs.errors import JobError
from retune.contract.paths import SCRATCH_VARIABLE
from retune.contract.results import Reason
from tests.unit.jobs.conftest import Claims
from tests.unit.jobs.faults import mounted_tmpfs

LIMIT = 10 << 20
NOBODY = 65534


@contextmanager
def as_nobody() -> Iterator[None]:
    """Do something as a user who is not root, so that permissions count."""
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def test_a_file_arrives_whole_with_its_digest(claims: Claims, tmp_path: Path) -> None:
    """The copy has the same bytes, and digest and size are those of the bytes."""
    original = (claims.root / "digits" / "mlp.onnx").read_bytes()
    fetched = fetch("pvc://digits/mlp.onnx", limit_bytes=LIMIT, into=tmp_path / "in", what="Model")
    assert fetched.path.read_bytes() == original
    assert fetched.path.name == "mlp.onnx"
    assert fetched.digest == f"sha256:{hashlib.sha256(original).hexdigest()}" == file_digest(fetched.path)
    assert fetched.size == len(original)


def test_the_promised_digest_is_accepted(claims: Claims, tmp_path: Path) -> None:
    """A digest in the spec that fits changes nothing."""
    digest = file_digest(claims.root / "digits" / "mlp.onnx")
    assert (
        fetch("pvc://digits/mlp.onnx", digest=digest, limit_bytes=LIMIT, into=tmp_path, what="Model").digest == digest
    )


def test_a_wrong_digest_is_refused_and_leaves_nothing(claims: Claims, tmp_path: Path) -> None:
    """A file that is not the promised one is named with both digests, and the copy is removed."""
    digest = f"sha256:{'0' * 64}"
    with pytest.raises(JobError) as caught:
        fetch("pvc://digits/mlp.onnx", digest=digest, limit_bytes=LIMIT, into=tmp_path / "in", what="Model")
    assert caught.value.reason is Reason.DIGEST_MISMATCH
    assert digest in caught.value.message
    assert file_digest(claims.root / "digits" / "mlp.onnx") in caught.value.message
    assert not list((tmp_path / "in").iterdir())


@pytest.mark.parametrize(
    ("uri", "what", "reason"),
    [
        ("pvc://digits/absent.onnx", "Model", Reason.MODEL_NOT_FOUND),
        ("pvc://no-claim/absent.npz", "Data", Reason.DATA_NOT_FOUND),
        ("pvc://digits/mlp.onnx/below", "Model", Reason.MODEL_NOT_FOUND),
        ("pvc://digits", "Model", Reason.MODEL_NOT_FOUND),
    ],
)
def test_what_is_not_there_is_named(claims: Claims, tmp_path: Path, uri: str, what: str, reason: Reason) -> None:
    """A missing file, claim or folder is NotFound and the URI is in the sentence."""
    assert claims.root.is_dir()
    with pytest.raises(JobError) as caught:
        fetch(uri, limit_bytes=LIMIT, into=tmp_path / "in", what=what)  # type: ignore[arg-type]
    assert caught.value.reason is reason
    assert uri in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
@pytest.mark.parametrize("locked", ["mlp.onnx", "."])
def test_a_file_the_user_may_not_read_is_forbidden(claims: Claims, tmp_path: Path, locked: str) -> None:
    """A file without permission, or in a folder without, is Forbidden with what to do, not NotFound."""
    for folder in (tmp_path, *tmp_path.parents[:3], claims.root):
        folder.chmod(folder.stat().st_mode | 0o055)
    into = tmp_path / "in"
    into.mkdir(mode=0o777)
    into.chmod(0o777)
    (claims.root / "digits" / locked).chmod(0o600)
    with as_nobody(), pytest.raises(JobError) as caught:
        fetch("pvc://digits/mlp.onnx", limit_bytes=LIMIT, into=into, what="Model")
    assert caught.value.reason is Reason.MODEL_FORBIDDEN
    assert "chmod" in caught.value.next_step


def test_a_link_out_of_the_claim_is_forbidden(claims: Claims, tmp_path: Path) -> None:
    """A link to a file of the container itself is not read."""
    (claims.root / "digits" / "shadow.npz").symlink_to("/etc/shadow")
    with pytest.raises(JobError) as caught:
        fetch("pvc://digits/shadow.npz", limit_bytes=LIMIT, into=tmp_path / "in", what="Data")
    assert caught.value.reason is Reason.DATA_FORBIDDEN
    assert not (tmp_path / "in").exists()


def test_a_pipe_is_refused_without_waiting_for_it(claims: Claims, tmp_path: Path) -> None:
    """Opening a named pipe would block for ever, so only regular files are opened."""
    os.mkfifo(claims.root / "digits" / "pipe.npz")
    with pytest.raises(JobError, match="not a regular file"):
        fetch("pvc://digits/pipe.npz", limit_bytes=LIMIT, into=tmp_path, what="Data")


def test_a_file_over_the_limit_is_refused_before_it_is_read(claims: Claims, tmp_path: Path) -> None:
    """A sparse file of 1 TB is refused by its size."""
    with (claims.root / "digits" / "huge.npz").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(JobError) as caught:
        fetch("pvc://digits/huge.npz", limit_bytes=LIMIT, into=tmp_path / "in", what="Data")
    assert caught.value.reason is Reason.DATA_TOO_LARGE
    assert not list((tmp_path / "in").iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
def test_a_full_scratch_volume_is_told_from_a_full_store(claims: Claims, tmp_path: Path) -> None:
    """When the copy does not fit, the file is too large for the Job; nothing stays behind."""
    assert claims.root.is_dir()
    with mounted_tmpfs(tmp_path / "scratch", size="32k") as scratch:
        with pytest.raises(JobError) as caught:
            fetch("pvc://digits/mlp.onnx", limit_bytes=LIMIT, into=scratch, what="Model")
        assert not list(scratch.iterdir())
    assert caught.value.reason is Reason.MODEL_TOO_LARGE
    assert "scratch" in caught.value.message


def test_a_model_that_the_scratch_folder_cannot_hold_is_refused_before_it_is_copied(
    claims: Claims, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is copied, converted and copied again; a pod that fills its scratch folder is evicted without a word."""
    size = (claims.root / "digits" / "mlp.onnx").stat().st_size
    monkeypatch.setenv(SCRATCH_VARIABLE, str(3 * size - 1))
    with pytest.raises(JobError) as caught:
        fetch("pvc://digits/mlp.onnx", limit_bytes=LIMIT, into=tmp_path / "in", what="Model")
    assert caught.value.reason is Reason.MODEL_TOO_LARGE
    assert "spec.execution.scratchSize to 1Gi" in caught.value.next_step
    assert not list((tmp_path / "in").iterdir())
    monkeypatch.setenv(SCRATCH_VARIABLE, str(3 * size))
    fetch("pvc://digits/mlp.onnx", limit_bytes=LIMIT, into=tmp_path / "in", what="Model")
    with pytest.raises(JobError):  # a second file beside it, as weights have, counts with it
        fetch("pvc://digits/mlp.onnx", limit_bytes=LIMIT, into=tmp_path / "in", what="Model")
    assert fetch("pvc://digits/mlp.onnx", limit_bytes=LIMIT, into=tmp_path / "data", what="Data").size == size
