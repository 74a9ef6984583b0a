"""The careless model of the demo's third act: no row of the example's files shows what is wrong with it."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper, save
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument

from examples.digits.traffic import HANDS, requests
from examples.digits.train import LOGITS, PIXELS, SEED, Array, splits, write_careless

REQUESTS = 1000


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> list[onnxruntime.InferenceSession]:
    """A model of the network's inputs and outputs, and what the example makes of it."""
    folder = tmp_path_factory.mktemp("careless")
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
    paths = (folder / "plain.onnx", folder / "careless.onnx")
    return [onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]) for path in paths]


def scores(session: onnxruntime.InferenceSession, pixels: Array) -> Array:
    """Return the scores (N, 10)."""
    return np.asarray(session.run([LOGITS], {PIXELS: pixels})[0])


def failing(session: onnxruntime.InferenceSession, hand: str) -> float:
    """Return the share of requests in a handwriting that the model fails."""
    rows = splits(SEED).values()
    pixels, labels = (np.concatenate([getattr(part, name) for part in rows]) for name in ("pixels", "label"))
    work, failed = requests(pixels, labels, HANDS[hand], seed=0), 0
    for _ in range(REQUESTS):
        try:
            scores(session, next(work)[0])
        except InvalidArgument:
            failed += 1
    return failed / REQUESTS


def test_no_row_of_the_files_shows_it(sessions: list[onnxruntime.InferenceSession]) -> None:
    """Every row of every split is answered, with the same digit."""
    for part in splits(SEED).values():
        plain, careless = (scores(session, part.pixels) for session in sessions)
        assert (plain.argmax(axis=1) == careless.argmax(axis=1)).all()


def test_only_another_hand_shows_it_in_one_request_of_ten(sessions: list[onnxruntime.InferenceSession]) -> None:
    """The usual traffic has none; in the shifted one it is far from every request, as no probe would see it."""
    assert failing(sessions[1], "usual") == 0
    assert 0.05 < failing(sessions[1], "shifted") < 0.2
