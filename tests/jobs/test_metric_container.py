"""A metric in a container of the owner's own, behind the very shell loop that runs it in the cluster."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from optimizer_jobs import exchange
from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure import custom
from optimizer_jobs.measure.answers import Answers
from optimizer_jobs.measure.custom import CustomMetricError
from optimizer_jobs.measure.intervals import difference
from optimizer_jobs.measure.metrics.evaluation import Evaluation
from optimizer_jobs.measure.quality import evaluate
from optimizer_jobs.measure.yardstick import Yardstick
from retune.api.metrics import Metric
from retune.api.own_code import CustomMetric
from retune.cli import main as command_line
from retune.cli.follow import Exit
from retune.contract.exchange import METRIC_VARIABLE, command
from tests.jobs.test_custom_metric import DATA, INT8, pictures
from tests.unit.jobs import models_for_tests as models

EXAMPLE = Path(__file__).parents[2] / "examples" / "custom_metric" / "iou.py"
IMAGE = "registry.example/iou:1"
ROWS, SIDE = 40, 8
MASKS = """
import os
import numpy as np
from sklearn.metrics import jaccard_score

def masks(boxes):
    lines = np.arange(8)
    x, y, w, h = boxes.reshape(-1, 4).T[..., None]
    across, down = (lines >= x) & (lines < x + w), (lines >= y) & (lines < y + h)
    return (down[:, :, None] & across[:, None, :]).reshape(len(boxes), -1)

boxes, true = np.load(os.environ["RETUNE_OUTPUTS"])["boxes"], np.load(os.environ["RETUNE_LABELS"])["labels"]
scores = [jaccard_score(mask, other) for mask, other in zip(masks(true), masks(boxes))]
np.save(os.environ["RETUNE_RESULT"], scores)
"""
"""The overlap of boxes of whole numbers by another library's metric: of the pixels that they cover."""
READS = """
import os
import numpy as np
labels = np.load(os.environ["RETUNE_LABELS"])
boxes, true = np.load(os.environ["RETUNE_OUTPUTS"])["boxes"], labels["labels"].reshape(-1, 4)
errors = np.abs(boxes - true).mean(axis=1)
answer = lambda numbers: np.save(os.environ["RETUNE_RESULT"], numbers)
"""
StandBy = Callable[..., None]


@pytest.fixture
def stand_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandBy]:
    """Start the loop for a program, and tell this process of its folder; all it has started ends with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(program: str, *words: str) -> None:
        folder = tmp_path / f"exchange{len(started)}"
        folder.mkdir()
        line = words or (sys.executable, "-c", program)
        started.append(subprocess.Popen(command(str(folder), line), stdout=subprocess.DEVNULL, start_new_session=True))
        monkeypatch.setenv(METRIC_VARIABLE, str(folder))

    yield start
    for process in started:
        process.kill()
        process.communicate()


def whole_boxes(off: int, seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Return boxes of whole numbers, some of them moved by so many pixels, and the true ones as labels (N, 1, 4)."""
    true = pictures(seed, ROWS)[1]
    moved = np.random.default_rng(seed).integers(0, 2, (ROWS, 1)) * [off, 0, 0, 0]
    return {"boxes": true.reshape(ROWS, 4) + moved, "a/b": np.ones((ROWS, 2))}, true


def measured(
    outputs: dict[str, np.ndarray], labels: np.ndarray, metric: Metric = Metric.CUSTOM, **more: Any
) -> Evaluation:
    """Return what the container says."""
    arguments = more.pop("arguments", [])
    own = CustomMetric.model_validate({"container": {"image": IMAGE, "command": ["x"]}, "arguments": arguments})
    rows = Rows({"x": np.zeros((len(labels), 1))}, labels, digest="", **more)
    answers = Answers(values=outputs["boxes"], is_embedding=True, outputs=outputs)
    return evaluate(metric, answers, rows, yardstick=Yardstick(custom=own))


def test_the_example_says_what_another_library_says(stand_by: StandBy) -> None:
    """Intersection over union of boxes is the Jaccard index of their pixels, row by row, and paired intervals hold."""
    (near, true), (far, _) = whole_boxes(1), whole_boxes(2)
    stand_by("", sys.executable, str(EXAMPLE))
    before, after = measured(near, true), measured(far, true)
    strict = measured(far, true, arguments=[{"name": "least", "value": "0.5"}])
    stand_by(MASKS)
    independent = measured(near, true)

    np.testing.assert_allclose(before.scores, independent.scores)
    assert 0 < after.value < before.value < 1
    assert difference(Metric.CUSTOM, before, after)(0.95).high < 0
    np.testing.assert_allclose(strict.scores, np.where(after.scores >= 0.5, after.scores, 0.0))


