"""A model server captures what it answers in a bucket of a real server, without any volume."""

import json
from pathlib import Path
from uuid import uuid4

import numpy as np
import pytest
import retune_runtime
from pyarrow import parquet

from optimizer_jobs.production import files
from optimizer_jobs.production.writer import DROPPED
from tests.storage.servers import BUCKET
from tests.unit.jobs.conftest import delivered

pytest.importorskip("s3fs")

__all__ = ["delivered"]
ROWS = 3


def asked(number: int) -> dict[str, object]:
    """A request of three rows, each pixel of which is its number."""
    values = np.full((ROWS, 64), number / 10, np.float32)
    tensor = {"name": "x", "shape": [ROWS, 64], "datatype": "FP32", "data": values.ravel().tolist()}
    return {"id": f"request-{number}", "inputs": [tensor]}


def lost() -> float:
    """Rows that were not captured, in this process so far."""
    return sum(
        sample.value for metric in DROPPED.collect() for sample in metric.samples if sample.name.endswith("_total")
    )


def test_what_is_answered_lies_in_the_bucket_as_on_a_volume(bucket: str, delivered: Path, tmp_path: Path) -> None:
    """By day and hour, in the capture format, every row once; and the environment is left as it was."""
    served, uri = retune_runtime.open(delivered / "mlp.onnx"), f"{bucket}/captured-{uuid4().hex}"
    served.capture_to(uri)
    for number in range(4):
        json.dumps(served.answer(asked(number)))
    served.close()
    (listed,) = files.under(uri)
    assert listed.location.uri.startswith(f"{uri}/date=")
    with files.opened(listed, into=tmp_path) as file:
        table = parquet.read_table(file)
    assert table["request_id"].to_pylist() == [f"request-{number}" for number in range(4) for _ in range(ROWS)]
    assert {"input.x", "output.scores"} <= set(table.column_names)


@pytest.mark.usefixtures("s3")
def test_a_bucket_that_refuses_costs_rows_and_no_answer(delivered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model server goes on; what is lost is counted."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    before = lost()
    served = retune_runtime.open(delivered / "mlp.onnx")
    served.capture_to(f"s3://{BUCKET}/elsewhere")
    assert served.answer(asked(1))["outputs"]
    served.close()
    assert lost() == before + ROWS
