"""Rows of embedding tables that are hardly ever looked up share one row, where the data shows that it may be."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from optimizer_jobs.commands.search.stages import Stage, stage_of
from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.machinery.compress.rows import MOST_SHARED, share_met
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.onnx_file import check_onnx
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.technique import Applied, Context, Params, Skipped, Subject
from optimizer_jobs.techniques import pruning
from optimizer_jobs.techniques.steps import Step
from retune.api.model import Task
from retune.api.techniques import Pruning, Technique, TechniqueType
from tests.unit.jobs import recommenders_for_tests as recommenders

HALF: Params = {"granularity": "Rows", "ratio": 0.5}
SELLING = 500
"""Items that are ever looked up, of 2,000."""


def context(model: Path, folder: Path, *, training: Rows | None = None, calibration: Rows | None = None) -> Context:
    """Return what a step may use."""
    folder.mkdir()
    signature = check_onnx(model)
    return Context(
        workdir=folder, signature=signature, training=training, calibration=calibration, seed=0, cpu_flags=frozenset()
    )


def pruned(tmp_path: Path, rows: Rows, *, model: Path | None = None, params: Params = HALF) -> Applied | Skipped:
    """Prune rows of the recommender, or of another model, by these rows of data."""
    model = model or recommenders.save_recommender(tmp_path / "model.onnx")
    return pruning.apply(model, params, context(model, tmp_path / "work", calibration=rows))


def test_rows_that_nothing_looks_up_are_gone_and_no_answer_changes(tmp_path: Path) -> None:
    """Requests that look up what the data looked up get exactly the same scores from a smaller file."""
    made = pruned(tmp_path, recommenders.rows(recommenders.requests(3000, items=SELLING)))
    assert isinstance(made, Applied)
    assert made.summary == "50 % of table rows shared: 1000 of 2000 kept, 1 table left whole"
    later = recommenders.requests(500, items=SELLING, seed=1)
    exact, found = (open_model(path, EngineOptions()).run(later) for path in (tmp_path / "model.onnx", made.model))
    assert np.array_equal(exact["score"], found["score"])
    assert made.model.stat().st_size < 0.65 * (tmp_path / "model.onnx").stat().st_size


def test_rows_that_are_gone_answer_as_their_mean(tmp_path: Path) -> None:
    """A request for an item that nobody looked up is answered as for an average one, also when counted from the end."""
    made = pruned(tmp_path, recommenders.rows(recommenders.requests(3000, items=SELLING)))
    assert isinstance(made, Applied)
    graph = onnx.load(made.model).graph
    rows, places = (
        numpy_helper.to_array(one) for one in graph.initializer if one.name in {"items_rows", "items_places"}
    )
    rows, places = (rows, places) if rows.ndim == 2 else (places, rows)
    items = numpy_helper.to_array(
        next(one for one in recommenders.recommender().graph.initializer if one.name == "items")
    )
    assert np.allclose(rows[0], items[places == 0].mean(axis=0), atol=1e-5)
    unseen = recommenders.requests(20, items=SELLING)
    unseen["item"][:] = recommenders.ITEMS - 1
    from_the_end = unseen | {"item": np.full(20, -1)}
    session = open_model(made.model, EngineOptions())
    assert np.array_equal(session.run(unseen)["score"], session.run(from_the_end)["score"])


def test_few_rows_prove_nothing(tmp_path: Path) -> None:
    """After 50 requests most lookups would be of rows that have not been seen yet, so the table is left whole."""
    made = pruned(tmp_path, recommenders.rows(recommenders.requests(50)))
    assert isinstance(made, Skipped)
    assert "% of the lookups to come would end at the shared row" in made.reason


def test_lookups_of_one_group_count_once(tmp_path: Path) -> None:
    """A thousand rows about ten users, each group with items of its own, say little about other users' items."""
    random = np.random.default_rng(0)
    group = np.repeat(np.arange(10), 100)
    inputs = {
        "user": group,
        "item": group * 5 + random.integers(0, 5, 1000),
        "recent": group[:, None] * 5 + random.integers(0, 5, (1000, recommenders.RECENT)),
    }
    assert isinstance(pruned(tmp_path, recommenders.rows(inputs)), Applied)
    again = tmp_path / "again"
    again.mkdir()
    assert isinstance(pruned(again, recommenders.rows(inputs, groups=group)), Skipped)


