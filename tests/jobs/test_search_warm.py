"""What earlier runs found best is tried first, measured anew, and only where it still makes sense."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import FixedTrial, TrialState, create_trial

from optimizer_jobs.commands.search.space import Space
from optimizer_jobs.commands.search.warm_start import IN_ALL, warm_start
from optimizer_jobs.study.storage import journal_path
from optimizer_jobs.study.trials import NUMBER, PLAN, RESULT, TrialResult, open_study, record
from optimizer_jobs.technique import Params
from retune.api.metrics import Metric
from retune.api.model import Data, Task
from retune.api.objectives import Objective, Role, Selection, default_objectives
from retune.api.search import Search
from retune.api.techniques import Quantization, QuantizationScheme, Technique, TechniqueType
from retune.contract.requests import BundleRef, SearchRequest
from tests.unit.jobs.models_for_tests import subject

OBJECTIVES = tuple(goal for goal in default_objectives(Task.CLASSIFICATION) if goal.metric is not Metric.D2_BRIER)
GRAPH = Technique(name="graph", type=TechniqueType.GRAPH_OPTIMIZATION)
QUANTIZE = Technique(name="quantize", type=TechniqueType.QUANTIZATION)
SPACE = Space((GRAPH, QUANTIZE), subject(), threads=4)
SIZE, LATENCY = Metric.SIZE_BYTES.value, Metric.LATENCY_P95_MS.value
DYNAMIC: Params = {"quantize.variant": "Dynamic"}
STATIC: Params = {"quantize.variant": "Static MinMax"}
FOLD: Params = {"graph.passes": "SlimAndFold"}
DATA = Data.model_validate({"validation": {"uri": "pvc://s/v.npz"}})
CHAMPION = BundleRef(uri="pvc://s/1", digest="sha256:" + "0" * 64)


def told(*parts: Mapping[str, Any], space: Space = SPACE) -> Params:
    """Return the control's trial parameters with these in their place."""
    merged = space.control()
    for part in parts:
        merged = merged | dict(part)
    return merged


def found(digit: int, *, latency: float, size: float = 0.5, loses: float = 0.0) -> TrialResult:
    """Return a measured candidate beside a champion of accuracy 0.95, 1 ms, 1000 bytes."""
    return TrialResult(
        plan="",
        uri=f"pvc://s/{digit}",
        digest="sha256:" + f"{digit:x}" * 64,
        costs=(latency, size),
        values={"accuracy": 0.95 - loses, LATENCY: latency, SIZE: 1000 * size},
        champion={"accuracy": 0.95, LATENCY: 1.0, SIZE: 1000.0},
        shortfalls={"accuracy": loses - 0.01},
    )


def earlier(store: str, run: str, *trials: tuple[Params, TrialResult], space: Space = SPACE) -> None:
    """Leave the study of an earlier run with these trials."""
    study = open_study(store, run, create=OBJECTIVES)
    asked = study.ask()
    space.draw(asked)
    study.tell(asked, state=TrialState.FAIL)
    for number, (params, what) in enumerate(trials, start=1):
        plan = space.draw(FixedTrial(params))
        study.add_trial(
            create_trial(
                values=list(what.costs),
                params=params,
                distributions=asked.distributions,
                user_attrs={RESULT: record(what), NUMBER: number, PLAN: plan.key},
            )
        )


def request(store: str, *runs: str, **fields: Any) -> SearchRequest:
    """Return a request that starts from these runs."""
    asked = SearchRequest(
        resource="ml/digits",
        run="r9",
        spec_hash="h",
        data=DATA,
        objectives=OBJECTIVES,
        selection=Selection(),
        search=Search(),
        champion=CHAMPION,
        original=CHAMPION,
        warm_start=runs,
        store=store,
        threads=4,
    )
    return asked.model_copy(update=fields)


def test_the_best_of_the_newest_run_comes_first(store: str) -> None:
    """Finalists in their order, newest run first, each combination once."""
    earlier(store, "r1", (told(FOLD), found(1, latency=0.2)), (told(DYNAMIC), found(2, latency=0.3)))
    earlier(store, "r2", (told(STATIC), found(3, latency=0.5)), (told(DYNAMIC), found(4, latency=0.4)))
    assert warm_start(request(store, "r2", "r1"), SPACE) == (told(DYNAMIC), told(STATIC), told(FOLD))


