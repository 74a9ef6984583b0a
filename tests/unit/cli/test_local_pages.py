"""What `retune doctor` and the end of `retune optimize` say, as pure words of what was found out."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from retune.api.objects import OptimizationRun
from retune.cli.local import pages
from retune.cli.local.ending import after, usage
from retune.cli.local.optimize import Finished
from retune.contract.machines import Machine, Package, SurveyResult
from retune.contract.results import JudgeResult

MACHINE = Machine(cpu="A", architecture="amd64", cores=2, features=("avx2",), memory_bytes=1 << 30, available_bytes=1)
INPUTS = [{"name": "it's", "dtype": "float32", "shape": [-1, 4]}]


def survey(*packages: Package) -> SurveyResult:
    """Return an environment with these packages."""
    return SurveyResult(python="3.11.7", packages=packages, parts=(), machine=MACHINE)


def test_each_command_brings_one_thing_and_the_last_brings_all() -> None:
    """In this very Python environment, with bounds that a shell does not take for redirections."""
    torch = Package(name="torch", brings="networks", wanted=">=2.9,<3", fits=False)
    skops = Package(name="skops", brings="estimators", wanted=">=0.13,<1", version="0.2", fits=False)
    numpy = Package(name="numpy", brings="every Job", wanted=">=2", version="2.4", fits=True)
    commands = pages.cures(survey(numpy, torch, skops))
    assert list(commands) == ["networks", "estimators", "all of it"]
    words = [sys.executable, "-m", "pip", "install", "torch>=2.9,<3", "skops>=0.13,<1"]
    assert shlex.split(commands["all of it"]) == words
    assert list(pages.cures(survey(numpy, torch))) == ["networks"]
    assert pages.cures(survey(numpy)) == {}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A folder with the manifest of a bundle for ONNX Runtime."""
    folder = tmp_path / "bundle"
    folder.mkdir()
    save(folder, engine="onnxruntime")
    return folder


def save(folder: Path, *, engine: str) -> None:
    """Write the manifest of a bundle."""
    document = {"engine": {"engine": engine}, "signature": {"inputs": INPUTS, "outputs": []}}
    (folder / "bundle.json").write_text(json.dumps(document))


def finished(verdict: str, reason: str, *, training: bool = True, **folders: Path | None) -> Finished:
    """Return a run that ended so."""
    data = {"validation": {"uri": "pvc://m/v.npz"}, "test": {"uri": "pvc://m/t.npz"}}
    data |= {"training": {"uri": "pvc://m/r.npz"}} if training else {}
    model, objectives = {"uri": "pvc://m/m.onnx"}, [{"metric": "size_bytes"}]
    spec: dict[str, Any] = {
        "number": 1,
        "trigger": {"reason": "Manual", "message": "started by hand"},
        "specGeneration": 1,
        "specHash": "h",
        "championVersion": 1,
        "championDigest": "sha256:0",
        "snapshot": {"model": model, "data": data, "objectives": objectives, "search": {"maxTrials": 7}},
    }
    metadata = {"name": "m-r1", "namespace": "local", "uid": "local"}
    result = {
        "specHash": "h",
        "run": "m-r1",
        "championDigest": "sha256:0",
        "verdict": verdict,
        "reason": reason,
        "message": "because",
        "report": "pvc://store/report.html",
        "fingerprint": "f",
    }
    return Finished(
        run=OptimizationRun.model_validate({"metadata": metadata, "spec": spec}),
        result=JudgeResult.model_validate(result),
        report=Path("report.html"),
        bundle=folders.get("bundle"),
        kept=folders.get("kept"),
        original=Path("store/bundles/1"),
    )


@pytest.mark.parametrize(("engine", "library"), [("onnxruntime", "onnxruntime"), ("openvino", "openvino")])
def test_three_lines_of_python_use_a_bundle(engine: str, library: str, bundle: Path) -> None:
    """With the engine that it was judged with, and quotes in names survive."""
    save(bundle, engine=engine)
    _, *lines = usage(bundle).splitlines()
    assert len(lines) == 3
    compile("\n".join(line.strip() for line in lines), "usage", "exec")
    assert lines[0].strip() == f"import {library}"
    assert str(bundle / "model.onnx") in lines[1]
    assert lines[2].endswith("# it's float32 (N, 4)")


def test_each_end_says_what_to_do_next(bundle: Path) -> None:
    """A winner is used; without one, what may help is named, and where the delivered model lies."""
    assert after(finished("Promote", "SmallerAtEqualQuality", bundle=bundle)).startswith("use it in Python:")
    kept = after(finished("GateFailed", "TooFewTestRows", kept=bundle))
    assert "give more test rows" in kept
    assert f"kept in {bundle}\nuse it in Python:" in kept
    assert "allow a larger loss" in after(finished("GateFailed", "AccuracyBelowMargin"))
    none = after(finished("NoGain", "NoRelevantGain", training=False))
    assert "give spec.data.training" in none
    assert "more than 7 trials" in none
    assert "store/bundles/1/model.onnx" in none
    assert "nothing else runs" in after(finished("NoGain", "MeasurementUnreliable"))
