"""A training program of the user's own, behind the very shell loop that runs it in the cluster."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from optimizer_jobs import exchange
from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.machinery.training import container
from optimizer_jobs.machinery.training.exchange import CustomTrainingError
from optimizer_jobs.models.onnx_file import check_onnx
from optimizer_jobs.technique import Applied, Context, StoppedEarlyError
from optimizer_jobs.techniques import custom_training
from optimizer_jobs.techniques.steps import Step, build
from retune.api.techniques import Parameter, Technique, TechniqueType, TrainingContainer
from retune.cli import main as command_line
from retune.cli.follow import Exit
from retune.contract.exchange import EXCHANGE_VARIABLE, command
from tests.unit.jobs import models_for_tests as models

PROGRAM = (Path(__file__).parents[2] / "examples" / "custom_training" / "train.py").read_text()
PARAMS: dict[str, Any] = {"hidden": 24, "learning_rate": 0.01, "#command": "0", "#timeout": 60.0}
StandBy = Callable[..., Path]


@pytest.fixture
def stand_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandBy]:
    """Start the loop for a program, and tell the worker of its folder; all it has started ends with the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(program: str = PROGRAM, *words: str) -> Path:
        folder = tmp_path / "exchange"
        folder.mkdir(exist_ok=True)
        line = words or (sys.executable, "-c", program)
        started.append(subprocess.Popen(command(str(folder), line), stdout=subprocess.PIPE, start_new_session=True))
        monkeypatch.setenv(EXCHANGE_VARIABLE, str(folder))
        return folder

    yield start
    for process in started:
        process.kill()
        process.communicate()


def context(splits: dict[str, Rows], model: Path, workdir: Path, **more: Any) -> Context:
    """What the step gets from a search."""
    workdir.mkdir(exist_ok=True)
    return Context(
        workdir=workdir,
        signature=check_onnx(model),
        training=splits["training"],
        validation=splits["validation"],
        seed=3,
        cpu_flags=frozenset(),
        **more,
    )


@pytest.fixture
def apply(splits: dict[str, Rows], delivered: Path, tmp_path: Path) -> Callable[..., Any]:
    """Apply the technique to the digits' perceptron."""

    def run(params: dict[str, Any] | None = None, **more: Any) -> Any:
        model = delivered / "mlp.onnx"
        return custom_training.apply(
            model, {**PARAMS, **(params or {})}, context(splits, model, tmp_path / "work", **more)
        )

    return run


def test_the_program_trains_with_its_parameters(stand_by: StandBy, apply: Callable[..., Any]) -> None:
    """Every epoch is heard of, the parameters shape the model, and nothing of the trial stays behind."""
    folder = stand_by()
    heard: list[tuple[int, float]] = []
    made = apply(report=lambda epoch, quality: heard.append((epoch, quality)))
    assert [epoch for epoch, _ in heard] == list(range(1, 26))
    assert heard[-1][1] > 0.9
    assert isinstance(made, Applied)
    assert made.summary == "trained by its own container, hidden 24, learning rate 0.01"
    assert check_onnx(made.model).outputs[0].shape == (-1, 10)
    assert made.model.stat().st_size < 4 * 64 * 40
    assert list((folder / "trials").iterdir()) == []


def test_a_training_that_falls_behind_is_ended_at_once(stand_by: StandBy, apply: Callable[..., Any]) -> None:
    """What the program has started ends with it, and the next trial finds the loop ready."""
    slow = PROGRAM.replace("for epoch", "import subprocess; subprocess.Popen(['sleep', '4567'])\n        for epoch")
    slow = slow.replace("network.partial_fit(", "import time; time.sleep(0.05); network.partial_fit(")
    stand_by(slow)

    def report(epoch: int, _: float) -> None:
        if epoch >= 2:
            raise StoppedEarlyError("behind")

    with pytest.raises(StoppedEarlyError):
        apply(report=report)
    assert "4567" not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    with pytest.raises(StoppedEarlyError):
        apply({"hidden": 8}, report=report)


