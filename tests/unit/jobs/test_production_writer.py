"""What is captured is never in the way of a server: bounded, written by another thread, lost rather than waited for."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from optimizer_jobs.production import layout
from optimizer_jobs.production.windows import Selection, read_window
from optimizer_jobs.production.writer import DROPPED, WRITTEN, CaptureWriter
from optimizer_jobs.signature import Signature, TensorSpec
from retune.api.production import Production
from tests.unit.jobs.captured_for_tests import DIGEST, HOUR, NOW
from tests.unit.jobs.models_for_tests import digits

SIGNATURE = Signature(
    inputs=(TensorSpec(name="x", dtype="float32", shape=(-1, 64)),),
    outputs=(TensorSpec(name="label", dtype="int64", shape=(-1,)),),
)
PIXELS, LABELS = digits("test")


def offer(writer: CaptureWriter, number: int, rows: int = 4, *, at: float = NOW) -> bool:
    """Offer a request of real digits, answered by what they are."""
    place = slice(number * rows, (number + 1) * rows)
    return writer.offer(f"r{number}", DIGEST, {"x": PIXELS[place]}, {"label": LABELS[place]}, at)


def dropped(reason: str) -> float:
    """Return how many rows were dropped so far."""
    return float(DROPPED.labels(reason)._value.get())


def wait_for(folder: Path, files: int) -> list[Path]:
    """Wait until that many files are there."""
    until = time.monotonic() + 20
    while len(found := sorted(folder.rglob("[!.]*.parquet"))) < files and time.monotonic() < until:
        time.sleep(0.01)
    return found


@pytest.fixture
def stuck(tmp_path: Path) -> Iterator[CaptureWriter]:
    """A writer whose disk does not answer."""
    folder = tmp_path / "captured"
    writer = CaptureWriter(folder, SIGNATURE, queue_rows=40, flush_rows=4)
    held = threading.Event()
    writer._write_file = lambda *_: held.wait()  # type: ignore[assignment,method-assign]
    yield writer
    held.set()
    writer.close()


def test_rows_are_written_once_there_are_enough(tmp_path: Path) -> None:
    """A file appears without waiting for its time, whole, in the folder of the requests' hour."""
    writer = CaptureWriter(tmp_path, SIGNATURE, flush_rows=20, flush_seconds=3600)
    for number in range(5):
        assert offer(writer, number)
    (path,) = wait_for(tmp_path, 1)
    table = parquet.read_table(path)
    assert len(table) == 20
    assert str(path.parent.relative_to(tmp_path)) == layout.folder_of(NOW) == "date=2025-11-24/hour=16"
    assert table.schema.metadata[b"retune.capture"] == b"1"
    writer.close()


def test_a_row_does_not_wait_longer_than_said(tmp_path: Path) -> None:
    """A single request is written when its time is over."""
    writer = CaptureWriter(tmp_path, SIGNATURE, flush_rows=1000, flush_seconds=0.05)
    offer(writer, 0)
    (path,) = wait_for(tmp_path, 1)
    assert parquet.ParquetFile(path).metadata.num_rows == 4
    writer.close()


def test_what_waits_is_written_at_the_end(tmp_path: Path) -> None:
    """A server that stops loses nothing, and takes nothing any more."""
    writer = CaptureWriter(tmp_path, SIGNATURE, flush_seconds=3600)
    before = WRITTEN._value.get()
    offer(writer, 0)
    writer.close()
    (path,) = tmp_path.rglob("*.parquet")
    assert parquet.ParquetFile(path).metadata.num_rows == 4 == WRITTEN._value.get() - before
    lost = dropped("closed")
    assert not offer(writer, 1)
    assert dropped("closed") - lost == 4


def test_every_hour_has_files_of_its_own(tmp_path: Path) -> None:
    """Rows of two hours that wait together end up in two folders."""
    writer = CaptureWriter(tmp_path, SIGNATURE, flush_seconds=3600)
    offer(writer, 0, at=NOW - 1)
    offer(writer, 1, at=NOW)
    writer.close()
    folders = {str(path.parent.relative_to(tmp_path)) for path in tmp_path.rglob("*.parquet")}
    assert folders == set(layout.partitions(NOW - HOUR, NOW + HOUR))


def test_a_slow_disk_costs_rows_and_no_time(stuck: CaptureWriter) -> None:
    """With the writer stuck, offers return at once; what does not fit is counted."""
    lost = dropped("queue full")
    taken = [offer(stuck, number) for number in range(100)]
    assert not all(taken)
    assert 10 <= sum(taken) <= 20  # what waits, and what the thread had taken before
    assert dropped("queue full") - lost == 4 * taken.count(False)


def test_a_folder_that_cannot_be_written_costs_rows_only(tmp_path: Path) -> None:
    """The reason is logged, the rows are counted, and the next ones are written when it is mended."""
    folder = tmp_path / "captured"
    folder.write_text("not a folder")
    writer = CaptureWriter(folder, SIGNATURE, flush_rows=4)
    lost = dropped("not written")
    offer(writer, 0)
    until = time.monotonic() + 20
    while dropped("not written") == lost and time.monotonic() < until:
        time.sleep(0.01)
    assert dropped("not written") - lost == 4
    folder.unlink()
    offer(writer, 1)
    assert len(wait_for(folder, 1)) == 1
    writer.close()


