"""A search on a disk that fills up or loses what was written: it says so, and goes on where it stood afterwards."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from optuna.trial import TrialState

from optimizer_jobs.commands.search.command import run
from optimizer_jobs.data.uris import resolve
from optimizer_jobs.run import execute
from optimizer_jobs.seal import Seal, study_seal
from optimizer_jobs.study.trials import counted, number_of, open_study, trials_table
from optimizer_jobs.technique import Applied, Context, Params, Skipped
from optimizer_jobs.techniques.registry import TECHNIQUES
from optimizer_jobs.techniques.steps import Step, build, digest
from retune.api.search import Search
from retune.api.techniques import TechniqueType
from retune.contract.paths import QUOTA_VARIABLE, run_folder
from retune.contract.requests import SearchRequest
from retune.contract.results import Failure, Reason, SearchResult
from tests.jobs.test_search_command import ask  # noqa: F401 - the same requests
from tests.unit.jobs.conftest import Claims
from tests.unit.jobs.faults import mounted_tmpfs

Ask = Callable[..., SearchRequest]
QUANTIZE = Step(
    name="int8",
    type=TechniqueType.QUANTIZATION,
    params={
        "scheme": "Dynamic",
        "method": "MinMax",
        "per_channel": True,
        "scope": "LayersAndBetween",
        "samples": 64,
        "fallback": "None",
    },
)


@pytest.fixture
def small_disk(claims: Claims) -> Iterator[Path]:
    """The claim of the store, on a file system with room for the first version and little more."""
    with mounted_tmpfs(claims.root / "retune-artifacts", size="320k") as folder:
        yield folder


def answer_of(request: SearchRequest, folder: Path) -> tuple[Failure | SearchResult, int]:
    """Return what the Job answers, and its exit code."""
    file = folder / "request.json"
    file.write_text(request.model_dump_json(by_alias=True))
    result, code = execute(file)
    assert isinstance(result, Failure | SearchResult)
    return result, code


def test_a_full_disk_is_said_and_the_search_goes_on_when_there_is_room(
    small_disk: Path,
    ask: Ask,  # noqa: F811
    tmp_path: Path,
) -> None:
    """StoreFull names the store; with a larger claim the same run has its budget of trials, each once."""
    request = ask(search=Search(max_trials=12))
    failure, code = answer_of(request, tmp_path)
    assert isinstance(failure, Failure), failure
    assert failure.reason is Reason.STORE_FULL
    assert failure.object.startswith(request.store)
    assert code != 0
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    result, code = answer_of(request, tmp_path)
    assert isinstance(result, SearchResult), result
    assert (result.trials, result.failed, code) == (12, 0, 0)
    trials = counted(open_study(request.store, request.run))
    assert sorted(number_of(trial) for trial in trials) == list(range(1, 13))
    assert not list(small_disk.rglob(".staged-*"))
    assert not list(small_disk.rglob("steps"))


def test_a_quota_stops_the_search_of_one_resource_until_there_is_room(
    ask: Ask,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """StoreFull says what lies there and what may; with a higher quota the same run has its trials, each once."""
    request = ask(search=Search(max_trials=4))
    used = sum(path.stat().st_size for path in resolve(request.store).local.rglob("*") if path.is_file())
    monkeypatch.setenv(QUOTA_VARIABLE, str(used + 60_000))
    failure, code = answer_of(request, tmp_path)
    assert isinstance(failure, Failure), failure
    assert (failure.reason, failure.object) == (Reason.STORE_FULL, request.store)
    assert f"the administrator's quota for one resource is {used + 60_000}" in failure.message
    assert code != 0
    assert 0 < sum(trial.state.is_finished() for trial in counted(open_study(request.store, request.run))) < 4
    monkeypatch.setenv(QUOTA_VARIABLE, "1Gi")
    result, code = answer_of(request, tmp_path)
    assert isinstance(result, SearchResult), result
    assert (result.trials, result.failed, code) == (4, 0, 0)
    assert sorted(number_of(trial) for trial in counted(open_study(request.store, request.run))) == [1, 2, 3, 4]


def test_a_step_that_cannot_be_kept_leaves_nothing_behind(
    make: Callable[..., object], delivered: Path, tmp_path: Path
) -> None:
    """A full disk costs the step, not the folder: no half result is there to be read."""
    with mounted_tmpfs(tmp_path / "kept", size="16k") as kept:
        with pytest.raises(OSError, match="No space left"):
            build(delivered / "mlp.onnx", [QUANTIZE], context=_context(make, tmp_path), kept=kept)
        assert list(kept.iterdir()) == []


def _context(make: Callable[..., object], folder: Path) -> Context:
    bundle = make()
    workdir = folder / "work"
    workdir.mkdir(exist_ok=True)
    signature = bundle.manifest.signature  # type: ignore[attr-defined]
    return Context(workdir=workdir, signature=signature, seed=0, cpu_flags=frozenset())


def _truncated(entry: Path) -> None:
    (entry / "model.onnx").write_bytes((entry / "model.onnx").read_bytes()[:100])


def _empty_record(entry: Path) -> None:
    (entry / "outcome.json").write_text("")


def _no_record(entry: Path) -> None:
    (entry / "outcome.json").unlink()


def _no_model(entry: Path) -> None:
    (entry / "model.onnx").unlink()


def _older_record(entry: Path) -> None:
    (entry / "outcome.json").write_text(json.dumps({"reason": "of another format"}))


def _another_model(entry: Path) -> None:
    """Put another file there, with a record that fits it, sealed by somebody else."""
    (entry / "model.onnx").write_bytes(b"planted")
    record = study_seal().opened((entry / "outcome.json").read_bytes())
    assert record is not None
    record["digests"]["model.onnx"] = digest(entry / "model.onnx")
    (entry / "outcome.json").write_bytes(Seal("somebody else's").sealed(record))


def _result_of_another_step(entry: Path) -> None:
    record = study_seal().opened((entry / "outcome.json").read_bytes())
    assert record is not None
    (entry / "outcome.json").write_bytes(study_seal().sealed(record | {"entry": "0" * 64}))


DAMAGES = (
    _truncated,
    _empty_record,
    _no_record,
    _no_model,
    _older_record,
    _another_model,
    _result_of_another_step,
)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_kept_result_that_is_not_whole_is_made_anew(
    make: Callable[..., object],
    delivered: Path,
    tmp_path: Path,
    damage: Callable[[Path], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A machine that lost power left half of it, or others put theirs there; the step gives the same bytes again."""
    context, kept = _context(make, tmp_path), tmp_path / "kept"
    first = build(delivered / "mlp.onnx", [QUANTIZE], context=context, kept=kept)
    before, entry = first.model.read_bytes(), first.model.parent
    made: list[Params] = []
    original = TECHNIQUES[TechniqueType.QUANTIZATION].apply  # type: ignore[attr-defined]

    def apply(model: Path, params: Params, context: Context) -> Applied | Skipped:
        made.append(params)
        outcome: Applied | Skipped = original(model, params, context)
        return outcome

    monkeypatch.setattr(TECHNIQUES[TechniqueType.QUANTIZATION], "apply", apply)
    build(delivered / "mlp.onnx", [QUANTIZE], context=context, kept=kept)
    assert made == []
    damage(entry)
    again = build(delivered / "mlp.onnx", [QUANTIZE], context=context, kept=kept)
    assert len(made) == 1
    assert (again.model, again.model.read_bytes()) == (first.model, before)


