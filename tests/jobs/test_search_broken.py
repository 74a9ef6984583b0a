"""A technique that breaks, wherever it does, leaves the search with its reason and never ends it."""

import sys
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import BaseTrial, Trial

from optimizer_jobs.commands.search.command import run
from optimizer_jobs.errors import JobError
from optimizer_jobs.study.trials import LEFT_OUT, open_study, trials_table
from optimizer_jobs.technique import Context, Params, Subject
from optimizer_jobs.techniques.registry import TECHNIQUES
from retune.api.search import Search
from retune.api.techniques import Technique, TechniqueType
from retune.contract.results import Reason
from tests.jobs.test_search_command import Ask, ask  # noqa: F401 - the same requests

PRUNE = Technique(name="mine", type=TechniqueType.PRUNING)
GRAPH = Technique(name="graph", type=TechniqueType.GRAPH_OPTIMIZATION)


class Broken:
    """A technique that is fine but in one place."""

    TYPE = TechniqueType.PRUNING
    CHEAP = False
    TRAINS = False

    def __init__(self, place: str) -> None:
        self._place = place

    def _break(self, place: str) -> None:
        if place == self._place:
            raise AttributeError(f"'NoneType' object has no attribute 'opset_import' in {place}")

    def unavailable(self, _subject: Subject, _spec: Technique) -> str | None:
        """Return that it can be used."""
        self._break("unavailable")
        return None

    def off(self, spec: Technique, _subject: Subject) -> Params:
        """Return level 0."""
        self._break("off")
        return {f"{spec.name}.level": 0}

    def defaults(self, spec: Technique, _subject: Subject) -> tuple[Params, ...]:
        """Return levels 1 and 2."""
        self._break("defaults")
        return ({f"{spec.name}.level": 1}, {f"{spec.name}.level": 2})

    def suggest(self, trial: BaseTrial, spec: Technique, _subject: Subject) -> Params | None:
        """Ask for a level; 0 is off."""
        self._break("suggest")
        if isinstance(trial, Trial):
            self._break("a proposal")
        level = trial.suggest_int(f"{spec.name}.level", 0, 9)
        return {"level": level} if level else None

    def describe(self, params: Params) -> str:
        """Return the level in words."""
        self._break("describe")
        return f"level {params['level']}"

    def apply(self, _model: Path, _params: Params, _context: Context) -> Any:
        """Break, in one of three ways."""
        self._break("apply")
        if self._place == "exit":
            sys.exit("the library gave up")
        raise JobError(Reason.MODEL_INVALID, "layer3", "its weights cannot be read.", "Export it again.")


BEFORE = ("unavailable", "off", "defaults", "suggest", "describe")


@pytest.mark.parametrize("place", [*BEFORE, "a proposal", "apply", "exit", "a refusal"])
def test_a_technique_that_breaks_leaves_the_search_with_its_reason(
    place: str,
    ask: Ask,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All trials of the budget are run, and why it left is said and kept for the report."""
    monkeypatch.setitem(TECHNIQUES, TechniqueType.PRUNING, Broken(place))  # type: ignore[misc, arg-type, unused-ignore]
    trials = 2 if place in BEFORE else 5
    request = ask(techniques=(PRUNE, GRAPH), search=Search(max_trials=trials, seed=1))
    result = run(request)
    study = open_study(request.store, request.run)
    assert result.trials == trials
    assert len(trials_table(study)) == trials
    assert result.failed == (0 if place in {*BEFORE, "a proposal"} else 2)
    reason = study.user_attrs[LEFT_OUT]["mine"]
    words = {"exit": "SystemExit: the library gave up", "a refusal": "layer3: its weights cannot be read"}
    expected = words.get(place, f"AttributeError: 'NoneType' object has no attribute 'opset_import' in {place}")
    assert expected in reason
    assert "Traceback" not in capsys.readouterr().out
