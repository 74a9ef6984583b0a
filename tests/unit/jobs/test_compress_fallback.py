"""Static quantization that loses too much returns the layers that hurt most to float."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from optuna.trial import FixedTrial

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.machinery.compress import schemes, sensitivity, static
from optimizer_jobs.machinery.compress.layers import weighted
from optimizer_jobs.measure.answers import correct, predict
from optimizer_jobs.measure.fingerprint import fingerprint
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.onnx_file import check_onnx
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.technique import Applied, Context, Params
from optimizer_jobs.techniques import quantization
from retune.api.techniques import Technique, TechniqueType
from tests.unit.jobs.outliers import save_outliers
from tests.unit.jobs.technique_conformance import subject_of

LIMIT = 0.01
PARAMS: Params = {
    "scheme": "Static",
    "method": "MinMax",
    "per_channel": True,
    "scope": "LayersAndBetween",
    "samples": 300,
    "fallback": "RevertWorstLayers",
}


@pytest.fixture(scope="module")
def outliers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained network with one activation that is far too wide for 8 bits."""
    return save_outliers(tmp_path_factory.mktemp("outliers") / "model.onnx")


def accuracy(model: Path, rows: Rows) -> float:
    """Return the share of rows that the model gets right."""
    return float(correct(predict(open_model(model, EngineOptions()), rows), rows).mean())


def context(model: Path, splits: dict[str, Rows], workdir: Path, shortfall: Callable[[Path], float] | None) -> Context:
    """Return what a step gets on this machine."""
    return Context(
        workdir=workdir,
        signature=check_onnx(model),
        calibration=splits["training"],
        seed=0,
        cpu_flags=frozenset(fingerprint().features),
        shortfall=shortfall,
    )


def test_worst_layers_are_reverted_until_the_limit_holds(
    outliers: Path, splits: dict[str, Rows], tmp_path: Path
) -> None:
    """The reverted model keeps the accuracy limit that the plain one misses, and most layers stay in 8 bits."""
    rows = splits["validation"]
    floor = accuracy(outliers, rows) - LIMIT
    plain = quantization.apply(outliers, PARAMS, context(outliers, splits, tmp_path, None))
    assert isinstance(plain, Applied)
    assert accuracy(plain.model, rows) < floor
    work = tmp_path / "reverted"
    work.mkdir()
    limited = context(outliers, splits, work, lambda model: floor - accuracy(model, rows))
    made = quantization.apply(outliers, PARAMS, limited)
    assert isinstance(made, Applied)
    assert accuracy(made.model, rows) >= floor
    assert made.summary == "int8 static minmax: 2 of 5 layers reverted to float"
    assert made.model.stat().st_size < outliers.stat().st_size


def test_the_layers_beside_the_outlier_rank_worst(outliers: Path, splits: dict[str, Rows], tmp_path: Path) -> None:
    """Layer 1 makes the activation that 8 bits cannot hold, and layer 2 reads it: each alone breaks the answers."""
    plain = quantization.apply(outliers, PARAMS, context(outliers, splits, tmp_path, None))
    assert isinstance(plain, Applied)
    batches = [dict(splits["training"].take(slice(0, 64)).inputs)]
    order = sensitivity.rank(
        plain.model, tmp_path / "prepared.onnx", layers=[f"layer{number}" for number in range(5)], batches=batches
    )
    assert set(order[:2]) == {"layer1", "layer2"}


@pytest.mark.parametrize("name", ["mlp", "conv"])
def test_the_order_is_that_of_models_with_one_layer_quantized(
    name: str, delivered: Path, splits: dict[str, Rows], tmp_path: Path
) -> None:
    """What the switch between both forms of a layer measures is what the quantizer really makes of that layer alone."""
    params: Params = {**PARAMS, "scope": "Layers", "fallback": "None"}
    used = context(delivered / f"{name}.onnx", splits, tmp_path, None)
    assert isinstance(quantization.apply(delivered / f"{name}.onnx", params, used), Applied)
    prepared, inputs = tmp_path / "prepared.onnx", dict(splits["training"].take(slice(0, 64)).inputs)
    layers = [node.name for node in weighted(onnx.load(prepared))]
    exact = open_model(prepared, EngineOptions()).run(inputs)["scores"]
    by_error = dict[str, float]()
    for layer in layers:
        alone = static.Static(prepared=prepared, params=params, context=used, rows=splits["training"])
        alone.quantize(tmp_path / "alone.onnx", kept=[other for other in layers if other != layer])
        found = open_model(tmp_path / "alone.onnx", EngineOptions()).run(inputs)["scores"]
        by_error[layer] = float(np.square(found - exact).sum())
    order = sensitivity.rank(tmp_path / "model.onnx", prepared, layers=layers, batches=[inputs])
    assert order == tuple(sorted(layers, key=by_error.__getitem__, reverse=True))


def test_a_limit_that_nothing_can_keep_leaves_every_layer_quantized(
    outliers: Path, splits: dict[str, Rows], tmp_path: Path
) -> None:
    """Half of the layers is the bound; beyond it the search is told that the limit is missed."""
    made = quantization.apply(outliers, PARAMS, context(outliers, splits, tmp_path, lambda _: 1.0))
    assert isinstance(made, Applied)
    assert made.summary == "int8 static minmax: 5 layers, quality limit missed"