def test_a_request_that_does_not_fit_is_dropped_alone(tmp_path: Path) -> None:
    """An answer with another number of rows, or none, costs the requests beside it nothing."""
    writer = CaptureWriter(tmp_path, SIGNATURE, flush_seconds=3600)
    lost = dropped("unfit")
    writer.offer("short", DIGEST, {"x": PIXELS[:4]}, {"label": LABELS[:3]}, NOW)
    writer.offer("none", DIGEST, {"x": PIXELS[:4]}, {}, NOW)
    offer(writer, 2)
    writer.close()
    (path,) = tmp_path.rglob("*.parquet")
    assert set(parquet.read_table(path).column("request_id").to_pylist()) == {"r2"}
    assert dropped("unfit") - lost == 8


def test_texts_images_and_free_sizes_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every kind of tensor that a model may have survives; of two lengths of a free size, the usual one is read."""
    signature = Signature(
        inputs=(
            TensorSpec(name="image", dtype="float32", shape=(-1, 1, 8, 8)),
            TensorSpec(name="word", dtype="str", shape=(-1, 1)),
            TensorSpec(name="steps", dtype="int64", shape=(-1, -1)),
        ),
        outputs=(
            TensorSpec(name="even", dtype="bool", shape=(-1,)),
            TensorSpec(name="sides", dtype="float16", shape=(-1, -1, 2)),
        ),
    )
    monkeypatch.setenv("RETUNE_CLAIM_ROOT", str(tmp_path / "claims"))
    writer = CaptureWriter(tmp_path / "claims" / "shop" / "captured", signature)
    words = np.asarray([f"digit {label}" for label in LABELS], dtype=object)[:, np.newaxis]
    counts = (PIXELS * 16).astype(np.int64)
    for number, length in enumerate((5, 5, 3)):
        place = slice(number * 4, number * 4 + 4)
        inputs = {"image": PIXELS[place].reshape(4, 1, 8, 8), "word": words[place], "steps": counts[place, :length]}
        outputs = {"even": LABELS[place] % 2 == 0, "sides": PIXELS[place, :6].reshape(4, 3, 2).astype(np.float16)}
        writer.offer(f"r{number}", DIGEST, inputs, outputs, NOW + number)
    writer.close()
    found = read_window(
        Production(uri="pvc://shop/captured"),
        signature,
        Selection(start=NOW, end=NOW + 60, now=NOW + 60, models={DIGEST}),
        max_rows=100,
        into=tmp_path / "scratch",
        seed=0,
    )
    np.testing.assert_array_equal(found.inputs["image"], PIXELS[:8].reshape(8, 1, 8, 8))
    assert found.inputs["word"].tolist() == words[:8].tolist()
    np.testing.assert_array_equal(found.inputs["steps"], counts[:8, :5])
    np.testing.assert_array_equal(found.outputs["even"], LABELS[:8] % 2 == 0)
    np.testing.assert_array_equal(found.outputs["sides"], PIXELS[:8, :6].reshape(8, 3, 2).astype(np.float16))
    assert found.set_aside == {"rows of a rarer shape": 4}


def test_a_name_may_go_on_after_anothers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As columns of nested documents do: `user` beside `user.age` has its own values, and not those of both."""
    shapes = {"user": (-1,), "user.age": (-1,), "user.face": (-1, 3), "steps": (-1, -1), "steps.last": (-1, -1)}
    inputs = {name: PIXELS[:4, : 2 if -1 in shape[1:] else 3] for name, shape in shapes.items()}
    inputs |= {name: PIXELS[:4, place] for place, name in enumerate(("user", "user.age"))}
    signature = Signature(
        inputs=tuple(TensorSpec(name=name, dtype="float32", shape=shape) for name, shape in shapes.items()),
        outputs=SIGNATURE.outputs,
    )
    monkeypatch.setenv("RETUNE_CLAIM_ROOT", str(tmp_path / "claims"))
    writer = CaptureWriter(tmp_path / "claims" / "shop" / "captured", signature)
    assert writer.offer("r1", DIGEST, inputs, {"label": LABELS[:4]}, NOW)
    writer.close()
    wanted = Selection(start=NOW, end=NOW + 60, now=NOW + 60, models={DIGEST})
    production = Production(uri="pvc://shop/captured")
    found = read_window(production, signature, wanted, max_rows=100, into=tmp_path / "scratch", seed=0)
    assert (dict(found.set_aside), found.violations) == ({}, ())
    for name, values in inputs.items():
        np.testing.assert_array_equal(found.inputs[name], values)


def test_two_writers_never_meet(tmp_path: Path) -> None:
    """Pods share the folder; each has names of its own, and no file is ever half there."""
    writers = [CaptureWriter(tmp_path, SIGNATURE, flush_rows=4) for _ in range(2)]
    for number in range(20):
        assert offer(writers[number % 2], number)
    for writer in writers:
        writer.close()
    rows = [parquet.ParquetFile(path).metadata.num_rows for path in tmp_path.rglob("*.parquet")]
    assert sum(rows) == 80
    assert not [name for *_, names in os.walk(tmp_path) for name in names if name.startswith(".")]
