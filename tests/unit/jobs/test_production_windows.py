"""A window has the rows that were captured in it, each once; what is broken is counted and stops nothing."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from optimizer_jobs.errors import JobError
from optimizer_jobs.production import files, layout
from optimizer_jobs.production.windows import Selection, read_window
from retune.api.production import Production
from retune.contract.results import Reason
from tests.unit.jobs.captured_for_tests import DIGEST, HOUR, NOW, REQUEST_ROWS, Shop

Change = Callable[[pa.Table], pa.Table]


def test_rows_come_back_as_they_were_asked_and_answered(shop: Shop, tmp_path: Path) -> None:
    """Inputs, outputs, ids, times and model survive the way through a file bit by bit, in the order of time."""
    shop.serve(range(20), since=NOW + 10)
    found = shop.read(tmp_path)
    asked = shop.pixels[: 20 * REQUEST_ROWS]
    np.testing.assert_array_equal(found.inputs["x"], asked)
    assert found.inputs["x"].dtype == np.float32
    np.testing.assert_allclose(found.outputs["scores"], shop.session.run({"x": asked})["scores"], rtol=1e-5)
    assert found.request_ids.tolist() == [f"r{number}" for number in range(20) for _ in range(REQUEST_ROWS)]
    assert found.rows.tolist() == list(range(REQUEST_ROWS)) * 20
    seconds = found.times.astype("datetime64[s]").astype(int)
    assert seconds.tolist() == [NOW + 10 + number for number in range(20) for _ in range(REQUEST_ROWS)]
    assert set(found.models) == {DIGEST}
    assert (found.violations, dict(found.set_aside), found.seen) == ((), {}, 80)


def test_windows_share_no_row_and_lose_none(shop: Shop, tmp_path: Path) -> None:
    """A row on the border belongs to the later window alone."""
    shop.serve(range(30), since=NOW + HOUR - 15)
    first = shop.read(tmp_path, now=NOW + 3 * HOUR)
    second = shop.read(tmp_path, start=NOW + HOUR, end=NOW + 2 * HOUR, now=NOW + 3 * HOUR)
    assert (len(first), len(second)) == (15 * REQUEST_ROWS, 15 * REQUEST_ROWS)
    assert not set(first.request_ids) & set(second.request_ids)


def test_a_row_beside_its_hours_folder_is_found(shop: Shop, tmp_path: Path) -> None:
    """A pod whose clock is off, or that writes late, puts rows of an hour into the folder beside it."""
    shop.serve(range(5), since=NOW + HOUR - 20)
    (path,) = shop.captured.rglob("*.parquet")
    path.rename(shop.file(path.name, hour=NOW + HOUR))
    assert len(shop.read(tmp_path, now=NOW + 2 * HOUR)) == 5 * REQUEST_ROWS


def test_nothing_captured_is_no_failure(shop: Shop, tmp_path: Path) -> None:
    """Before the first request there is not even a folder."""
    found = shop.read(tmp_path)
    assert len(found) == 0
    assert found.inputs["x"].shape == (0, 64)
    assert found.violations == ()


def test_rows_of_another_model_are_counted(shop: Shop, tmp_path: Path) -> None:
    """During a rollout two versions answer; a champion is judged by its own rows."""
    shop.serve(range(5), since=NOW)
    shop.serve(range(5, 8), since=NOW, model="sha256:" + "cd" * 32)
    found = shop.read(tmp_path, models={DIGEST})
    assert set(found.request_ids) == {f"r{number}" for number in range(5)}
    assert found.set_aside == {"rows of another model": 3 * REQUEST_ROWS}


def test_a_request_written_twice_counts_once(shop: Shop, tmp_path: Path) -> None:
    """A client that tries again, or a file that was copied, does not weigh double."""
    shop.serve(range(6), since=NOW)
    shop.serve(range(4, 8), since=NOW)
    found = shop.read(tmp_path)
    assert (len(found), found.seen) == (8 * REQUEST_ROWS, 8 * REQUEST_ROWS)
    assert found.set_aside == {"doubled rows": 2 * REQUEST_ROWS}


def test_rows_of_the_future_are_set_aside(shop: Shop, tmp_path: Path) -> None:
    """A clock that runs far ahead puts rows where no time has been."""
    shop.serve(range(3), since=NOW + 10)
    shop.serve(range(3, 5), since=NOW + 1800)
    found = shop.read(tmp_path, now=NOW + 60)
    assert len(found) == 3 * REQUEST_ROWS
    assert found.set_aside == {"rows of the future": 2 * REQUEST_ROWS}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("cut.parquet", None, "files that cannot be read"),
        ("empty.parquet", b"", "empty files"),
        ("foreign.parquet", b"PAR1 this is a text about digits PAR1", "files that cannot be read"),
    ],
)
def test_a_broken_file_costs_only_itself(
    shop: Shop, tmp_path: Path, name: str, content: bytes | None, reason: str
) -> None:
    """Half-written, empty and foreign files are counted; the rest of the window is read."""
    shop.serve(range(5), since=NOW)
    (good,) = shop.captured.rglob("*.parquet")
    shop.file(name).write_bytes(good.read_bytes()[:-200] if content is None else content)
    found = shop.read(tmp_path)
    assert len(found) == 5 * REQUEST_ROWS
    assert found.set_aside == {reason: 1}


def test_a_file_being_written_is_not_looked_at(shop: Shop, tmp_path: Path) -> None:
    """Its name begins with a dot until it is whole."""
    shop.serve(range(5), since=NOW)
    shop.file(".server-000002.parquet").write_bytes(b"PAR1")
    assert shop.read(tmp_path).set_aside == {}


def test_parquet_of_another_layout_is_counted(shop: Shop, tmp_path: Path) -> None:
    """Somebody else's table in the folder is no capture, and neither is one without rows."""
    shop.serve(range(5), since=NOW)
    (good,) = shop.captured.rglob("*.parquet")
    parquet.write_table(pa.table({"label": [1, 2, 3]}), shop.file("labels.parquet"))
    parquet.write_table(parquet.read_table(good).slice(0, 0), shop.file("none.parquet"))
    found = shop.read(tmp_path)
    assert len(found) == 5 * REQUEST_ROWS
    assert found.set_aside == {"files of another layout": 1, "empty files": 1}