def test_the_same_rows_twice_are_no_more_evidence(tmp_path: Path) -> None:
    """Training rows stand in for calibration rows; counted twice, none would have been seen once only."""
    rows = recommenders.rows(recommenders.requests(50))
    model = recommenders.save_recommender(tmp_path / "model.onnx")
    twice = context(model, tmp_path / "work", training=rows, calibration=rows)
    assert isinstance(pruning.apply(model, HALF, twice), Skipped)


def test_numbers_that_the_graph_computes_are_counted_too(tmp_path: Path) -> None:
    """Ids may pass through other nodes first, such as an offset into one table of all features."""
    model = recommenders.recommender()
    model.graph.initializer.append(numpy_helper.from_array(np.array(1000), "offset"))
    model.graph.node.insert(0, helper.make_node("Add", ["item", "offset"], ["moved"], name="move"))
    next(node for node in model.graph.node if node.name == "item_rows").input[1] = "moved"
    onnx.save(model, tmp_path / "offset.onnx")
    rows = recommenders.rows(recommenders.requests(3000, items=300))
    made = pruned(tmp_path, rows, model=tmp_path / "offset.onnx")
    assert isinstance(made, Applied)
    later = recommenders.requests(200, items=300, seed=2)
    exact, found = (open_model(path, EngineOptions()).run(later) for path in (tmp_path / "offset.onnx", made.model))
    assert np.array_equal(exact["score"], found["score"])


def test_places_in_a_sequence_are_never_counted(tmp_path: Path) -> None:
    """Numbers that belong to no row of data, such as places in a text, say nothing of longer texts."""
    model = recommenders.recommender()
    model.graph.initializer.append(numpy_helper.from_array(np.arange(recommenders.RECENT)[None], "places"))
    model.graph.node.insert(0, helper.make_node("Identity", ["places"], ["place"], name="place"))
    next(node for node in model.graph.node if node.name == "recent_rows").input[1] = "place"
    onnx.save(model, tmp_path / "places.onnx")
    rows = recommenders.rows(recommenders.requests(3000, items=SELLING))
    made = pruned(tmp_path, rows, model=tmp_path / "places.onnx")
    assert isinstance(made, Skipped)


@pytest.mark.parametrize("unseen", [0.005, 0.2])
def test_the_estimate_is_close_to_what_comes_then(unseen: float) -> None:
    """Of draws from a long tail, the share that later falls on shared rows is as estimated."""
    random = np.random.default_rng(0)
    chances = 1 / np.arange(1, 20_001)
    chances /= chances.sum()
    count = 400_000 if unseen < 0.1 else 4_000
    counts = np.bincount(random.choice(20_000, count, p=chances), minlength=20_000)
    shared = counts == 0
    assert share_met(counts, shared) == pytest.approx(chances[shared].sum(), rel=0.25)
    assert (share_met(counts, shared) < MOST_SHARED) == (unseen < 0.1)


@pytest.mark.parametrize(
    ("kind", "params"), [(TechniqueType.PRUNING, HALF), (TechniqueType.FACTORIZATION, {"tables": 0.5})]
)
def test_tables_are_tried_before_anything_trains(kind: TechniqueType, params: Params) -> None:
    """What rewrites tables costs seconds, so a search asks it among the cheap questions."""
    assert stage_of([Step(name="tables", type=kind, params=params)]) is Stage.POST_TRAINING
    assert stage_of([Step(name="units", type=kind, params={"granularity": "Structured"})]) is Stage.TRAINING


def test_rows_are_asked_for_by_name_and_need_data(tmp_path: Path) -> None:
    """Structured pruning is all that a spec gets unasked; rows want a table and rows to count on."""
    model = recommenders.save_recommender(tmp_path / "model.onnx")
    subject = Subject(graph=onnx.load(model), signature=check_onnx(model), task=Task.REGRESSION, calibration=True)
    spec = Technique(name="rows", type=TechniqueType.PRUNING, pruning=Pruning(granularity=("Rows",)))
    assert Pruning().granularity == ("Structured",)
    assert pruning.unavailable(subject, spec) is None
    assert [params["rows.granularity"] for params in pruning.defaults(spec, subject)] == ["Rows", "Rows"]
    blind = Subject(graph=subject.graph, signature=subject.signature, task=subject.task)
    assert "there are no rows to see" in str(pruning.unavailable(blind, spec))
