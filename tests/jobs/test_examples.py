"""The examples do what their pages say: each is trained, looked at, and optimized on this machine."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from examples.fraud import train as fraud
from examples.text import train as text
from retune.cli import main as command_line
from retune.cli.follow import Exit

ROOT = Path(__file__).parents[2]
Json = dict[str, Any]

_LEFT_OUT = ("latency_p95_ms", "recall")
"""Objectives of the examples that need a minute to measure, or five hundred test rows of the rare class."""

pytestmark = pytest.mark.timeout(300)
"""Each is a whole search with its verdict."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder without a cluster."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    return tmp_path


def _looked_at(model: Path, *options: str) -> Json:
    """Return the manifest that `retune init` writes for a model."""
    told = ["init", str(model), "--data", str(model.parent), "--claim", "models", "-f", "guessed.yaml", *options]
    assert command_line.main(told) == Exit.DONE
    document: Json = yaml.safe_load(Path("guessed.yaml").read_text())
    return document


def _optimized(
    name: str, models: Path, capsys: pytest.CaptureFixture[str], *options: str, trials: int = 3
) -> tuple[Json, str]:
    """Return the verdict on the manifest of an example, and what was said on the way.

    Fewer trials, and no objective that few rows or little time cannot decide.
    """
    manifest = yaml.safe_load((ROOT / "examples" / name / "modeloptimization.yaml").read_text())
    manifest["spec"]["search"]["maxTrials"] = trials
    objectives = [each for each in manifest["spec"]["objectives"] if each["metric"] not in _LEFT_OUT]
    manifest["spec"]["objectives"] = objectives
    Path("mo.yaml").write_text(yaml.safe_dump(manifest))
    capsys.readouterr()
    told = ["optimize", "-f", "mo.yaml", "--claim", f"models={models}", "--threads", "1", "-o", "json", *options]
    assert command_line.main(told) == Exit.DONE
    said = capsys.readouterr()
    return json.loads(said.out), said.err


@pytest.mark.slow
def test_frauds_are_found_as_well_by_a_smaller_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """XGBoost's own file: trees are pruned and written shorter, and average precision is what decides."""
    monkeypatch.setattr(fraud, "SPLITS", {"training": 3000, "validation": 1500, "test": 4000})
    fraud.main(folder / "models")
    assert _looked_at(folder / "models" / "model.ubj")["spec"]["model"]["format"] == "XGBoost"
    result, said = _optimized("fraud", folder / "models", capsys)
    assert result["verdict"] == "Promote"
    assert "pruned by" in said
    assert "average precision" in result["message"]


@pytest.mark.slow
def test_leaves_of_lightgbm_learn_what_changed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """LightGBM's own file on rows whose columns came to mean something else: a search has a candidate that learned."""
    import lightgbm

    models, random = folder / "models", np.random.default_rng(0)
    models.mkdir()
    old = random.normal(size=(1500, 6)).astype(np.float32)
    data = lightgbm.Dataset(old, (old[:, 0] + old[:, 1] > 0).astype(int))
    lightgbm.train({"objective": "binary", "verbose": -1, "num_threads": 1}, data, 60).save_model(models / "model.txt")
    for name, count in {"training": 1500, "validation": 1000, "test": 2000}.items():
        X = random.normal(size=(count, 6)).astype(np.float32)
        np.savez(models / f"{name}.npz", x=X, label=(X[:, 0] - 0.3 * X[:, 1] > 0).astype(np.int64))
    manifest = _looked_at(models / "model.txt")
    assert manifest["spec"]["model"]["format"] == "LightGBM"
    manifest["spec"] |= {
        "objectives": [{"metric": "accuracy", "minGain": "0.05"}],
        "search": {"maxTrials": 5},
        "techniques": [{"name": "prune", "type": "Pruning"}],
    }
    Path("mo.yaml").write_text(yaml.safe_dump(manifest))
    capsys.readouterr()
    told = ["optimize", "-f", "mo.yaml", "--claim", f"models={models}", "--threads", "1", "-o", "json"]
    assert command_line.main(told) == Exit.DONE
    said = capsys.readouterr()
    assert json.loads(said.out)["verdict"] == "Promote"
    assert "leaves fitted to labels again" in said.err


def test_a_text_is_sorted_better_after_tuning(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pipeline that reads texts, opened only with the owner's consent: another C sorts more paragraphs right."""
    pytest.importorskip("skops", reason="a trusted pickle is kept in the format of skops")
    text.main(folder / "models")
    model = folder / "models" / "model.joblib"
    assert _looked_at(model, "--allow-code")["spec"]["model"]["format"] == "Joblib"
    result, _ = _optimized("text", folder / "models", capsys, "--allow-code")
    assert result["verdict"] == "Promote"
    assert "f1 macro" in result["message"].lower()
