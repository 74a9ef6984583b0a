"""A small recommender as an ONNX file: two embedding tables, a bag of items, and a dot product; random weights."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper, numpy_helper

from optimizer_jobs.data.datasets import Rows

USERS, ITEMS, WIDTH = 600, 2000, 32
RECENT = 3
"""Items that a user looked at last: two lookups read the second table."""


def recommender(*, opset: int = 17, users: NDArray[np.float32] | None = None) -> ModelProto:
    """Return inputs `user` (N,) and `item` (N,), `recent` (N, RECENT), and output `score` (N, 1)."""
    random = np.random.default_rng(0)
    tables = {
        "users": random.normal(size=(USERS, WIDTH)) if users is None else users,
        "items": random.normal(size=(ITEMS, WIDTH)) * random.uniform(0.1, 3, size=(ITEMS, 1)),
        "head": random.normal(size=(WIDTH, 1)),
    }
    nodes = [
        helper.make_node("Gather", ["users", "user"], ["u"], name="user_rows"),
        helper.make_node("Gather", ["items", "item"], ["i"], name="item_rows"),
        helper.make_node("Gather", ["items", "recent"], ["r"], name="recent_rows"),
        helper.make_node("ReduceSum", ["r", "axes"], ["bag"], name="bag", keepdims=0),
        helper.make_node("Add", ["u", "bag"], ["taste"], name="taste"),
        helper.make_node("Mul", ["taste", "i"], ["products"], name="products"),
        helper.make_node("MatMul", ["products", "head"], ["score"], name="score"),
    ]
    whole = TensorProto.INT64
    graph = helper.make_graph(
        nodes,
        "recommender",
        [
            helper.make_tensor_value_info("user", whole, ["N"]),
            helper.make_tensor_value_info("item", whole, ["N"]),
            helper.make_tensor_value_info("recent", whole, ["N", RECENT]),
        ],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["N", 1])],
        [
            *(numpy_helper.from_array(values.astype(np.float32), name) for name, values in tables.items()),
            numpy_helper.from_array(np.array([1]), "axes"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def save_recommender(path: Path) -> Path:
    """Write the recommender to a file."""
    onnx.save(recommender(), path)
    return path


def requests(count: int, *, items: int = ITEMS, seed: int = 0) -> dict[str, NDArray[np.int64]]:
    """Return inputs of `count` requests that look up the first `items` items only."""
    random = np.random.default_rng(seed)
    return {
        "user": random.integers(0, USERS, count),
        "item": random.integers(0, items, count),
        "recent": random.integers(0, items, (count, RECENT)),
    }


def rows(inputs: Mapping[str, NDArray[np.int64]], groups: NDArray[np.int64] | None = None) -> Rows:
    """Return requests as rows of data without labels."""
    return Rows(inputs=dict(inputs), labels=None, digest="requests", groups=groups)
