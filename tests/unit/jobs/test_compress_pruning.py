"""Pruning and factorization make networks smaller where they say so, keep what they answer, and say why not else."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from optuna.trial import FixedTrial

torch = pytest.importorskip("torch")
pytest.importorskip("torch_pruning")

from optimizer_jobs.data.datasets import Rows  # noqa: E402
from optimizer_jobs.machinery.compress.pruning import GRADIENTS, WEIGHTS  # noqa: E402
from optimizer_jobs.models.engine import EngineOptions  # noqa: E402
from optimizer_jobs.models.onnx_file import check_onnx  # noqa: E402
from optimizer_jobs.models.runtime import open_model  # noqa: E402
from optimizer_jobs.nets.conversion.exporter import export  # noqa: E402
from optimizer_jobs.nets.conversion.importer import import_module  # noqa: E402
from optimizer_jobs.nets.learning.loop import train  # noqa: E402
from optimizer_jobs.nets.learning.settings import Settings  # noqa: E402
from optimizer_jobs.nets.surgery.groups import EndlessError, groups  # noqa: E402
from optimizer_jobs.signature import Signature, TensorSpec  # noqa: E402
from optimizer_jobs.technique import Applied, Context, Params, Skipped  # noqa: E402
from optimizer_jobs.techniques import factorization, pruning  # noqa: E402
from retune.api.model import Task  # noqa: E402
from retune.api.techniques import Factorization, Pruning, Technique, TechniqueType  # noqa: E402
from tests.unit.jobs import graphs_for_tests as graphs  # noqa: E402
from tests.unit.jobs import models_for_tests as models  # noqa: E402

pytestmark = pytest.mark.torch

PRUNING = Technique(name="prune", type=TechniqueType.PRUNING)
FACTORIZATION = Technique(name="thin", type=TechniqueType.FACTORIZATION)
HALF: Params = {"granularity": "Structured", "ratio": 0.5, "iterations": 2}


def _rows(split: str, name: str = "pixels") -> Rows:
    pixels, labels = models.digits(split)
    values = (16 * pixels).astype(np.int64) if name == "encoder" else pixels
    return Rows(inputs={"x": values}, labels=labels, digest="")


def _signature(name: str) -> Signature:
    taken = (
        TensorSpec(name="x", dtype="int64", shape=(-1, -1))
        if name == "encoder"
        else TensorSpec(name="x", dtype="float32", shape=(-1, 64))
    )
    return Signature(inputs=(taken,), outputs=(TensorSpec(name="scores", dtype="float32", shape=(-1, 10)),))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """ONNX files of networks that have learned digits, by name."""
    folder, files = tmp_path_factory.mktemp("trained"), {}
    for name, epochs in {"convolutions": 10, "residual": 1, "encoder": 1}.items():
        module, rows = graphs.network(name), _rows("training", name)
        settings = Settings(epochs=epochs, learning_rate=3e-3)
        train(module, rows, _rows("validation", name), task=Task.CLASSIFICATION, settings=settings, seed=0, threads=1)
        files[name] = folder / f"{name}.onnx"
        export(module, signature=_signature(name), examples={"x": rows.inputs["x"][:4]}, target=files[name])
    return files


def _context(folder: Path, name: str = "pixels", **changes: Any) -> Context:
    folder.mkdir(exist_ok=True, parents=True)
    context = Context(
        workdir=folder,
        signature=_signature(name),
        training=_rows("training", name),
        validation=_rows("validation", name),
        seed=0,
        cpu_flags=frozenset(),
    )
    return dataclasses.replace(context, **changes)


def _accuracy(model: Path, name: str = "pixels") -> float:
    rows = _rows("test", name)
    scores = open_model(model, EngineOptions()).run(dict(rows.inputs))["scores"]
    return float((scores.argmax(1) == rows.labels).mean())


def _applied(outcome: Applied | Skipped) -> Applied:
    assert isinstance(outcome, Applied), outcome
    return outcome


def _weights(model: Path) -> list[np.ndarray[Any, Any]]:
    """Return the matrices and filters of a file."""
    tensors = [numpy_helper.to_array(tensor) for tensor in onnx.load(model).graph.initializer]
    return [values for values in tensors if values.ndim > 1 and values.dtype == np.float32]


def test_structured_pruning_takes_channels_and_neurons_out(trained: Mapping[str, Path], tmp_path: Path) -> None:
    """Half of everything inside is gone from the file's tensors, what depends on it too, and digits are still read."""
    made = _applied(pruning.apply(trained["convolutions"], HALF, _context(tmp_path)))
    shapes = sorted(values.shape for values in _weights(made.model))
    assert shapes == sorted([(16, 1, 3, 3), (16, 1, 3, 3), (24, 16, 1, 1), (32, 24 * 16), (10, 32)])
    assert "pruned by 50 %, channels and neurons of 3 layers" in made.summary
    assert _accuracy(made.model) >= _accuracy(trained["convolutions"]) - 0.03
    assert check_onnx(made.model) == check_onnx(trained["convolutions"])