def tells(metrics: str) -> str:
    """A program that tells this and no more."""
    return f"import os; open(os.environ['RETUNE_METRICS'], 'w').write('{metrics}')"


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("print('no disk left'); raise SystemExit(7)", "exit code 7: ... no disk left"),
        ("pass", "left no model.onnx in RETUNE_OUTPUT, but nothing"),
        ("import os; open(os.environ['RETUNE_OUTPUT'] + '/model.onnx', 'wb').write(b'no model')", "not an ONNX file"),
        ("import os; os.symlink('/etc/passwd', os.environ['RETUNE_OUTPUT'] + '/model.onnx')", "left no model.onnx"),
        (tells("epoch one\\n"), "line 1 of the metrics is epoch one"),
        (tells('{"epoch": 1, "quality": NaN}\\n'), "line 1 of"),
        (tells("7" * 9000), "more than"),
        (PROGRAM.replace("graph = helper", "delivered.output[0].name = scores = 'z'; graph = helper"), "-> z float32"),
    ],
)
def test_what_is_no_model_is_said(stand_by: StandBy, apply: Callable[..., Any], program: str, says: str) -> None:
    """Whatever comes back that is not the same kind of model fails the trial, with the program's own last words."""
    stand_by(program)
    with pytest.raises(CustomTrainingError) as raised:
        apply()
    assert says in str(raised.value)


def test_a_training_that_takes_too_long_is_ended(stand_by: StandBy, apply: Callable[..., Any]) -> None:
    """The timeout is the spec's; the program is gone when it is told."""
    folder = stand_by("", "sh", "-c", "echo starting; sleep 600")
    with pytest.raises(CustomTrainingError, match=r"longer than 0.5 s: \.\.\. starting"):
        apply({"#timeout": 0.5})
    assert "sleep 600" not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert not (folder / "request").exists()