def test_one_number_is_asked_again_on_rows_that_are_drawn_again(
    stand_by: StandBy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The draws are those that a mean has, the same for every model; groups stay whole and are two when drawn twice."""
    outputs, true = whole_boxes(1)
    stand_by(f"{READS}\nassert len(set(labels['groups'])) == 10\nanswer(errors.mean())")
    groups = np.repeat(np.arange(10)[::-1], 4)
    evaluation = measured(outputs, true, Metric.CUSTOM_LOSS, groups=groups)
    monkeypatch.setattr(custom, "LEAST_DRAWS", 4)
    assert evaluation.redrawn is not None
    drawn = evaluation.redrawn(4)

    errors = np.abs(outputs["boxes"] - true.reshape(ROWS, 4)).mean(axis=1)
    assert evaluation.value == pytest.approx(errors.mean())
    assert len(set(drawn.tolist())) > 1
    means = errors.reshape(10, 4).mean(axis=1)
    assert all(means.min() <= number <= means.max() for number in drawn)
    monkeypatch.setattr(custom, "RESAMPLING_SECONDS_BESIDE", 0.0)
    with pytest.raises(CustomMetricError, match=rf"metric container {IMAGE}: it was called . times in 0 s"):
        measured(outputs, true, Metric.CUSTOM_LOSS, groups=groups).redrawn(200)  # type: ignore[misc]


def test_one_number_a_group_counts_groups(stand_by: StandBy) -> None:
    """In the order in which the groups first come; weights of rows are refused."""
    outputs, true = whole_boxes(1)
    stand_by(f"{READS}\nanswer(np.bincount(labels['groups'], errors) / np.bincount(labels['groups']))")
    groups = np.repeat(["d", "a", "c", "b"], ROWS // 4)
    evaluation = measured(outputs, true, Metric.CUSTOM_LOSS, groups=groups)

    errors = np.abs(outputs["boxes"] - true.reshape(ROWS, 4)).mean(axis=1)
    np.testing.assert_allclose(evaluation.scores, errors.reshape(4, -1).mean(axis=1))
    assert evaluation.unit == "groups"
    with pytest.raises(CustomMetricError, match="one number a group, which cannot be weighted by rows"):
        measured(outputs, true, Metric.CUSTOM_LOSS, groups=groups, weights=np.ones(ROWS))


LIES = "open(os.environ['RETUNE_RESULT'], 'wb').write(b'\\x93NUMPY\\x01\\x00\\x76\\x00' + {header!r}.ljust(118))"
HUGE = LIES.format(header=b"{'descr': '<f8', 'fortran_order': False, 'shape': (10000000000000,), }")
PICKLED = LIES.format(header=b"{'descr': '|O', 'fortran_order': False, 'shape': (40,), }")


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("print('loading'); outputs['masks']", r"ended with exit code 1: \.\.\. NameError: name 'outputs'"),
        ("print('no box'); print('in row 7'); raise SystemExit(3)", r"exit code 3: \.\.\. in row 7$"),
        ("print('done')", r"left no file RETUNE_RESULT: \.\.\. done$"),
        ("answer(errors[:3])", r"it returned an array of shape \(3,\) for 40 rows"),
        ("answer(errors * np.nan)", "40 of the 40 numbers that it returned are not finite"),
        ("answer(-errors - 1)", "and a metric is at least 0"),
        ("answer(np.zeros(100_000))", "RETUNE_RESULT has more than 17024 bytes"),
        ("open(os.environ['RETUNE_RESULT'], 'w').write('0.5')", "RETUNE_RESULT is no NPY file of numbers"),
        ("answer(np.asarray(['a'] * 40))", "RETUNE_RESULT is no NPY file of numbers"),
        (HUGE, "RETUNE_RESULT is no NPY file of numbers"),
        (PICKLED, "RETUNE_RESULT is no NPY file of numbers"),
        ("os.symlink('/etc/passwd', os.environ['RETUNE_RESULT'])", "left no file RETUNE_RESULT"),
    ],
)
def test_every_fault_is_a_sentence_that_names_the_container(stand_by: StandBy, program: str, says: str) -> None:
    """With the last line that it printed, where it printed any; whatever it writes is nothing but numbers."""
    outputs, true = whole_boxes(1)
    stand_by(f"{READS}\n{program}")
    with pytest.raises(CustomMetricError, match=says) as raised:
        measured(outputs, true, Metric.CUSTOM_LOSS)
    assert str(raised.value).startswith(f"metric container {IMAGE}: ")
    assert "\n" not in str(raised.value)


def test_a_measurement_that_hangs_is_ended(stand_by: StandBy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The container is free for the next one."""
    monkeypatch.setattr(custom, "CALL_SECONDS", 1.0)
    outputs, true = whole_boxes(1)
    stand_by("", "sh", "-c", "echo waiting; sleep 4569")
    for _ in range(2):
        with pytest.raises(CustomMetricError, match=r"took longer than 1 s: \.\.\. waiting"):
            measured(outputs, true)
    assert "4569" not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


def test_nobody_standing_by_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where no container was started, nor where its image never comes."""
    outputs, true = whole_boxes(1)
    with pytest.raises(CustomMetricError, match="no container stands beside this process") as raised:
        measured(outputs, true)
    assert "--run-metric-here" in raised.value.refusal.next_step
    monkeypatch.setenv(METRIC_VARIABLE, str(tmp_path))
    monkeypatch.setattr(exchange, "READY_SECONDS", 0.3)
    with pytest.raises(CustomMetricError, match="did not stand by within"):
        measured(outputs, true)


def test_a_link_of_the_container_leads_nowhere(tmp_path: Path) -> None:
    """What the Job writes into the shared folder never goes where a link there points."""
    victim, link = tmp_path / "bundle.json", tmp_path / "outputs.npz"
    victim.write_text("whole")
    link.symlink_to(victim)
    with exchange.created(link) as file:
        file.write(b"other")
    assert victim.read_text() == "whole"
    assert link.read_bytes() == b"other"


def detector(folder: Path) -> None:
    """Write a detector of one box a picture and its data: it answers the bright columns and lines of a picture."""
    from onnx import helper
    from sklearn.linear_model import Ridge

    folder.mkdir()
    for seed, split in enumerate(DATA):
        x, boxes = pictures(seed)
        np.savez(folder / f"{split}.npz", x=x, label=boxes)
    x, boxes = pictures(7, rows=3000)
    hidden = np.random.default_rng(0).normal(0, 0.3, (SIDE * SIDE, 256)).astype(np.float32)
    head = Ridge(alpha=1.0).fit(np.maximum(x @ hidden, 0), boxes.reshape(-1, 4))
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], name="hidden"),
        helper.make_node("Relu", ["h"], ["r"], name="relu"),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["boxes"], name="head"),
    ]
    weights: dict[str, Any] = {"w1": hidden, "w2": head.coef_.T, "b2": head.intercept_}
    models.save_graph(folder / "detector.onnx", nodes, weights, output="boxes", width=4)


WORDS = ["optimize", "-f", "mo.yaml", "--threads", "1", "-o", "json"]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Write a detector, and return what writes the spec that measures it by a command."""
    detector(tmp_path / "c")
    monkeypatch.chdir(tmp_path)
    limit = {"metric": "custom", "role": "Constrain", "goal": {"type": "MaxDegradation", "value": "0.05"}}

    def write(*words: str) -> None:
        own = {"container": {"image": IMAGE, "command": list(words)}}
        spec: dict[str, Any] = {
            "model": {"uri": "pvc://c/detector.onnx", "task": "Embedding", "customMetric": own},
            "data": DATA,
            "objectives": [limit, {"metric": "size_bytes"}],
            "techniques": [INT8],
            "search": {"maxTrials": 2, "finalists": 1},
            "target": {"ref": {"name": "detector"}},
        }
        document = {"kind": "ModelOptimization", "metadata": {"name": "detector"}, "spec": spec}
        (tmp_path / "mo.yaml").write_text(yaml.safe_dump(document))

    return write


@pytest.mark.slow
def test_a_detector_is_optimized_here_by_the_example(
    written: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Where it is allowed to run here, every Job measures by it: baseline, search and judge."""
    written(sys.executable, str(EXAMPLE))
    assert command_line.main([*WORDS, "--run-metric-here"]) == Exit.DONE
    result = json.loads(capsys.readouterr().out)
    overlap = next(each for each in result["comparisons"] if each["name"] == "custom")

    assert result["verdict"] == "Promote", result["message"]
    assert 0.3 < float(overlap["champion"]["low"]) < float(overlap["champion"]["value"]) < 1
    assert float(overlap["change"]["low"]) > -0.05


def test_a_command_that_measures_runs_here_only_when_allowed(
    written: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Else it is refused in words that name the option; what then fails is told by the baseline."""
    written("sh", "-c", "echo no GPU here; exit 9")
    assert command_line.main(WORDS) == Exit.USAGE
    refused = capsys.readouterr().err
    assert f"model.customMetric measures in image {IMAGE}" in refused
    assert "add --run-metric-here" in refused
    assert command_line.main([*WORDS, "--run-metric-here"]) == Exit.USAGE
    told = capsys.readouterr().err
    assert f"metric container {IMAGE}: the measurement ended with exit code 9: ... no GPU here" in told