def test_units_are_ranked_by_gradients_where_asked(trained: Mapping[str, Path], tmp_path: Path) -> None:
    """The loss on training rows picks other units than the size of weights does."""
    params = HALF | {"iterations": 1}
    few = _rows("training").take(slice(0, 200))
    made = [
        _applied(pruning.apply(trained["residual"], params | {"importance": by}, _context(tmp_path / by, training=few)))
        for by in (WEIGHTS, GRADIENTS)
    ]
    assert made[0].summary == made[1].summary
    assert made[0].model.read_bytes() != made[1].model.read_bytes()


def test_units_that_meet_in_a_sum_go_together(trained: Mapping[str, Path]) -> None:
    """Two branches that are added lose the same channels; those that are concatenated are followed through."""
    module = import_module(trained["residual"])
    found = groups(module, (graphs.pixels(4),))
    assert [(group.kind, group.units) for group in found] == [("channels", 16), ("channels", 32), ("neurons", 8)]
    found[0].shrink(5)
    sizes = [layer.out_channels for layer in module.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert sizes == [5, 5, 32, 24]


def test_units_that_meet_in_dot_products_stay_and_those_before_and_after_go(tmp_path: Path) -> None:
    """What depends on what would be looked for without end there, with ever more memory; it is given up soon."""
    module = import_module(graphs.save("products", tmp_path / "products.onnx", dynamo=True))
    free = groups(module, (graphs.pixels(4),))
    assert [(group.kind, group.units) for group in free] == [("neurons", 48), ("neurons", 32)]
    for group in free:
        group.shrink(group.units // 2)
    assert module(graphs.pixels(4)).shape == (4, 10)


def test_a_network_whose_units_are_lost_sight_of_is_skipped_in_words(
    trained: Mapping[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where what goes with them cannot be found in bounded time, the technique says so and breaks nothing."""

    def endless(*_: object) -> None:
        raise EndlessError("units of a layer meet those of other layers again and again")

    monkeypatch.setattr("optimizer_jobs.nets.surgery.groups._Units.shrink", endless)
    outcome = pruning.apply(trained["convolutions"], HALF, _context(tmp_path))
    assert isinstance(outcome, Skipped)
    assert "again and again" in outcome.reason


def test_transformer_loses_heads_and_inner_neurons(trained: Mapping[str, Path], tmp_path: Path) -> None:
    """Two of four heads go, half of each inner layer and of the width; rows and tokens stay free."""
    context = _context(tmp_path, "encoder", training=_rows("training", "encoder").take(slice(0, 200)))
    made = _applied(pruning.apply(trained["encoder"], HALF | {"iterations": 1}, context))
    assert "neurons and heads of 5 layers" in made.summary
    assert sum(sorted(values.shape) == [16, 16] for values in _weights(made.model)) == 2 * 4
    assert check_onnx(made.model) == check_onnx(trained["encoder"])
    session = open_model(made.model, EngineOptions())
    assert session.run({"x": _rows("test", "encoder").inputs["x"][:3, :20]})["scores"].shape == (3, 10)


def test_removed_head_is_one_that_is_not_joined(trained: Mapping[str, Path]) -> None:
    """A head whose way out is silent can go without any answer changing: heads are whole blocks."""
    module, tokens = import_module(trained["encoder"]), graphs.inputs("encoder")
    heads = [group for group in groups(module, (tokens,)) if group.kind == "heads"]
    joined = [layer for layer in module.modules() if isinstance(layer, torch.nn.Linear)][3]
    with torch.no_grad():
        joined.weight[:, 8:16] = 0
        before = module(tokens)
        heads[0].shrink(3)
        np.testing.assert_allclose(module(tokens).numpy(), before.numpy(), atol=1e-5)
    assert heads[0].units == 3


def test_unstructured_pruning_says_that_only_compression_gains(trained: Mapping[str, Path], tmp_path: Path) -> None:
    """The share of zeros is as asked, none of the layers is empty, the file is as large as before, and it says so."""
    params = HALF | {"granularity": "Unstructured", "ratio": 0.75}
    made = _applied(pruning.apply(trained["convolutions"], params, _context(tmp_path)))
    weights = _weights(made.model)
    zeros = sum(int((values == 0).sum()) for values in weights) / sum(values.size for values in weights)
    assert zeros == pytest.approx(0.75, abs=0.01)
    assert all(values.any() for values in weights)
    assert "the same size" in made.summary
    assert "compressed" in made.summary
    assert abs(made.model.stat().st_size - trained["convolutions"].stat().st_size) < 2000
    assert _accuracy(made.model) >= _accuracy(trained["convolutions"]) - 0.03


def test_search_asks_for_the_share_up_to_the_largest_ratio() -> None:
    """Half of the largest ratio and all of it are told first, for each granularity of the spec."""
    both = Pruning(granularity=("Structured", "Unstructured"), max_ratio="0.6")
    told = pruning.defaults(PRUNING.model_copy(update={"pruning": both}), models.subject())
    assert [(each["prune.granularity"], each["prune.share"]) for each in told] == [
        ("Structured", 0.5),
        ("Structured", 1.0),
        ("Unstructured", 0.5),
        ("Unstructured", 1.0),
    ]


@pytest.mark.parametrize(("technique", "spec"), [(pruning, PRUNING), (factorization, FACTORIZATION)])
def test_network_that_cannot_be_imported_is_refused_by_its_operator(
    technique: Any, spec: Technique, tmp_path: Path
) -> None:
    """A recurrent network is refused before a search begins, naming the operator."""
    graph = onnx.load(graphs.save("recurrent", tmp_path / "model.onnx", dynamo=False))
    reason = technique.unavailable(dataclasses.replace(models.subject(), graph=graph), spec)
    assert reason == "the model has operator GRU, which cannot be trained again"


def test_without_rows_nothing_is_pruned(trained: Mapping[str, Path], tmp_path: Path) -> None:
    """What is pruned must be trained on, so rows are asked for."""
    reason = pruning.unavailable(models.subject(calibration=False), PRUNING)
    assert reason is not None
    assert "set data.training" in reason
    done = pruning.apply(trained["residual"], HALF, _context(tmp_path, training=None))
    assert done == Skipped(reason="there are no rows to train on after something is removed")


def test_factorization_makes_layers_thin(trained: Mapping[str, Path], tmp_path: Path) -> None:
    """A large layer becomes two that are smaller together; small ones stay, and digits are still read."""
    model = trained["convolutions"]
    made = _applied(factorization.apply(model, {"rank": 0.25}, _context(tmp_path)))
    sizes = [values.size for values in _weights(made.model)]
    assert 768 * 64 not in sizes
    assert {768 * 16, 16 * 64} <= set(sizes)
    assert made.model.stat().st_size < model.stat().st_size / 2
    assert _accuracy(made.model) >= _accuracy(model) - 0.03


def test_factorization_of_a_layer_without_more_rank_changes_no_answer(tmp_path: Path) -> None:
    """A layer whose rank is small already is split exactly, without rows to train on."""
    network = models.fit_mlp(hidden=128)
    left, values, right = np.linalg.svd(network.coefs_[0], full_matrices=False)
    network.coefs_[0] = (left[:, :16] * values[:16]) @ right[:16]
    model = models.save_mlp(tmp_path / "model.onnx", network)
    context = _context(tmp_path / "work", training=None, calibration=_rows("training"))
    made = _applied(factorization.apply(model, {"rank": 0.25}, context))
    rows = dict(_rows("test").inputs)
    before, after = (open_model(path, EngineOptions()).run(rows)["scores"] for path in (model, made.model))
    np.testing.assert_allclose(after, before, atol=1e-4)
    assert "1 of 2 layers split, not trained on" in made.summary
    assert made.model.stat().st_size < model.stat().st_size


def test_factorization_that_saves_nothing_is_skipped(tmp_path: Path) -> None:
    """Where two layers would not be smaller than one, the network stays as it is."""
    model = models.save_mlp(tmp_path / "model.onnx", models.fit_mlp(hidden=16))
    done = factorization.apply(model, {"rank": 0.75}, _context(tmp_path / "work"))
    assert done == Skipped(reason="none of 2 layers is smaller as a product of rank 0.75")


@pytest.fixture(scope="module")
def convnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of three dense convolutions with batch norms that has learned digits, as an ONNX file."""
    from optimizer_jobs.nets.catalogue import pixels_convnet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module, rows = pixels_convnet(side=8, outputs=10, width=32, depth=3), _rows("training")
    settings, target = Settings(epochs=4, learning_rate=3e-3), tmp_path_factory.mktemp("convnet") / "model.onnx"
    train(module, rows, _rows("validation"), task=Task.CLASSIFICATION, settings=settings, seed=0, threads=1)
    export(module, signature=_signature("pixels"), examples={"x": rows.inputs["x"][:4]}, target=target)
    return target


def _filters(model: Path) -> list[tuple[tuple[int, ...], int]]:
    """Return shape of weights and number of groups of each convolution, in order."""
    graph = onnx.load(model).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    nodes = [node for node in graph.node if node.op_type == "Conv"]
    return [(shapes[node.input[1]], next(each.i for each in node.attribute if each.name == "group")) for node in nodes]


def test_dense_convolutions_become_separable(convnet: Path, tmp_path: Path) -> None:
    """All but the first are a depthwise and a pointwise one; the file is a fifth, and digits are still read."""
    made = _applied(factorization.apply(convnet, {"separable": 1.0}, _context(tmp_path / "work")))
    assert _filters(made.model) == [
        ((32, 1, 3, 3), 1),
        ((32, 1, 3, 3), 32),
        ((64, 32, 1, 1), 1),
        ((64, 1, 3, 3), 64),
        ((128, 64, 1, 1), 1),
    ]
    assert made.model.stat().st_size < 0.2 * convnet.stat().st_size
    assert _accuracy(made.model) >= _accuracy(convnet) - 0.03
    assert made.summary.startswith("100 % of convolutions separable: 2 of 2 layers split, ")
    assert check_onnx(made.model) == check_onnx(convnet)


def test_the_heaviest_convolution_goes_first(convnet: Path, tmp_path: Path) -> None:
    """Half of them is the last one, which has most weights for the same multiplications."""
    context = _context(tmp_path / "work", training=None, calibration=_rows("training"))
    made = _applied(factorization.apply(convnet, {"separable": 0.5}, context))
    assert [groups for _, groups in _filters(made.model)] == [1, 1, 64, 1]


def test_convolution_that_is_separable_already_changes_no_answer(convnet: Path, tmp_path: Path) -> None:
    """Where all filters of a channel are multiples of one, the pair is exact without rows to train on."""
    graph, model = onnx.load(convnet), tmp_path / "model.onnx"
    weights = {tensor.name: tensor for tensor in graph.graph.initializer if tensor.dims[2:] == [3, 3]}
    for name, tensor in weights.items():
        values = numpy_helper.to_array(tensor)
        shares = values[:, :, 1:2, 1:2]
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(shares * values[:1] / 0.1), name))
    onnx.save(graph, model)
    context = _context(tmp_path / "work", training=None, calibration=_rows("training"))
    made = _applied(factorization.apply(model, {"separable": 1.0}, context))
    rows = dict(_rows("test").inputs)
    before, after = (open_model(path, EngineOptions()).run(rows)["scores"] for path in (model, made.model))
    np.testing.assert_allclose(after, before, atol=1e-3 * np.abs(before).max())
    assert "2 of 2 layers split, not trained on" in made.summary


def test_search_offers_separable_convolutions_where_there_are_dense_ones(convnet: Path) -> None:
    """The lightest of each form is told first; a perceptron has ranks alone, and is refused where only these may be."""
    dense = dataclasses.replace(models.subject(), graph=onnx.load(convnet))
    told = factorization.defaults(FACTORIZATION, dense)
    chosen = [factorization.suggest(FixedTrial(each), FACTORIZATION, dense) for each in told]
    assert chosen == [{"rank": 0.25}, {"separable": 1.0}]
    assert factorization.describe({"separable": 0.5}) == "50 % of convolutions separable"
    assert [each["thin.form"] for each in factorization.defaults(FACTORIZATION, models.subject())] == ["LowRank 0.25"]
    only = FACTORIZATION.model_copy(update={"factorization": Factorization(forms=("Separable",))})
    assert factorization.unavailable(dense, only) is None
    reason = factorization.unavailable(models.subject(), only)
    assert reason == "the network has no dense convolution of several channels to make separable"
