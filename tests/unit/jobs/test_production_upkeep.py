"""Old captures are removed and nothing else; rows become the columns that drift is measured on."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from sklearn.datasets import load_breast_cancer

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.data.volumes import file_digest
from optimizer_jobs.errors import JobError
from optimizer_jobs.production import bucket_retention, files
from optimizer_jobs.production.bucket_retention import prune_bucket
from optimizer_jobs.production.features import table
from optimizer_jobs.production.layout import FORMAT, folder_of
from optimizer_jobs.production.reference import Reference, read_reference, write_reference
from optimizer_jobs.production.retention import is_marked, prune
from optimizer_jobs.signature import Signature, TensorSpec
from optimizer_jobs.stores import buckets
from optimizer_jobs.stores.base import Kind
from optimizer_jobs.stores.faults import fault
from retune.api.model import Task
from retune.api.production import Production
from retune.contract.results import Reason
from tests.unit.jobs.captured_for_tests import HOUR, NOW, Shop


def test_hours_older_than_the_retention_are_removed(shop: Shop) -> None:
    """An hour goes when its end is that long ago; what others put there stays."""
    for hours in (0, 5, 6, 30):
        shop.serve([hours], since=NOW - hours * HOUR)
    shop.file("readme.txt", hour=NOW - 30 * HOUR).write_text("keep me")
    shop.file(".server-1a2b3c4d-000009.parquet", hour=NOW - 6 * HOUR).write_bytes(b"left behind")
    foreign = shop.file("part-0.parquet", hour=NOW - 30 * HOUR)
    parquet.write_table(pa.table({"x": [1, 2]}), foreign)
    shop.file("torn.parquet", hour=NOW - 30 * HOUR).write_bytes(b"PAR1 and no more")
    (shop.captured / "date=old").mkdir()
    (shop.captured / "date=2020-01-01" / "hour=99").mkdir(parents=True)
    kept = Production(uri="pvc://shop/captured", retention="5h")
    assert prune(kept, now=NOW) == 3
    assert sorted(path.parent.name for path in shop.captured.rglob("*-*-*.parquet")) == ["hour=11", "hour=16"]
    assert foreign.is_file()
    assert foreign.with_name("torn.parquet").is_file()
    assert [folder_of(NOW), folder_of(NOW - 5 * HOUR)] == ["date=2025-11-24/hour=16", "date=2025-11-24/hour=11"]
    assert not (shop.captured / folder_of(NOW - 6 * HOUR)).exists()
    assert (shop.captured / folder_of(NOW - 30 * HOUR) / "readme.txt").read_text() == "keep me"
    assert (shop.captured / "date=2020-01-01" / "hour=99").is_dir()
    assert prune(kept, now=NOW) == 0


def test_captures_are_kept_for_ever_unless_asked(shop: Shop) -> None:
    """And a folder that is not there yet is no failure."""
    assert prune(Production(uri="pvc://shop/captured", retention="1h"), now=NOW) == 0
    shop.serve([0], since=NOW - 9000 * HOUR)
    assert prune(Production(uri="pvc://shop/captured"), now=NOW) == 0
    assert prune(Production(uri="pvc://shop/captured", retention="0s"), now=NOW) == 0
    assert len(list(shop.captured.rglob("*.parquet"))) == 1


def test_no_link_leads_the_tidying_elsewhere(shop: Shop, tmp_path: Path) -> None:
    """A link in place of a day's folder does not make the Job remove files beside the claim."""
    shop.serve([0], since=NOW - 100 * HOUR)
    day = (shop.captured / folder_of(NOW - 100 * HOUR)).parent
    day.rename(tmp_path / day.name)
    day.symlink_to(tmp_path / day.name)
    assert prune(Production(uri="pvc://shop/captured", retention="1h"), now=NOW) == 0
    assert list((tmp_path / day.name).rglob("*.parquet"))


def bucket_like(shop: Shop, *, retention: int, seed: int = 0) -> int:
    """Remove what is past its retention as in a bucket, by the same store and ranges of bytes on this machine."""
    place = files.folder(f"file://{shop.captured}")
    return prune_bucket(place, is_marked, before=NOW - retention * HOUR, seed=seed)


