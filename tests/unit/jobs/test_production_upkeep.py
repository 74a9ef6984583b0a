"""Old captures are removed and nothing else; rows become the columns that drift is measured on."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from sklearn.datasets import load_breast_cancer

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.data.volumes import file_digest
from optimizer_jobs.errors import JobError
from optimizer_jobs.production.features import table
from optimizer_jobs.production.layout import folder_of
from optimizer_jobs.production.reference import Reference, read_reference, write_reference
from optimizer_jobs.production.retention import prune
from optimizer_jobs.signature import Signature, TensorSpec
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
    beside = {
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
