"""`retune init` on dated tables: one table is divided by time, and test data from before training is refused."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from skl2onnx import to_onnx
from sklearn.linear_model import Ridge

from retune.cli import main as command_line
from retune.cli.follow import Exit
from retune.cli.local.optimize import read_manifest

LAGS, STEPS = 8, 4


@pytest.fixture
def forecasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A forecast of four hours from the eight before, as ONNX, and its table with a row an hour, shuffled."""
    monkeypatch.chdir(tmp_path)
    hours = np.arange(500)
    load = np.sin(hours * 2 * np.pi / 24) + np.random.default_rng(0).normal(scale=0.1, size=len(hours))
    windows = np.lib.stride_tricks.sliding_window_view(load, LAGS + STEPS)
    names = [*(f"before{lag}" for lag in range(LAGS, 0, -1)), *(f"h{step}" for step in range(1, STEPS + 1))]
    table = pd.DataFrame(windows, columns=names)
    table.insert(0, "when", pd.date_range("2026-01-01", periods=len(table), freq="h").astype(str))
    X, Y = windows[:, :LAGS].astype(np.float32), windows[:, LAGS:]
    Path("model.onnx").write_bytes(to_onnx(Ridge().fit(X[:290], Y[:290]), X[:1]).SerializeToString())
    table.sample(frac=1, random_state=0).to_csv("load.csv", index=False)
    return tmp_path


@pytest.mark.slow
def test_one_dated_table_is_divided_by_time(forecasts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The manifest names files in the order of time, without rows whose steps reach over a border; twice the same."""
    assert command_line.main(["init", "model.onnx", "--time", "when", "-f", "mo.yaml"]) == Exit.DONE
    told = capsys.readouterr().err
    assert "divided by time into files in load-by-time: training until 2026-01-13T05:00:00" in told
    assert "4 training rows and 4 validation rows are left out" in told
    data = read_manifest(Path("mo.yaml")).spec.data
    assert data.training is not None
    assert data.test is not None
    sets = (data.training, data.validation, data.test)
    assert [spec.uri for spec in sets] == [
        f"pvc://models/load-by-time/{name}.csv" for name in ("train", "validation", "test")
    ]
    assert {(spec.time_column, spec.labels) for spec in sets} == {("when", ("h1", "h2", "h3", "h4"))}
    parts = [pd.read_csv(forecasts / "load-by-time" / f"{name}.csv") for name in ("train", "validation", "test")]
    assert [len(part) for part in parts] == [290, 94, 97]
    times = pd.concat(parts)["when"]
    assert times.is_monotonic_increasing
    assert command_line.main(["init", "model.onnx", "--time", "when", "-f", "again.yaml"]) == Exit.DONE
    assert (forecasts / "again.yaml").read_text() == (forecasts / "mo.yaml").read_text()


def test_a_table_without_a_role_asks_for_its_time(forecasts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The refusal names the option, and nothing is written."""
    assert command_line.main(["init", "model.onnx", "--data", "load.csv"]) == Exit.USAGE
    assert "one dated table is divided by time with --time COLUMN" in capsys.readouterr().err
    assert not (forecasts / "load-by-time").exists()


def test_test_data_from_before_training_is_refused(forecasts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was learned later judges nothing; without the column of times, nobody could know."""
    table = pd.read_csv("load.csv").sort_values("when")
    for name, rows in {"test": slice(0, 100), "val": slice(100, 200), "train": slice(200, None)}.items():
        table[rows].to_csv(f"{name}.csv", index=False)
    (forecasts / "load.csv").unlink()
    assert command_line.main(["init", "model.onnx", "--time", "when"]) == Exit.USAGE
    error = capsys.readouterr().err
    assert "all 100 test rows are earlier than every training row (they end at 2026-01-05T03:00:00" in error
    assert "Give the newest rows as test data" in error


@pytest.mark.slow
def test_years_are_told_as_years_and_are_no_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A number is a time too: it is told as it is written, and is not among the columns that may be labels."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    table = pd.DataFrame({"year": np.repeat(np.arange(1990, 2010), 30), "a": random.normal(size=600)})
    table["b"] = random.normal(size=600)
    table["size"] = table.a + 2 * table.b + random.normal(scale=0.1, size=600)
    X = table[["a", "b"]].to_numpy(np.float32)
    Path("model.onnx").write_bytes(to_onnx(Ridge().fit(X, table["size"]), X[:1]).SerializeToString())
    table.to_csv("sizes.csv", index=False)
    assert command_line.main(["init", "model.onnx", "--time", "year"]) == Exit.USAGE
    error = capsys.readouterr().err
    assert "the table has 3 columns" in error
    assert "which column holds the labels: a, b, size. Name it with --label." in error
    assert command_line.main(["init", "model.onnx", "--time", "year", "--label", "size"]) == Exit.DONE
    told = capsys.readouterr().err
    assert "training until 2001, validation until 2005, test until 2009" in told
    assert "left out" not in told
