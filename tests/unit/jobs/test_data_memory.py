"""A data set that does not fit into memory is too large, and never broken: nobody is asked to correct it."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from optimizer_jobs.data.memory import memory_told, room_for
from optimizer_jobs.errors import JobError
from retune.contract.results import Reason

ROWS = 3_000_000
SCRIPT = """
import json, sys, tempfile
from pathlib import Path
import numpy, pyarrow, pyarrow.csv, pyarrow.parquet
from optimizer_jobs.data.datasets import open_dataset
from optimizer_jobs.data.memory import room_for
from optimizer_jobs.errors import JobError
from optimizer_jobs.models.memory import bound_memory
from retune.api.model import Dataset

said = {}
bound_memory(int(sys.argv[1]) << 20)
for name in sys.argv[2:]:
    with tempfile.TemporaryDirectory() as scratch:
        try:
            uri = f"pvc://large/{name}"
            columns = open_dataset(Dataset(uri=uri), into=Path(scratch))
            with room_for(uri):
                held = [columns.read(column).astype(float) for column in columns.names]
            said[name] = "read"
        except JobError as error:
            said[name] = [error.reason, error.object]
print(json.dumps(said))
"""


def reading(folder: Path, megabytes: int, *names: str) -> dict[str, object]:
    """Read files in a process that may take so much memory of its own."""
    environment = {"RETUNE_CLAIM_ROOT": str(folder), "PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"}
    environment |= {"OPENBLAS_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"}
    command = [sys.executable, "-c", SCRIPT, str(megabytes), *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    said: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return said


@pytest.mark.parametrize("name", ["large.parquet", "large.npz"])
def test_a_data_set_that_does_not_fit_is_too_large(name: str, tmp_path: Path) -> None:
    """The file is named, and it is not said to be broken."""
    folder = tmp_path / "large"
    folder.mkdir()
    numbers = np.arange(ROWS, dtype=np.float64)
    parquet.write_table(pa.table({"a": numbers, "b": numbers}), folder / "large.parquet")
    np.savez_compressed(folder / "large.npz", x=np.zeros((ROWS, 4)))
    assert reading(tmp_path, 110, name) == {name: [Reason.DATA_TOO_LARGE, f"pvc://large/{name}"]}


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 8 GiB for an array"),
        pa.lib.ArrowMemoryError("malloc of size 8589934592 failed"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        OSError(errno.EAGAIN, "thread constructor failed: Resource temporarily unavailable"),
        OSError("Memory mapping file failed: Cannot allocate memory"),
    ],
)
def test_whoever_says_that_memory_ran_out_is_understood(error: Exception) -> None:
    """Arrow's error is one for broken files too, and the kernel's one of those for files that cannot be read."""
    with pytest.raises(JobError) as caught, room_for("pvc://a/b.csv"), memory_told():
        raise error
    assert caught.value.reason is Reason.DATA_TOO_LARGE
    assert caught.value.object == "pvc://a/b.csv"
    assert "limits.memory" in caught.value.next_step
    assert not isinstance(caught.value.__cause__, pa.ArrowException)


@pytest.mark.parametrize("error", [pa.ArrowInvalid("no magic bytes"), OSError(errno.EIO, "Input/output error")])
def test_another_error_passes_unchanged(error: Exception) -> None:
    """A broken file is not helped by memory."""
    with pytest.raises(type(error)) as caught, room_for("pvc://a/b.csv"), memory_told():
        raise error
    assert caught.value is error