def test_a_model_that_is_too_large_is_not_taken(
    stand_by: StandBy, apply: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing larger than a delivered model may be is copied."""
    monkeypatch.setattr(container, "MODEL_LIMIT_BYTES", 100_000)
    stand_by("import os; open(os.environ['RETUNE_OUTPUT'] + '/model.onnx', 'wb').write(b'0' * 200_000)")
    with pytest.raises(CustomTrainingError, match="more than 100000 bytes"):
        apply()


def test_a_container_that_was_killed_has_ended_its_trial(stand_by: StandBy, apply: Callable[..., Any]) -> None:
    """When the loop comes back after the kernel took its memory, the trial it had is over and said to be."""
    folder = stand_by("", "sh", "-c", "kill -KILL $PPID; sleep 1")

    def revive() -> None:
        if list(folder.glob("trials/*/pid")):
            time.sleep(0.3)
            stand_by()

    with pytest.raises(CustomTrainingError, match="exit code 143"):
        apply(alive=revive)


def test_nobody_standing_by_is_said(tmp_path: Path, apply: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A container whose image cannot be pulled fails the trial instead of holding it for ever."""
    monkeypatch.setenv(EXCHANGE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(exchange, "READY_SECONDS", 0.3)
    with pytest.raises(CustomTrainingError, match="did not stand by"):
        apply()


def test_the_same_training_is_done_once(
    stand_by: StandBy, splits: dict[str, Rows], delivered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kept result is used again; another parameter or another image makes another one."""
    stand_by()
    model = delivered / "mlp.onnx"
    work = context(splits, model, tmp_path / "work")

    def made(**changes: Any) -> bytes:
        step = Step(name="train", type=TechniqueType.CUSTOM_TRAINING, params={**PARAMS, **changes})
        return build(model, [step], context=work, kept=tmp_path / "kept").model.read_bytes()

    first = made()
    monkeypatch.delenv(EXCHANGE_VARIABLE)
    assert made() == first
    monkeypatch.setenv(EXCHANGE_VARIABLE, str(tmp_path / "nobody"))
    impatient = context(splits, model, tmp_path / "work", alive=_no_time)
    another = Step(name="train", type=TechniqueType.CUSTOM_TRAINING, params={**PARAMS, "#command": "another"})
    with pytest.raises(StoppedEarlyError):
        build(model, [another], context=impatient, kept=tmp_path / "kept")


def _no_time() -> None:
    raise StoppedEarlyError("no time left")


def test_a_search_shapes_the_parameters(stand_by: StandBy) -> None:
    """Parameters are those of the spec; image and command count for the result, and the recipe leaves it out."""
    from optuna.trial import FixedTrial

    subject = models.subject()
    spec = Technique(
        name="mine",
        type=TechniqueType.CUSTOM_TRAINING,
        container=TrainingContainer(
            image="registry.example/train:1",
            command=("train",),
            parameters=(Parameter(name="learning_rate", min="0.001", max="0.1", log=True),),
        ),
    )
    assert "no training container stands beside" in (custom_training.unavailable(subject, spec) or "")
    stand_by()
    assert custom_training.unavailable(subject, spec) is None
    (told,) = custom_training.defaults(spec, subject)
    params = custom_training.suggest(FixedTrial(told), spec, subject)
    assert params is not None
    assert params["learning_rate"] == pytest.approx(0.01)
    assert custom_training.suggest(FixedTrial(custom_training.off(spec, subject)), spec, subject) is None
    bare = Technique(name="mine", type=TechniqueType.CUSTOM_TRAINING)
    assert "needs techniques[].container" in (custom_training.unavailable(subject, bare) or "")


def own_training() -> dict[str, Any]:
    """Return a spec whose models a command of its owner trains."""
    return {
        "model": {"uri": "pvc://digits/mlp.onnx"},
        "data": {name: {"uri": f"pvc://digits/{name}.npz"} for name in ("training", "validation", "test")},
        "objectives": [
            {"metric": "accuracy", "role": "Constrain", "goal": {"type": "MaxDegradation", "value": "0.08"}},
            {"metric": "size_bytes"},
        ],
        "techniques": [
            {
                "name": "mine",
                "type": "CustomTraining",
                "container": {
                    "image": "registry.example/train:1",
                    "command": [sys.executable, "-c", PROGRAM],
                    "parameters": [
                        {"name": "hidden", "values": ["32", "64"]},
                        {"name": "learning_rate", "values": ["0.01"]},
                    ],
                },
            }
        ],
        "search": {"maxTrials": 3, "parallelism": 2},
        "target": {"ref": {"name": "digits"}},
    }


@pytest.mark.slow
def test_a_command_runs_here_only_when_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`retune optimize` refuses to run a user's command unless told to in words, and then finds what it trained."""
    import yaml

    folder = tmp_path / "digits"
    folder.mkdir()
    models.save_mlp(folder / "mlp.onnx", models.fit_mlp())
    models.save_digits(folder)
    monkeypatch.chdir(tmp_path)
    document: dict[str, Any] = {"kind": "ModelOptimization", "metadata": {"name": "digits"}, "spec": own_training()}
    (tmp_path / "mo.yaml").write_text(yaml.safe_dump(document))
    words = ["optimize", "-f", "mo.yaml", "--threads", "1", "-o", "json"]
    assert command_line.main(words) == Exit.USAGE
    assert "add --run-training-here" in capsys.readouterr().err
    assert command_line.main([*words, "--run-training-here"]) == Exit.DONE
    result = json.loads(capsys.readouterr().out)
    assert (result["verdict"], result["reason"]) == ("Promote", "SmallerAtEqualQuality")
    assert "trained by its own container" in result["candidate"]["techniques"][0]
    document["spec"]["techniques"][0]["container"]["command"] = ["sh", "-c", "echo no more disk; exit 3"]
    document["spec"]["search"] = {"maxTrials": 2, "warmStart": False}
    (tmp_path / "mo.yaml").write_text(yaml.safe_dump(document))
    assert command_line.main([*words, "--run-training-here"]) == Exit.DONE
    result = json.loads(capsys.readouterr().out)
    assert result["reason"] == "NoFinalist"
    assert "1 of 2 trials failed, the last one so: CustomTrainingError" in result["message"]
    assert "no more disk" in result["message"]
