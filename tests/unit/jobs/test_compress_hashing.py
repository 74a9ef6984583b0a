"""Rows of embedding tables share parts by their number, where nothing else reads the numbers, and train on."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from optuna.trial import FixedTrial

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.machinery.compress.hashing import HASHED, foldable
from optimizer_jobs.models.engine import EngineError, EngineOptions
from optimizer_jobs.models.onnx_file import check_onnx
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.technique import Applied, Context, Params, Skipped, Subject
from optimizer_jobs.techniques import factorization
from retune.api.model import Task
from retune.api.techniques import Factorization, Technique, TechniqueType
from tests.unit.jobs import recommenders_for_tests as recommenders

QUARTER: Params = {HASHED: 0.25}
SPEC = Technique(name="hash", type=TechniqueType.FACTORIZATION, factorization=Factorization(forms=("Hashed",)))


def _context(model: Path, folder: Path, *, task: Task = Task.REGRESSION, training: Rows | None = None) -> Context:
    folder.mkdir()
    return Context(
        workdir=folder,
        signature=check_onnx(model),
        task=task,
        training=training,
        validation=training,
        seed=0,
        cpu_flags=frozenset(),
    )


def _sums(entries: int, slots: int) -> NDArray[np.float32]:
    """Return a table each of whose rows is the sum of a row for its remainder and one for its quotient."""
    random, numbers = np.random.default_rng(entries), np.arange(entries)
    parts = [random.normal(size=(count, recommenders.WIDTH)) for count in (slots, entries // slots + 1)]
    return (parts[0][numbers % slots] + parts[1][numbers // slots]).astype(np.float32)


def _recommender(path: Path, *, items: NDArray[np.float32] | None = None, kind: int = TensorProto.INT64) -> Path:
    """Write a recommender with tables of sums, or with this table of items, whose numbers have this type."""
    users = _sums(recommenders.USERS, recommenders.USERS // 4)
    model = recommenders.recommender(users=users)
    (table,) = (tensor for tensor in model.graph.initializer if tensor.name == "items")
    items = _sums(recommenders.ITEMS, recommenders.ITEMS // 4) if items is None else items
    table.CopyFrom(numpy_helper.from_array(items, "items"))
    for value in model.graph.input:
        value.type.tensor_type.elem_type = kind
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("kind", [TensorProto.INT64, TensorProto.INT32])
def test_a_table_of_sums_keeps_its_answers(kind: int, tmp_path: Path) -> None:
    """Numbers from the start and from the end are answered as before, numbers beyond the table refused as before."""
    model = _recommender(tmp_path / "model.onnx", kind=kind)
    made = factorization.apply(model, QUARTER, _context(model, tmp_path / "work"))
    assert isinstance(made, Applied)
    assert made.summary == "tables hashed to 25 % of their rows: 2 folded, not trained on"
    assert made.model.stat().st_size < 0.3 * model.stat().st_size
    assert check_onnx(made.model) == check_onnx(model)
    asked = recommenders.requests(300)
    asked["item"][::2] -= recommenders.ITEMS
    asked = {name: values.astype(helper.tensor_dtype_to_np_dtype(kind)) for name, values in asked.items()}
    exact, close = (open_model(path, EngineOptions()).run(asked)["score"] for path in (model, made.model))
    assert np.allclose(close, exact, rtol=1e-3, atol=1e-3)
    with pytest.raises(EngineError):
        open_model(made.model, EngineOptions()).run(asked | {"item": asked["item"] + 2 * recommenders.ITEMS})


def test_rows_that_are_looked_up_decide_what_a_shared_part_is(tmp_path: Path) -> None:
    """Items that sell keep about their row; those that share with them and never sell answer as they do."""
    random = np.random.default_rng(0)
    items = random.normal(size=(recommenders.ITEMS, recommenders.WIDTH)).astype(np.float32)
    model = _recommender(tmp_path / "model.onnx", items=items)
    rows = recommenders.rows(recommenders.requests(20_000, items=recommenders.ITEMS // 4))
    distances = {}
    for name, calibration in (("counted", rows), ("blind", None)):
        context = dataclasses.replace(_context(model, tmp_path / name), calibration=calibration)
        made = factorization.apply(model, QUARTER, context)
        assert isinstance(made, Applied)
        selling = recommenders.requests(300, items=recommenders.ITEMS // 4, seed=1)
        exact, close = (open_model(path, EngineOptions()).run(selling)["score"] for path in (model, made.model))
        distances[name] = float(np.square(exact - close).mean())
    assert distances["counted"] < 0.05 * distances["blind"]


def test_numbers_that_are_read_elsewhere_too_are_left_alone(tmp_path: Path) -> None:
    """Only tables whose inputs are nothing but their numbers are folded; of the others, all rows stay apart."""
    model = recommenders.recommender()
    assert foldable(model) == {"users", "items"}
    model.graph.node.append(helper.make_node("Cast", ["item"], ["also"], to=TensorProto.FLOAT))
    model.graph.output.append(helper.make_tensor_value_info("also", TensorProto.FLOAT, ["N"]))
    assert foldable(model) == {"users"}
    onnx.save(model, tmp_path / "model.onnx")
    made = factorization.apply(tmp_path / "model.onnx", QUARTER, _context(tmp_path / "model.onnx", tmp_path / "work"))
    assert isinstance(made, Applied)
    assert "1 folded, 1 left whole" in made.summary
    computed = recommenders.recommender()
    computed.graph.node.insert(0, helper.make_node("Abs", ["user"], ["moved"]))
    next(node for node in computed.graph.node if node.name == "user_rows").input[1] = "moved"
    assert foldable(computed) == {"items"}


def test_a_share_that_saves_nothing_is_skipped(tmp_path: Path) -> None:
    """Rows and quotients together would be as many as before."""
    model = _recommender(tmp_path / "model.onnx")
    outcome = factorization.apply(model, {HASHED: 0.9999}, _context(model, tmp_path / "work"))
    assert outcome == Skipped(reason="no embedding table has rows that its numbers could be folded to")


def test_hashing_is_asked_for_by_name(tmp_path: Path) -> None:
    """A spec gets it unasked never; named, it is tried with the fewest rows first, and wants a table of numbers."""
    model = recommenders.save_recommender(tmp_path / "model.onnx")
    subject = Subject(graph=onnx.load(model), signature=check_onnx(model), task=Task.REGRESSION)
    assert "Hashed" not in Factorization().forms
    assert factorization.unavailable(subject, SPEC) is None
    (told,) = factorization.defaults(SPEC, subject)
    params = factorization.suggest(FixedTrial(told), SPEC, subject) or {}
    assert factorization.describe(params) == "tables hashed to 25 % of their rows"
    assert factorization.suggest(FixedTrial(factorization.off(SPEC, subject)), SPEC, subject) is None
    for node in subject.graph.graph.node:
        if node.op_type == "Gather":
            node.op_type = "GatherElements"
    assert factorization.unavailable(subject, SPEC) == "the model has no embedding table to split or to fold"


@pytest.mark.torch
def test_a_folded_network_trains_on(tmp_path: Path) -> None:
    """Training brings back a good part of what folding costs; where it does not, the folded file stays as it is."""
    pytest.importorskip("torch")
    model = recommenders.save_recommender(tmp_path / "model.onnx")
    asked = recommenders.requests(2000, items=300)
    labels = open_model(model, EngineOptions()).run(asked)["score"].ravel().astype(np.float64)
    rows = dataclasses.replace(recommenders.rows(asked), labels=labels)
    blind = factorization.apply(
        model, QUARTER, dataclasses.replace(_context(model, tmp_path / "blind"), calibration=rows)
    )
    taught = factorization.apply(model, QUARTER, _context(model, tmp_path / "taught", training=rows))
    assert isinstance(blind, Applied)
    assert isinstance(taught, Applied)
    assert taught.summary.endswith("epochs")
    assert check_onnx(taught.model) == check_onnx(model)
    assert taught.model.stat().st_size < 0.35 * model.stat().st_size
    worse = dataclasses.replace(
        _context(model, tmp_path / "worse", training=rows), shortfall=lambda path: float(path.name == "trained.onnx")
    )
    kept = factorization.apply(model, QUARTER, worse)
    assert isinstance(kept, Applied)
    assert kept.summary.endswith("not trained on, because that brought no quality back")
    assert kept.model.read_bytes() == blind.model.read_bytes()
    missed = [
        float(np.square(open_model(made.model, EngineOptions()).run(asked)["score"].ravel() - labels).mean())
        for made in (blind, taught)
    ]
    assert missed[1] < 0.8 * missed[0]