def test_a_step_names_what_it_left_as_it_was(make: Callable[..., object], delivered: Path, tmp_path: Path) -> None:
    """The name of an idle step is known beside its reason, whether it was just tried or kept."""
    fold = Step(name="clean", type=TechniqueType.GRAPH_OPTIMIZATION, params={"passes": "Slim"})
    heard: list[str] = []
    context, kept = _context(make, tmp_path), tmp_path / "kept"
    for _ in range(2):
        built = build(delivered / "mlp.onnx", [fold, QUANTIZE], context=context, kept=kept, entering=heard.append)
        assert (built.idle, len(built.skipped), len(built.applied)) == (("clean",), 1, 1)
    assert heard == ["GraphOptimization", "Quantization"] * 2


def test_what_trains_on_is_compared_with_its_like(
    make: Callable[..., object], delivered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kind of a step names the training before it, whose settings it goes on with."""
    monkeypatch.setattr("optimizer_jobs.techniques.steps.fit", lambda *_: Skipped(reason="no better"))
    tune = Step(name="tune", type=TechniqueType.HYPERPARAMETER_TUNING, params={"start": "Scratch"})
    heard: list[str] = []
    built = build(
        delivered / "mlp.onnx",
        [tune, QUANTIZE],
        context=_context(make, tmp_path),
        kept=tmp_path / "kept",
        entering=heard.append,
    )
    assert heard == ["HyperparameterTuning+Scratch", "HyperparameterTuning+Scratch+Quantization"]
    assert built.idle == ("tune",)


def test_kept_steps_stay_for_a_restart_when_a_search_is_killed(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Work that was done is not done again; it goes when the search ends."""
    from optimizer_jobs.commands.search.trial import Bench

    class KilledError(BaseException):
        """The process is gone."""

    original, runs = Bench.run, [0]

    def run_and_die(self: Bench, *arguments: object, **named: object) -> object:
        runs[0] += 1
        found = original(self, *arguments, **named)  # type: ignore[arg-type]
        if runs[0] == 3:
            raise KilledError
        return found

    monkeypatch.setattr(Bench, "run", run_and_die)
    request = ask(search=Search(max_trials=4))
    with pytest.raises(KilledError):
        run(request)
    kept = Path(resolve(f"{run_folder(request.store, request.run)}/steps").path)
    assert len(list(kept.iterdir())) >= 2
    study = open_study(request.store, request.run)
    assert study.get_trials(states=(TrialState.RUNNING,)) == []
    assert run(request).trials == 4
    assert [row.number for row in trials_table(open_study(request.store, request.run))] == [1, 2, 3, 4]
    assert not kept.exists()
