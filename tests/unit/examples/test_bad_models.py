"""The bad models of the demo's third act: no row of the example's files shows what is wrong with them."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper, save
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from examples.digits.traffic import HANDS, requests
from examples.digits.train import LOGITS, PIXELS, SEED, Array, splits, write_careless, write_slow

REQUESTS = 1000
Session = Any  # ONNX Runtime has no types


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Session]:
    """A model of the network's inputs and outputs, and what the example makes of it."""
    folder = tmp_path_factory.mktemp("bad")
    weights = np.random.default_rng(0).normal(size=(64, 10)).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", [PIXELS], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], [LOGITS]),
    ]
    inputs = [helper.make_tensor_value_info(PIXELS, TensorProto.FLOAT, ["batch", 1, 8, 8])]
    outputs = [helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ["batch", 10])]
    graph = helper.make_graph(nodes, "plain", inputs, outputs, [numpy_helper.from_array(weights, "matrix")])
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), folder / "plain.onnx")
    write_careless(folder / "plain.onnx", folder / "careless.onnx")
    write_slow(folder / "plain.onnx", folder / "slow.onnx")
    files = folder.glob("*.onnx")
    return {path.stem: onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]) for path in files}


def scores(session: Session, pixels: Array) -> Array:
    """Return the scores (N, 10)."""
    return np.asarray(session.run([LOGITS], {PIXELS: pixels})[0])


def asked(hand: str) -> Iterator[Array]:
    """Yield the pixels of requests in a handwriting."""
    rows = splits(SEED).values()
    pixels, labels = (np.concatenate([getattr(part, name) for part in rows]) for name in ("pixels", "label"))
    work = requests(pixels, labels, HANDS[hand], seed=0)
    return (next(work)[0] for _ in range(REQUESTS))


def fails(session: Session, pixels: Array) -> bool:
    """Whether the model cannot answer a request."""
    try:
        scores(session, pixels)
    except InvalidArgument:
        return True
    return False


@pytest.mark.parametrize("name", ["careless", "slow"])
def test_no_row_of_the_files_shows_it(sessions: dict[str, Session], name: str) -> None:
    """Every row of every split is answered, with the same digit."""
    for part in splits(SEED).values():
        plain, bad = (scores(sessions[each], part.pixels) for each in ("plain", name))
        assert (plain.argmax(axis=1) == bad.argmax(axis=1)).all()


@pytest.mark.slow
def test_only_another_hand_shows_it_in_one_request_of_ten(sessions: dict[str, Session]) -> None:
    """The usual traffic has none; in the shifted one it is far from every request, as no probe would see it."""
    usual, shifted = (np.mean([fails(sessions["careless"], each) for each in asked(hand)]) for hand in HANDS)
    assert usual == 0
    assert 0.05 < shifted < 0.2


@pytest.mark.slow
def test_the_slow_model_takes_its_time_where_the_careless_one_fails(sessions: dict[str, Session]) -> None:
    """One runs its rounds for just the requests that the other has no entry for, and shows it by its scores."""
    for pixels in list(asked("shifted"))[:20]:
        fast = np.allclose(scores(sessions["slow"], pixels), scores(sessions["plain"], pixels))
        assert fast is not fails(sessions["careless"], pixels)