def _cast(name: str, kind: pa.DataType) -> Change:
    def change(table: pa.Table) -> pa.Table:
        return table.set_column(table.schema.get_field_index(name), name, table.column(name).cast(kind))

    return change


def _texts(table: pa.Table) -> pa.Table:
    place = table.schema.get_field_index("input.x")
    return table.set_column(place, "input.x", pa.array(["seven"] * len(table)))


def _shorter(table: pa.Table) -> pa.Table:
    rows = [row[:63] for row in table.column("input.x").to_pylist()]
    column = pa.array(rows, pa.list_(pa.float32()))
    return table.set_column(table.schema.get_field_index("input.x"), "input.x", column)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table.drop_columns(["input.x"]), "input.x is missing"),
        (lambda table: table.drop_columns(["output.scores"]), "output.scores is missing"),
        (_texts, "input.x holds string, but the model's holds float32"),
        (_shorter, "input.x has missing values or another number of them"),
    ],
)
def test_a_wrong_schema_is_a_violation(shop: Shop, tmp_path: Path, change: Change, words: str) -> None:
    """Columns that are missing, of another type or another size are named, with the file; nothing breaks."""
    shop.serve(range(5), since=NOW)
    path = shop.rewrite(change)
    found = shop.read(tmp_path)
    assert len(found) == 0
    (violation,) = found.violations
    assert violation.startswith(words)
    assert f"20 rows, such as in {path.relative_to(shop.captured)}" in violation
    assert found.set_aside == {"rows that do not fit the model": 5 * REQUEST_ROWS}


@pytest.mark.parametrize(
    "change",
    [
        _cast("input.x", pa.list_(pa.float64())),
        _cast("input.x", pa.large_list(pa.float32())),
        _cast("input.x", pa.list_(pa.float32(), 64)),
        _cast("row", pa.int64()),
        _cast("request_id", pa.large_string()),
        _cast("time", pa.timestamp("ms")),
        lambda table: table.append_column("client", pa.array(["web"] * len(table))),
        lambda table: table.replace_schema_metadata(),
    ],
)
def test_other_writers_may_use_wider_types(shop: Shop, tmp_path: Path, change: Change) -> None:
    """What holds the same values is read as the model's own types; further columns are ignored."""
    shop.serve(range(5), since=NOW)
    before = shop.read(tmp_path)
    shop.rewrite(change)
    found = shop.read(tmp_path)
    assert (found.violations, dict(found.set_aside)) == ((), {})
    np.testing.assert_array_equal(found.inputs["x"], before.inputs["x"])
    assert found.inputs["x"].dtype == np.float32


def test_a_missing_number_is_no_value_but_a_missing_key_is_no_row(shop: Shop, tmp_path: Path) -> None:
    """What the model was asked stays as it was asked; a row that cannot be named is set aside."""

    def change(table: pa.Table) -> pa.Table:
        pixels, ids = table.column("input.x").to_pylist(), table.column("request_id").to_pylist()
        pixels[0][7], ids[1] = None, None
        table = table.set_column(table.schema.get_field_index("input.x"), "input.x", pa.array(pixels))
        return table.set_column(0, "request_id", pa.array(ids, pa.string()))

    shop.serve(range(5), since=NOW)
    shop.rewrite(change)
    found = shop.read(tmp_path)
    assert np.isnan(found.inputs["x"][0, 7])
    assert int(np.isnan(found.inputs["x"]).sum()) == 1
    assert found.set_aside == {"rows without id, row, time or model": 1}