def test_a_bucket_keeps_what_is_young_and_what_is_not_ours(shop: Shop) -> None:
    """The same files go as on a volume, one with a footer longer than what is read at first among them."""
    for hours in (0, 5, 6, 30):
        shop.serve([hours], since=NOW - hours * HOUR)
    old = NOW - 30 * HOUR
    long = shop.file("long-footer.parquet", hour=old)
    parquet.write_table(pa.table({"x": [1]}).replace_schema_metadata(FORMAT | {"much": "x" * 100_000}), long)
    foreign = shop.file("part-0.parquet", hour=old)
    parquet.write_table(pa.table({"x": [1]}), foreign)
    torn = [(b"", "empty"), (b"PAR1", "short"), (b"PAR1 and no more", "torn"), (b"\xff" * 40 + b"PAR1", "wild")]
    for content, name in torn:
        shop.file(f"{name}.parquet", hour=old).write_bytes(content)
    shop.file("readme.txt", hour=old).write_text("keep me")
    deeper = foreign.parent / "deeper" / long.name
    deeper.parent.mkdir()
    deeper.write_bytes(long.read_bytes())
    (shop.captured / "date=2020-01-01" / "hour=99").mkdir(parents=True)
    odd = shop.captured / "date=2020-01-01" / "hour=99" / long.name
    odd.write_bytes(long.read_bytes())
    assert bucket_like(shop, retention=5) == 3
    assert sorted(path.parent.name for path in shop.captured.rglob("*-*-*.parquet")) == ["hour=11", "hour=16"]
    assert not long.exists()
    kept = [foreign, odd, deeper, *(foreign.with_name(f"{name}.parquet") for _, name in torn)]
    assert all(path.is_file() for path in [*kept, foreign.with_name("readme.txt")])
    assert bucket_like(shop, retention=5) == 0
    assert bucket_like(shop, retention=10**6) == 0


