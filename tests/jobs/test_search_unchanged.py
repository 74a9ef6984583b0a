"""A trial that runs what an earlier one ran costs no measurement and no place in the budget, and is told so."""

from pathlib import Path

import pytest

from optimizer_jobs.commands.search import budget as budget_module
from optimizer_jobs.commands.search import estimate as estimate_module
from optimizer_jobs.commands.search.command import run
from optimizer_jobs.commands.search.measuring import SideBySide
from optimizer_jobs.commands.search.sameness import what_runs
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.study.trials import counted, open_study, read_result
from optimizer_jobs.technique import Applied, Context, Params, Skipped
from optimizer_jobs.techniques.registry import TECHNIQUES
from retune.api.search import Search
from retune.api.techniques import TechniqueType
from tests.jobs.test_search_broken import PRUNE, Broken
from tests.jobs.test_search_command import Ask, ask  # noqa: F401 - the same requests


class Idle(Broken):
    """A technique that changes nothing, and says so at level 1 only."""

    def __init__(self) -> None:
        super().__init__("nowhere")

    def apply(self, model: Path, params: Params, context: Context) -> Applied | Skipped:
        """Return the same bytes."""
        if params["level"] == 1:
            return Skipped(reason="nothing was left to do")
        target = context.workdir / "same.onnx"
        target.write_bytes(model.read_bytes())
        return Applied(model=target, summary=f"level {params['level']}: 0 layers")


def test_what_changes_nothing_is_no_trial(
    ask: Ask,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Idle steps and equal bytes are told, and the whole budget goes to what differs."""
    monkeypatch.setitem(TECHNIQUES, TechniqueType.PRUNING, Idle())  # type: ignore[misc, arg-type, unused-ignore]
    request = ask(techniques=(PRUNE,), search=Search(max_trials=4))
    assert run(request).trials == 4
    results = [read_result(trial) for trial in counted(open_study(request.store, request.run))]
    assert len({result.runs for result in results}) == 4
    output = capsys.readouterr().out
    same = "all graph, 2 threads  it runs the same as trial 1"
    assert f"does not count  level 1, {same}  nothing was left to do" in output
    assert f"does not count  level 2, {same}" in output
    assert len([line for line in output.splitlines() if line.startswith("trial ")]) == 4


def test_a_first_trial_that_takes_longer_than_estimated_lengthens_the_search(
    ask: Ask,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Without a budget in the spec, the limit follows what a trial really takes here; with one, it stays."""
    estimated = 1e-3
    monkeypatch.setattr(SideBySide, "latency_seconds", staticmethod(lambda _: estimated))
    for name in ("_FIXED_SECONDS", "LEAST_SECONDS"):
        monkeypatch.setattr(estimate_module, name, estimated)
    for name, value in {"_PASSES": 0, "_MOST_PACE": 1e6, "_SLACK": 100.0}.items():
        monkeypatch.setattr(estimate_module, name, value)
    monkeypatch.setattr(budget_module, "_PATIENCE", 1e6)
    free = ask(techniques=(), search=Search(max_trials=2))
    assert run(free).trials == 2
    assert " here: the search may take " in capsys.readouterr().out
    run(free.model_copy(update={"run": "other", "search": Search(max_trials=2, max_duration="1h")}))
    assert " here: the search may take " not in capsys.readouterr().out


def test_a_search_with_fewer_workers_than_asked_for_has_the_time_that_they_need(
    ask: Ask,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A queue has admitted one of four: the limit was estimated for four, and is one worker's after the first trial."""
    monkeypatch.setattr(SideBySide, "latency_seconds", staticmethod(lambda _: 1e-3))
    for name, value in {"_FIXED_SECONDS": 40.0, "_PASSES": 0, "LEAST_SECONDS": 1e-3}.items():
        monkeypatch.setattr(estimate_module, name, value)
    request = ask(techniques=(), search=Search(max_trials=4, parallelism=4))
    assert run(request).trials == 4
    assert ", and 1 of 4 workers run: the search may take 4 min now" in capsys.readouterr().out
    alone = request.model_copy(update={"run": "other", "search": Search(max_trials=4, parallelism=1)})
    assert run(alone).trials == 4
    assert "workers run" not in capsys.readouterr().out


def test_engine_options_without_effect_run_the_same(delivered: Path, tmp_path: Path) -> None:
    """A graph level is what the engine makes of it; threads and spinning decide how fast it answers."""
    mlp = delivered / "mlp.onnx"

    def runs(**options: object) -> str:
        return what_runs(mlp, EngineOptions.model_validate(options), scratch=tmp_path)

    assert runs(graph_level="extended") == runs(graph_level="all") != runs(graph_level="basic")
    assert runs(graph_level="basic") == runs(graph_level="disabled")
    assert runs(threads=1) != runs(threads=2)
    assert list(tmp_path.iterdir()) == []