def test_of_more_rows_than_wanted_a_random_sample_is_kept(shop: Shop, tmp_path: Path) -> None:
    """The sample has the size asked for, spans the window, depends on the seed, and not on how files are cut."""
    shop.serve(range(100), since=NOW, every=30.0)
    found = shop.read(tmp_path, max_rows=120)
    assert (len(found), found.seen) == (120, 400)
    hours = (found.times.astype("datetime64[s]").astype(int) - NOW) / 3000
    assert 0.4 < float(hours.mean()) < 0.6
    whole = parquet.read_table(next(iter(shop.captured.rglob("*.parquet"))))
    for path in list(shop.captured.rglob("*.parquet")):
        path.unlink()
    for place in range(0, 400, 50):
        parquet.write_table(whole.slice(place, 50), shop.file(f"{9 - place // 50}.parquet"))
    again = shop.read(tmp_path, max_rows=120)
    keys = [list(zip(each.request_ids, each.rows, strict=True)) for each in (found, again)]
    assert keys[0] == keys[1]
    other = shop.read(tmp_path, max_rows=120, seed=1)
    assert list(zip(other.request_ids, other.rows, strict=True)) != keys[0]


def test_a_folder_of_very_many_files_is_read_in_part(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More files than the limit are not read, and that is said."""
    shop.serve(range(5), since=NOW)
    (good,) = shop.captured.rglob("*.parquet")
    for number in range(30):
        os.link(good, shop.file(f"copy-{number}.parquet"))
    monkeypatch.setattr(files, "FILES_LIMIT", 10)
    found = shop.read(tmp_path)
    assert len(found) == 5 * REQUEST_ROWS
    assert found.set_aside["files beyond the limit"] == 21
    assert found.set_aside["doubled rows"] == 9 * 5 * REQUEST_ROWS


def test_links_and_devices_are_not_followed(shop: Shop, tmp_path: Path) -> None:
    """Whoever writes into the folder cannot make the Job read another file, or wait for one."""
    shop.serve(range(5), since=NOW)
    (good,) = shop.captured.rglob("*.parquet")
    outside = tmp_path / "outside.parquet"
    good.rename(outside)
    shop.file("link.parquet").symlink_to(outside)
    os.mkfifo(shop.file("pipe.parquet"))
    assert len(shop.read(tmp_path)) == 0


def test_a_folder_that_leads_out_of_the_claim_is_refused(shop: Shop, tmp_path: Path) -> None:
    """A symbolic link in place of an hour's folder is no way out."""
    shop.serve(range(5), since=NOW)
    hour = shop.captured / layout.folder_of(NOW)
    hour.rename(tmp_path / "elsewhere")
    hour.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(JobError) as caught:
        shop.read(tmp_path)
    assert caught.value.reason is Reason.DATA_FORBIDDEN


def test_a_web_address_is_no_folder(shop: Shop, tmp_path: Path) -> None:
    """It says so, and what to give instead."""
    with pytest.raises(JobError, match="no way to list a folder"):
        read_window(
            Production(uri="https://example.com/captured"),
            shop.signature,
            Selection(start=NOW, end=NOW + HOUR, now=NOW),
            max_rows=10,
            into=tmp_path,
            seed=0,
        )


@pytest.mark.slow
def test_a_huge_file_needs_no_huge_memory(shop: Shop, tmp_path: Path) -> None:
    """A file of rows that expand to gigabytes is read in parts; what a process needs grows by less than half of it."""
    shop.serve(range(100), since=NOW)
    small = parquet.read_table(next(iter(shop.captured.rglob("*.parquet"))))
    path = shop.file("huge.parquet")
    with parquet.ParquetWriter(path, small.schema) as writer:
        many = pa.concat_tables([small] * 100).combine_chunks()
        for _ in range(25):
            writer.write_table(many, row_group_size=len(many))
    assert parquet.ParquetFile(path).metadata.num_rows == 1_000_000
    script = (
        "import resource, sys; from pathlib import Path; from tests.unit.jobs import captured_for_tests as c;"
        "from optimizer_jobs.signature import Signature; from optimizer_jobs.production.windows import *;"
        "s = Signature.model_validate_json(sys.argv[1]); before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "f = read_window(c.Shop.production, s, Selection(start=c.NOW, end=c.NOW + c.HOUR, now=c.NOW + c.HOUR),"
        "max_rows=1000, into=Path(sys.argv[2]), seed=0);"
        "print(len(f), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    command: list[Any] = [sys.executable, "-c", script, shop.signature.model_dump_json(), tmp_path]
    rows, grown = map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    assert rows == 400
    assert grown < 130_000  # KiB; the numbers alone are 296 MB
