"""`retune labels suggest` reads captured rows, labels and the store from buckets, with the caller's own credentials."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from pyarrow import parquet

from optimizer_jobs.production.writer import CaptureWriter
from optimizer_jobs.signature import Signature, TensorSpec
from retune.api.production import CaptureFormat
from retune.cli import buckets, copies
from retune.cli import main as command_line
from retune.cli.access import AccessError, Cluster
from retune.cli.follow import Exit
from retune.cluster.client import Response
from tests import samples
from tests.storage import servers
from tests.storage.servers import Store

pytest.importorskip("s3fs")

NOW, HOUR = 1_764_000_000, 3600
SERVES = "sha256:" + "ab" * 32
FOLDER = "suggest/captured"


def put(server: Store, folder: Path, prefix: str) -> None:
    """Copy a folder of this machine into the bucket."""
    for path in folder.rglob("*.parquet"):
        server.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())


@pytest.fixture
def bucket_of_rows(
    bucket: str, server_of: Callable[[str], Store], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """A bucket with forty rows of a day ago, forty new ones, and labels of ten of these; a person has logged in."""
    server = server_of(bucket.partition("://")[0])
    signature = Signature(
        inputs=(TensorSpec(name="x", dtype="float32", shape=(-1, 3)),),
        outputs=(TensorSpec(name="p", dtype="float32", shape=(-1, 2)),),
    )
    generator, captured = np.random.default_rng(0), tmp_path / "captured"
    writer = CaptureWriter(captured, signature)
    for number in range(80):
        share = np.float32(generator.random())
        inputs = {"x": generator.normal(size=(1, 3)).astype(np.float32)}
        time = NOW + number if number >= 40 else NOW - 30 * HOUR + number
        assert writer.offer(f"r{number}", SERVES, inputs, {"p": np.array([[share, 1 - share]])}, time)
    writer.close()
    labels = tmp_path / "labels" / "deep"
    labels.mkdir(parents=True)
    table = pa.table({"request_id": [f"r{number}" for number in range(40, 50)], "label": [1] * 10})
    parquet.write_table(table, labels / "a.parquet")
    put(server, captured, FOLDER)
    put(server, tmp_path / "labels", "suggest/labels")
    monkeypatch.delenv("CA_CERTIFICATES")
    for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE") if server.pki else ():
        monkeypatch.setenv(name, str(server.pki and server.pki / "ca.crt"))
    return bucket


@pytest.fixture
def manifest(bucket_of_rows: str, tmp_path: Path) -> Path:
    """A manifest that names them."""
    production = {"uri": f"{bucket_of_rows}/{FOLDER}", "labels": {"uri": f"{bucket_of_rows}/suggest/labels"}}
    spec = samples.MANIFEST["spec"] | {"monitoring": {"production": production}}
    path = tmp_path / "digits.yaml"
    path.write_text(yaml.safe_dump(samples.MANIFEST | {"spec": spec}))
    return path


def test_rows_and_labels_in_a_bucket_are_read(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the last day only, and those that have a label are left out."""
    ask = tmp_path / "ask.parquet"
    words = ["labels", "suggest", "-f", str(manifest), "--rows", "12", "--save", str(ask), "-o", "json"]
    assert command_line.main(words) == Exit.DONE
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["unlabelled"], found["labelled"]) == (12, 30, 10)
    asked = parquet.read_table(ask)["request_id"].to_pylist()
    assert set(asked) <= {f"r{number}" for number in range(50, 80)}
    assert command_line.main([*words, "--since", "48h"]) == Exit.DONE
    assert json.loads(capsys.readouterr().out)["unlabelled"] == 70


def test_what_the_store_says_of_the_version_that_serves_is_read(
    manifest: Path,
    bucket_of_rows: str,
    server_of: Callable[[str], Store],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Only the resource is read of the cluster. A store without the bundle is a note; what is there is copied."""
    document = yaml.safe_load(manifest.read_text())
    name, store = SERVES.removeprefix("sha256:"), f"{bucket_of_rows}/suggest/store"
    champion = {"version": 1, "digest": SERVES, "uri": f"{store}/bundles/{name}"}
    document["metadata"] |= {"namespace": "ml", "uid": "u", "generation": 1}
    document["status"] = {"champion": champion}
    answer = Response(200, json.dumps(document).encode())
    monkeypatch.setattr(Cluster, "connect", lambda **_: Cluster(lambda _: answer, namespace="ml"))
    words = ["labels", "suggest", "digits", "--save", str(tmp_path / "ask.parquet"), "-o", "json"]
    assert command_line.main(words) == Exit.DONE
    assert any("bundles could not be read" in note for note in json.loads(capsys.readouterr().out)["notes"])
    server = server_of(bucket_of_rows.partition("://")[0])
    for below in (f"bundles/{name}/bundle.json", f"references/{name}.parquet"):
        server.put(f"suggest/store/{below}", b"content")
    monkeypatch.delenv("CA_CERTIFICATES", raising=False)
    assert copies.artifacts(store, SERVES, tmp_path / "store") == ""
    assert (tmp_path / "store" / "references" / f"{name}.parquet").read_bytes() == b"content"
    assert command_line.main(words) == Exit.DONE
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert any("manifest cannot be read" in note for note in notes)
    assert any("reference is left out" in note for note in notes)


@pytest.mark.parametrize(
    ("written", "names"),
    [
        (CaptureFormat.KSERVE, ("ml/digits/predictor/c1-request.json", "ml/digits/predictor/c1.parquet")),
        (CaptureFormat.TRITON, ("trace.json", "trace.json.12")),
    ],
)
def test_logs_of_other_servers_are_copied_by_when_they_were_written(
    written: CaptureFormat,
    names: tuple[str, ...],
    bucket_of_rows: str,
    server_of: Callable[[str], Store],
    tmp_path: Path,
) -> None:
    """They have no folders of hours; what is no log stays where it is, and so does what is older than was asked for."""
    server, logs = server_of(bucket_of_rows.partition("://")[0]), f"{bucket_of_rows}/suggest/logs-{written}"
    for name in (*names, "README.md"):
        server.put(f"suggest/logs-{written}/{name}", b"[]")
    now = datetime.now(UTC)
    assert copies.captured(logs, tmp_path / "new", form=written, span=60, now=now) == ""
    copied = {path.relative_to(tmp_path / "new").as_posix() for path in (tmp_path / "new").rglob("*") if path.is_file()}
    assert copied == set(names)
    with pytest.raises(AccessError, match="--since"):
        copies.captured(logs, tmp_path / "old", form=written, span=60, now=now + timedelta(days=1))


def test_folders_are_listed_as_they_are(bucket_of_rows: str) -> None:
    """Files have a size and a time, folders have none, and what is not there is empty."""
    (labels,) = buckets.entries(f"{bucket_of_rows}/suggest/labels")
    assert (labels.name, labels.size) == ("deep", None)
    (file,) = buckets.entries(f"{bucket_of_rows}/suggest/labels/deep")
    assert file.name == "a.parquet"
    assert file.size
    assert file.changed > NOW
    assert buckets.entries(f"{bucket_of_rows}/suggest/nothing-here") == []


def test_a_stranger_is_told_to_log_in(s3: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for a report: the sentence names the login, and no key."""
    assert s3.pki is not None
    monkeypatch.delenv("CA_CERTIFICATES")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(s3.pki / "ca.crt"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-somebody-else")
    with pytest.raises(AccessError, match="AWS_ENDPOINT_URL") as caught:
        buckets.entries(f"s3://{servers.BUCKET}/{FOLDER}")
    assert "of-somebody-else" not in str(caught.value)