def test_what_a_check_removes_from_a_bucket_is_bounded_and_the_next_goes_on(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Files that stay do not hold up the others for ever: each check looks at other ones."""
    monkeypatch.setattr(bucket_retention, "LIMIT", 2)
    for number in range(5):
        parquet.write_table(pa.table({"x": [number]}), shop.file(f"foreign-{number}.parquet"))
    shop.serve([0], since=NOW)
    place, removed = files.folder(f"file://{shop.captured}"), []
    for check in range(50):
        removed.append(prune_bucket(place, is_marked, before=NOW + 2 * HOUR, seed=check))
        assert "has more files of hours past their retention: the next check goes on" in capsys.readouterr().out
    assert sum(removed) == 1
    assert len(list(shop.captured.rglob("*.parquet"))) == 5


class _Refusing:
    """In place of s3fs: deletes nothing of what is asked, and says so as Amazon's servers do."""

    def __init__(self, code: str) -> None:
        self.errors = [{"Key": "a/b", "Code": code, "Message": "so says the test"}]

    def call_s3(self, *_: object, **__: object) -> dict[str, object]:
        return {"ResponseMetadata": {"HTTPStatusCode": 200}, "Errors": self.errors}


def test_one_object_of_several_that_s3_does_not_delete_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer with status 200 may refuse single objects, for good or for now."""
    for code, kind in (("AccessDenied", Kind.FORBIDDEN), ("InternalError", Kind.NETWORK), ("SlowDown", Kind.THROTTLED)):
        monkeypatch.setattr(buckets, "open_system", lambda *_, code=code, **__: _Refusing(code))
        with pytest.raises(OSError, match=code) as caught:
            buckets.S3Bucket("models").delete(["a/b"])
        assert fault(caught.value, uri="s3://models/a/b", writing=True).kind is kind


def test_rows_become_scalar_columns_with_the_prediction_beside(shop: Shop, tmp_path: Path) -> None:
    """Every pixel is a column; the prediction is the model's answer, the confidence its largest share."""
    shop.serve(range(10), since=NOW)
    found = shop.read(tmp_path)
    frame = table(found, shop.signature)
    assert list(frame.columns) == [*(f"x[{place}]" for place in range(64)), "prediction", "confidence"]
    scores = shop.session.run({"x": shop.pixels[:40]})["scores"]
    np.testing.assert_array_equal(frame["prediction"], scores.argmax(axis=1))
    np.testing.assert_allclose(frame["confidence"], scores.max(axis=1), rtol=1e-6)
    named = table(found, shop.signature, classes=[f"digit {number}" for number in range(10)])
    assert named["prediction"].tolist() == [f"digit {number}" for number in scores.argmax(axis=1)]


def test_columns_have_the_data_sets_names() -> None:
    """Where the data set names the features of the only input, so does the table."""
    data = load_breast_cancer()
    signature = Signature(inputs=(TensorSpec(name="x", dtype="float32", shape=(-1, 30)),), outputs=())
    rows = Rows(inputs={"x": data.data.astype(np.float32)}, labels=data.target, digest="")
    names = [str(name) for name in data.feature_names]
    frame = table(rows, signature, names)
    assert list(frame.columns) == names
    np.testing.assert_allclose(frame["mean radius"], data.data[:, 0], rtol=1e-6)


def test_logits_become_shares(shop: Shop, tmp_path: Path) -> None:
    """Scores that are no probabilities are turned into some, so that a confidence lies between 0 and 1."""
    shop.serve(range(5), since=NOW)
    found = shop.read(tmp_path)
    logits = type(found)(
        found.request_ids,
        found.rows,
        found.times,
        found.models,
        found.inputs,
        {"scores": np.log(found.outputs["scores"] + 1e-9) + 3},
    )
    confidence = table(logits, shop.signature)["confidence"]
    np.testing.assert_allclose(confidence, found.outputs["scores"].max(axis=1), rtol=1e-4)


def test_a_regression_has_a_prediction_only(shop: Shop, tmp_path: Path) -> None:
    """A number is no class, whatever it looks like."""
    shop.serve(range(5), since=NOW)
    found = shop.read(tmp_path)
    single = type(found)(
        found.request_ids,
        found.rows,
        found.times,
        found.models,
        found.inputs,
        {"value": found.outputs["scores"][:, :1]},
    )
    frame = table(single, shop.signature, task=Task.REGRESSION)
    np.testing.assert_array_equal(frame["prediction"], found.outputs["scores"][:, 0])
    assert "confidence" not in frame


def test_a_reference_comes_back_with_the_labels_that_are_known(shop: Shop, tmp_path: Path) -> None:
    """Rows, answers, labels, groups and weights survive; a row without a label stays without."""
    shop.serve(range(10), since=NOW)
    rows = shop.read(tmp_path)
    labelled = np.arange(len(rows)) % 3 == 0
    path = shop.root / "reference.parquet"
    beside: dict[str, Any] = {
        "groups": np.asarray([f"u{place % 3}" for place in range(len(rows))]),
        "weights": np.arange(len(rows)) / 7,
    }
    reference = Reference(rows, labelled, shop.digits[: len(rows)][labelled], **beside)
    write_reference(path, reference, shop.signature)
    found = read_reference("pvc://shop/reference.parquet", shop.signature, into=tmp_path / "in")
    np.testing.assert_array_equal(found.rows.inputs["x"], rows.inputs["x"])
    np.testing.assert_array_equal(found.rows.outputs["scores"], rows.outputs["scores"])
    np.testing.assert_array_equal(found.labelled, labelled)
    np.testing.assert_array_equal(found.labels, shop.digits[: len(rows)][labelled])
    np.testing.assert_array_equal(found.groups, beside["groups"])
    np.testing.assert_array_equal(found.weights, beside["weights"])


def test_a_reference_that_others_put_there_is_not_believed(shop: Shop, tmp_path: Path) -> None:
    """Where its digest is known, a file of other rows is none, and the sentence says what to do."""
    shop.serve(range(10), since=NOW)
    rows = shop.read(tmp_path)
    path, uri = shop.root / "reference.parquet", "pvc://shop/reference.parquet"
    write_reference(path, Reference(rows, np.zeros(len(rows), dtype=np.bool_), np.empty(0)), shop.signature)
    digest = file_digest(path)
    assert len(read_reference(uri, shop.signature, into=tmp_path / "in", digest=digest).rows) == len(rows)
    some = rows.take(np.arange(len(rows) // 2))
    write_reference(path, Reference(some, np.zeros(len(some), dtype=np.bool_), np.empty(0)), shop.signature)
    with pytest.raises(JobError, match="not the file that was written when the model was proven") as caught:
        read_reference(uri, shop.signature, into=tmp_path / "again", digest=digest)
    assert caught.value.reason is Reason.DIGEST_MISMATCH