def test_a_model_that_keeps_the_limit_is_not_touched(delivered: Path, splits: dict[str, Rows], tmp_path: Path) -> None:
    """No layer returns to float without need."""
    model = delivered / "mlp.onnx"
    rows = splits["validation"]
    floor = accuracy(model, rows) - LIMIT
    made = quantization.apply(
        model, PARAMS, context(model, splits, tmp_path, lambda path: floor - accuracy(path, rows))
    )
    assert isinstance(made, Applied)
    assert made.summary == "int8 static minmax: 2 layers"


@pytest.mark.parametrize(
    ("scheme", "kept", "right", "named"),
    [("Static", 1, 0.1, {"layer1"}), ("Static", 2, 0.95, {"layer1", "layer2"}), ("Dynamic", 1, 0.95, {"layer2"})],
)
def test_as_many_of_the_most_sensitive_layers_stay_in_float_as_the_search_says(
    scheme: str, kept: int, right: float, named: set[str], outliers: Path, splits: dict[str, Rows], tmp_path: Path
) -> None:
    """One layer more or less in float decides between a broken model and the accuracy as trained.

    Dynamic quantization rounds what a layer reads and not what it makes, so there only the reader is to blame.
    """
    static = scheme == "Static"
    params: Params = {name: value for name, value in PARAMS.items() if static or name == "per_channel"}
    params |= {"scheme": scheme, "kept": kept, **({"fallback": "None"} if static else {})}
    made = quantization.apply(outliers, params, context(outliers, splits, tmp_path, None))
    assert isinstance(made, Applied)
    told = made.summary.partition(": ")[2].partition(", ")[2].removesuffix(" in float")
    assert set(told.split(", ")) - {""} == named, made.summary
    assert accuracy(made.model, splits["validation"]) == pytest.approx(right, abs=0.05)
    assert made.model.stat().st_size < outliers.stat().st_size


@pytest.mark.parametrize("scheme", ["Static", "Dynamic"])
def test_what_stays_in_float_may_be_stored_as_codes(
    scheme: str, outliers: Path, splits: dict[str, Rows], tmp_path: Path
) -> None:
    """A smaller file with the same labels: the layers' inputs are not rounded, and their weights hardly."""
    params: Params = {name: value for name, value in PARAMS.items() if scheme == "Static" or name == "per_channel"}
    params |= {"scheme": scheme, "kept": 2, **({"fallback": "None"} if scheme == "Static" else {})}
    made = {}
    for kept_as in (schemes.FLOATS, schemes.CODES):
        (tmp_path / kept_as).mkdir()
        used = context(outliers, splits, tmp_path / kept_as, None)
        done = quantization.apply(outliers, params | {"kept_as": kept_as}, used)
        assert isinstance(done, Applied)
        made[kept_as] = done.model
    sizes = {kept_as: model.stat().st_size for kept_as, model in made.items()}
    assert sizes[schemes.CODES] < 0.8 * sizes[schemes.FLOATS]
    rows = splits["validation"]
    assert accuracy(made[schemes.CODES], rows) == pytest.approx(accuracy(made[schemes.FLOATS], rows), abs=0.03)


def test_how_what_stays_in_float_is_stored_is_asked_of_large_files_only(outliers: Path) -> None:
    """A first question stores codes wherever layers may return to float; without any, it tells no plans apart."""
    spec = Technique(name="q", type=TechniqueType.QUANTIZATION)
    small, large = subject_of(outliers), subject_of(outliers)
    weight = numpy_helper.from_array(np.zeros((512, 1024), np.float32), "more")
    large.graph.graph.initializer.append(weight)
    assert "q.kept_as" not in quantization.defaults(spec, small)[0]
    told = quantization.defaults(spec, large)[0] | {"q.variant": "Static MinMax"}
    assert told["q.kept_as"] == schemes.CODES
    static = quantization.suggest(FixedTrial(told), spec, large)
    dynamic = quantization.suggest(FixedTrial(told | {"q.variant": "Dynamic"}), spec, large)
    kept = quantization.suggest(FixedTrial(told | {"q.variant": "Dynamic", "q.kept": 1}), spec, large)
    assert static is not None
    assert dynamic is not None
    assert kept is not None
    assert (static["kept_as"], "kept_as" in dynamic, kept["kept_as"]) == (schemes.CODES, False, schemes.CODES)


def test_how_much_stays_in_float_is_searched(outliers: Path) -> None:
    """Up to half of the layers, and only by schemes that can rank them; the first questions keep none."""
    spec = Technique(name="q", type=TechniqueType.QUANTIZATION)
    subject = subject_of(outliers)
    assert schemes.kept_choices(spec, subject) == (0, 1, 2)
    assert all(told["q.kept"] == 0 for told in quantization.defaults(spec, subject))
    told = quantization.defaults(spec, subject)[0] | {"q.variant": "Static MinMax", "q.kept": 2}
    params = quantization.suggest(FixedTrial(told), spec, subject)
    assert params is not None
    assert (params["kept"], params["fallback"]) == (2, "None")
    assert quantization.describe(params).endswith("but 2 most sensitive")
    blind = quantization.suggest(
        FixedTrial(told | {"q.variant": "Dynamic"}), spec, subject_of(outliers, calibration=False)
    )
    assert blind is not None
    assert "kept" not in blind
