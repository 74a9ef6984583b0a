"""`retune labels suggest`: from where rows are taken, what is said to people and programs, and how it ends."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from pyarrow import parquet

from optimizer_jobs.production.writer import CaptureWriter
from optimizer_jobs.signature import Signature, TensorSpec
from retune.api.production import CaptureFormat
from retune.cli import buckets, copies, labels
from retune.cli import main as command_line
from retune.cli.access import AccessError, Cluster
from retune.cli.follow import Exit
from retune.cluster.client import Request, Response
from tests import samples

NOW = 1_764_000_000
SERVES = "sha256:" + "ab" * 32
MO = "/apis/retune.dev/v1alpha1/namespaces/ml/modeloptimizations/digits"


def call(*words: str) -> int:
    """Run the command line."""
    return command_line.main(["labels", "suggest", *words])


@pytest.fixture
def captured(tmp_path: Path) -> Path:
    """Sixty rows of a classifier of two columns, by the project's own writer."""
    signature = Signature(
        inputs=tuple(TensorSpec(name=name, dtype="float32", shape=(-1,)) for name in ("age", "pay")),
        outputs=(TensorSpec(name="probabilities", dtype="float32", shape=(-1, 2)),),
    )
    folder, generator = tmp_path / "captured", np.random.default_rng(0)
    writer = CaptureWriter(folder, signature)
    for number in range(60):
        share = np.float32(generator.random())
        inputs = {name: generator.normal(size=1).astype(np.float32) for name in ("age", "pay")}
        outputs = {"probabilities": np.array([[share, 1 - share]])}
        assert writer.offer(f"r{number}", SERVES, inputs | outputs, outputs, NOW + number)
    writer.close()
    return folder


def label(folder: Path, rows: int) -> Path:
    """Label the first rows."""
    folder.mkdir()
    table = pa.table({"request_id": [f"r{number}" for number in range(rows)], "label": [1] * rows})
    parquet.write_table(table, folder / "a.parquet")
    return folder


def manifest(**production: Any) -> dict[str, Any]:
    """Return a ModelOptimization that captures."""
    spec = samples.MANIFEST["spec"] | {"monitoring": {"production": {"uri": "pvc://shop/captured"} | production}}
    return samples.MANIFEST | {"spec": spec}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A manifest whose rows and labels lie on a claim."""
    path = tmp_path / "digits.yaml"
    path.write_text(yaml.safe_dump(manifest(labels={"uri": "pvc://shop/labels"})))
    return path


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """A cluster with that resource, which counts what it is asked."""
    asked: list[Request] = []
    document = manifest()
    document["metadata"] = document["metadata"] | {"name": "digits", "namespace": "ml", "uid": "u", "generation": 1}

    def send(request: Request) -> Response:
        asked.append(request)
        return Response(200, json.dumps(document).encode())

    monkeypatch.setattr(Cluster, "connect", lambda **_: Cluster(send, namespace="ml"))
    return asked


@pytest.mark.slow
def test_captured_rows_alone_are_enough(captured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a cluster and a manifest; what is found is told in a table, and where it lies."""
    ask = tmp_path / "new" / "ask.parquet"
    assert call("--captured", str(captured), "--rows", "20", "--save", str(ask)) == Exit.DONE
    printed = capsys.readouterr().out
    assert "20 of 60 rows without a label, captured 2025-11-24 16:00 to 2025-11-24 16:00 UTC" in printed
    assert "WHY        ROWS  WHAT" in printed
    assert "Chance     5" in printed
    assert f"file: {ask}" in printed
    assert parquet.read_table(ask).num_rows == 20
    assert [path.name for path in ask.parent.iterdir()] == ["ask.parquet"]