def test_only_so_many_are_taken(store: str) -> None:
    """Three of a run, five in all, and never more than a quarter of the budget."""
    for run in ("r1", "r2", "r3"):
        variants = [
            {"engine.threads": threads, "engine.graph_level": run_level}
            for threads in (1, 2, 4)
            for run_level in ("all", "basic")
        ]
        part = DYNAMIC if run == "r1" else STATIC if run == "r2" else FOLD
        earlier(
            store,
            run,
            *((told(part, one), found(9, latency=0.5)) for one in variants[:1]),
            *((told(part, one), found(number, latency=0.5 + number / 100)) for number, one in enumerate(variants[1:])),
        )
    assert len(warm_start(request(store, "r1"), SPACE)) == 3
    assert len(warm_start(request(store, "r1", "r2", "r3"), SPACE)) == IN_ALL
    assert len(warm_start(request(store, "r1", "r2", search=Search(max_trials=8)), SPACE)) == 2


def test_what_missed_a_limit_or_was_rejected_is_left_out(store: str) -> None:
    """A combination that fails, or whose bundle was refused, is no good start."""
    earlier(
        store,
        "r1",
        (told(FOLD), found(1, latency=0.2, loses=0.3)),
        (told(DYNAMIC), found(2, latency=0.3)),
        (told(STATIC), found(3, latency=0.4)),
    )
    rejected = found(2, latency=0.3).digest
    assert warm_start(request(store, "r1", rejected=(rejected,)), SPACE) == (told(STATIC),)


def test_a_technique_that_is_gone_takes_its_combinations_along(store: str) -> None:
    """What used it is left out; what did not is tried without its parameters."""
    earlier(store, "r1", (told(DYNAMIC), found(1, latency=0.2)), (told(FOLD), found(2, latency=0.3)))
    smaller = Space((GRAPH,), subject(), threads=4)
    assert warm_start(request(store, "r1"), smaller) == (told(FOLD, space=smaller),)


def test_a_technique_that_is_new_is_off_in_an_old_combination(store: str) -> None:
    """The combination of before is tried as it was."""
    smaller = Space((GRAPH,), subject(), threads=4)
    earlier(store, "r1", (told(FOLD, space=smaller), found(1, latency=0.2)), space=smaller)
    assert warm_start(request(store, "r1"), SPACE) == (told(FOLD),)


def test_values_that_the_spec_no_longer_allows_are_left_out(store: str) -> None:
    """Fewer threads, or fewer schemes, make some combinations impossible."""
    earlier(store, "r1", (told(DYNAMIC), found(1, latency=0.2)))
    settings = Quantization(schemes=(QuantizationScheme.STATIC,))
    static_only = Space((GRAPH, QUANTIZE.model_copy(update={"quantization": settings})), subject(), threads=4)
    assert warm_start(request(store, "r1"), static_only) == ()
    assert warm_start(request(store, "r1"), Space((GRAPH, QUANTIZE), subject(), threads=2)) == ()


def test_the_objectives_of_today_decide_what_was_best(store: str) -> None:
    """The same numbers rank otherwise when size comes first."""
    earlier(
        store, "r1", (told(FOLD), found(1, latency=0.2, size=0.9)), (told(DYNAMIC), found(2, latency=0.9, size=0.2))
    )
    by_size = (Objective(metric=Metric.SIZE_BYTES, role=Role.OPTIMIZE),)
    assert warm_start(request(store, "r1"), SPACE)[0] == told(FOLD)
    assert warm_start(request(store, "r1", objectives=by_size), SPACE)[0] == told(DYNAMIC)
    unmeasured = (Objective(metric=Metric.PEAK_MEMORY_BYTES, role=Role.OPTIMIZE),)
    assert warm_start(request(store, "r1", objectives=unmeasured), SPACE) == ()


def _garbage(journal: Path) -> None:
    journal.write_text("this is no journal\n")


def _empty(journal: Path) -> None:
    journal.write_text("")


@pytest.mark.parametrize("damage", [_garbage, _empty, Path.unlink])
def test_a_study_that_cannot_be_read_costs_nothing(store: str, damage: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The run is named and left out; the others are used."""
    earlier(store, "r1", (told(FOLD), found(1, latency=0.2)))
    earlier(store, "r2", (told(DYNAMIC), found(1, latency=0.2)))
    damage(journal_path(store, "r2"))
    assert warm_start(request(store, "r2", "r1"), SPACE) == (told(FOLD),)
    assert "warm start: run r2 is left out: " in capsys.readouterr().out


def test_a_spec_can_refuse_a_warm_start(store: str) -> None:
    """search.warmStart: false starts from nothing."""
    earlier(store, "r1", (told(FOLD), found(1, latency=0.2)))
    assert warm_start(request(store, "r1", search=Search(warm_start=False)), SPACE) == ()