@pytest.mark.slow
def test_programs_get_counts_and_the_file(captured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And nothing else on standard output."""
    ask, known = tmp_path / "ask.parquet", label(tmp_path / "labels", 15)
    words = ["--captured", str(captured), "--labels", str(known), "--rows", "8", "--save", str(ask), "-o", "json"]
    assert call(*words) == Exit.DONE
    found = json.loads(capsys.readouterr().out)
    assert (found["rows"], found["unlabelled"], found["labelled"], found["judged"]) == (8, 45, 15, 15)
    assert sum(part["rows"] for part in found["why"]) == 8
    assert found["file"] == str(ask)


@pytest.mark.slow
def test_nothing_to_ask_about_is_an_exit_code(
    captured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No file is written."""
    ask, known = tmp_path / "ask.parquet", label(tmp_path / "labels", 60)
    assert call("--captured", str(captured), "--labels", str(known), "--save", str(ask)) == Exit.BAD_OUTCOME
    assert "none: all 60 rows have a label already" in capsys.readouterr().out
    assert not ask.exists()


def test_rows_on_a_volume_are_copied_by_the_caller(
    cluster: list[Request], file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sentence has the commands, with the names of this resource."""
    assert call("digits", "-n", "ml") == Exit.USAGE
    error = capsys.readouterr().err
    assert "`kubectl -n ml cp POD:/mnt/pvc/shop/captured captured`" in error
    assert "`retune labels suggest digits -n ml --captured captured`" in error
    assert [request.path for request in cluster] == [MO]
    assert call("-f", str(file)) == Exit.USAGE
    assert f"`retune labels suggest -f {file} --captured captured`" in capsys.readouterr().err


@pytest.mark.slow
def test_labels_on_a_volume_are_missed_not_demanded(
    captured: Path, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without them rows may be asked for that have one, which is said."""
    words = ["-f", str(file), "--captured", str(captured), "--save", str(tmp_path / "ask.parquet")]
    assert call(*words) == Exit.DONE
    assert "note: Labels lie on claim shop and were not looked at" in capsys.readouterr().out
    assert call(*words, "--labels", str(label(tmp_path / "labels", 10))) == Exit.DONE
    printed = capsys.readouterr().out
    assert "Labels lie on claim" not in printed
    assert "10 rows of this time have a label already" in printed


@pytest.mark.parametrize(
    "words,sentence",
    [
        ((), "there is nothing to look at"),
        (("--captured", "absent"), "absent is no folder: name the one that holds the copy with --captured FOLDER"),
        (("-f", "absent.yaml"), "absent.yaml cannot be read"),
    ],
)
def test_what_is_missing_is_named(words: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is started."""
    assert call(*words) == Exit.USAGE
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    "option", ["--rows=0", "--rows=2001", "--rows=many", "--chance=1.5", "--chance=nan", "--chance=x", "--since=0s"]
)
def test_numbers_out_of_range_are_wrong_usage(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A person cannot label a million rows."""
    with pytest.raises(SystemExit) as ended:
        call("--captured", "x", option)
    assert ended.value.code == Exit.USAGE
    assert option.partition("=")[2] in capsys.readouterr().err


def test_a_name_and_a_file_are_two_answers_to_one_question(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither is taken silently."""
    with pytest.raises(SystemExit) as ended:
        call("digits", "-f", "digits.yaml")
    assert ended.value.code == Exit.USAGE
    assert "not allowed with" in capsys.readouterr().err


@pytest.mark.slow
def test_labels_that_the_spec_does_not_know_are_read_all_the_same(
    captured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the usual columns."""
    path = tmp_path / "digits.yaml"
    path.write_text(yaml.safe_dump(manifest()))
    words = ["-f", str(path), "--captured", str(captured), "--labels", str(label(tmp_path / "labels", 7)), "-o", "json"]
    assert call(*words, "--save", str(tmp_path / "ask.parquet")) == Exit.DONE
    assert json.loads(capsys.readouterr().out)["labelled"] == 7


def test_a_resource_that_captures_nothing_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And which field would change that."""
    path = tmp_path / "digits.yaml"
    path.write_text(yaml.safe_dump(samples.MANIFEST))
    assert call("-f", str(path)) == Exit.USAGE
    assert "set spec.monitoring.production" in capsys.readouterr().err


def test_an_empty_folder_is_the_jobs_own_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It names the folder and what it should have."""
    assert call("--captured", str(tmp_path), "--save", str(tmp_path / "ask.parquet")) == Exit.USAGE
    assert "there are no captured rows that can be read" in capsys.readouterr().err


def test_a_missing_library_is_named_with_the_extra_that_brings_it(
    captured: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command line alone computes nothing; nothing is copied and started for nothing."""
    monkeypatch.setattr(labels, "LIBRARIES", ("numpy", "no_such_library"))
    assert call("--captured", str(captured)) == Exit.USAGE
    assert "no_such_library is not installed here: pip install 'retune[local]'" in capsys.readouterr().err


@pytest.mark.slow
def test_a_file_that_cannot_be_written_is_told(
    captured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here a folder has its name."""
    (tmp_path / "ask.parquet").mkdir()
    assert call("--captured", str(captured), "--save", str(tmp_path / "ask.parquet")) == Exit.USAGE
    assert "cannot be written" in capsys.readouterr().err
    assert not list(tmp_path.glob(".ask*"))


class Bucket:
    """Folders of a bucket by address, each with names and sizes; a folder has no size."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folders: dict[str, dict[str, int | None]]) -> None:
        self.folders, self.listed, self.saved = folders, [], []  # type: ignore[var-annotated]
        monkeypatch.setattr(buckets, "entries", self.entries)
        monkeypatch.setattr(buckets, "save", self.save)

    def entries(self, uri: str) -> list[buckets.Entry]:
        """List as a bucket does."""
        self.listed.append(uri)
        return [buckets.Entry(name, size, 0.0) for name, size in self.folders.get(uri, {}).items()]

    def save(self, uri: str, path: Path) -> None:
        """Copy a file."""
        self.saved.append(uri)
        path.touch()


def test_only_hours_of_the_span_and_plain_names_are_copied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Days before it are not even listed, and no name leads anywhere else."""
    day: dict[str, int | None] = dict.fromkeys([*(f"hour={hour:02}" for hour in range(24)), "hour=99", ".."])
    days: dict[str, int | None] = dict.fromkeys(
        [*(f"date=2026-01-0{day}" for day in (1, 2, 3)), "date=2027-01-01", "odd"]
    )
    new = "s3://b/c/date=2026-01-03"
    refused = dict.fromkeys(("../../x.parquet", ".part.parquet", "b.txt"), 5) | {"empty.parquet": 0}
    files: dict[str, int | None] = {"a-1.parquet": 5, **refused}
    bucket = Bucket(
        monkeypatch,
        {"s3://b/c": days}
        | {f"s3://b/c/date=2026-01-0{number}": day for number in (1, 2, 3)}
        | {f"{new}/hour=05": files, f"{new}/hour=04": {"a-0.parquet": 5}, f"{new}/hour=01": {"old.parquet": 5}},
    )
    now = datetime(2026, 1, 3, 6, tzinfo=UTC)
    said = copies.captured("s3://b/c", tmp_path / "in", form=CaptureFormat.RETUNE, span=3600, now=now)
    assert said == ""
    assert sorted(bucket.saved) == [f"{new}/hour=04/a-0.parquet", f"{new}/hour=05/a-1.parquet"]
    assert (tmp_path / "in/date=2026-01-03/hour=05/a-1.parquet").exists()
    assert "s3://b/c/date=2026-01-02" not in bucket.listed


def test_no_more_is_copied_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And the sentence says how much was left out."""
    hour = "s3://b/c/date=2026-01-03/hour=05"
    folders = {"s3://b/c": {"date=2026-01-03": None}, "s3://b/c/date=2026-01-03": {"hour=05": None}}
    bucket = Bucket(monkeypatch, folders | {hour: {f"{number}.parquet": 10 for number in range(9)}})  # type: ignore[arg-type]
    monkeypatch.setattr(copies, "BYTES_LIMIT", 35)
    now = datetime(2026, 1, 3, 6, tzinfo=UTC)
    said = copies.captured("s3://b/c", tmp_path / "in", form=CaptureFormat.RETUNE, span=3600, now=now)
    assert said.startswith("6 of 9 files of captured rows were not read")
    assert len(bucket.saved) == 3


def test_a_bucket_without_captured_files_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is started for nothing."""
    Bucket(monkeypatch, {})
    with pytest.raises(AccessError, match="has no captured files of this time"):
        copies.captured("s3://b/c", tmp_path, form=CaptureFormat.KSERVE, span=60, now=datetime.now(UTC))
