"""Run in MLflow's own environment: log a model of each flavour, as users do, and register it.

`python mlflow_models.py ADDRESS FOLDER`: logs to the server, and leaves in the folder what the files have to be.
"""

import sys
from pathlib import Path

import lightgbm
import mlflow  # type: ignore[import-not-found]  # it is in the environment that runs this
import numpy as np
import onnx
import xgboost
from onnx import TensorProto, helper
from sklearn.linear_model import LogisticRegression

ROWS = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
LABELS = (ROWS[:, 0] > 0).astype(int)


def network() -> onnx.ModelProto:
    """Return a network with weights that are large enough to be written beside it."""
    weights = helper.make_tensor("w", TensorProto.FLOAT, [4, 512], np.ones(2048, np.float32).tobytes(), raw=True)
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, size]) for name, size in (("x", 4), ("y", 512))
    ]
    graph = helper.make_graph([node], "net", ends[:1], ends[1:], [weights])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def main(address: str, folder: Path) -> None:
    """Log every model under the name of its flavour."""
    mlflow.set_tracking_uri(address)
    estimator = LogisticRegression().fit(ROWS, LABELS)
    booster = lightgbm.train({"objective": "binary", "verbose": -1}, lightgbm.Dataset(ROWS, LABELS), 2)
    trees = xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(ROWS, LABELS), 2)
    none: list[str] = []
    with mlflow.start_run():
        mlflow.onnx.log_model(network(), name="model", registered_model_name="onnx", pip_requirements=none)
        for kind in ("skops", "cloudpickle"):
            mlflow.sklearn.log_model(
                estimator,
                name="model",
                registered_model_name=kind,
                serialization_format=kind,
                pip_requirements=none,
            )
        mlflow.lightgbm.log_model(booster, name="model", registered_model_name="lightgbm", pip_requirements=none)
        mlflow.xgboost.log_model(trees, name="model", registered_model_name="xgboost", pip_requirements=none)
    for name in ("onnx", "skops", "cloudpickle", "lightgbm", "xgboost"):
        mlflow.MlflowClient().set_registered_model_alias(name, "champion", "1")
        mlflow.artifacts.download_artifacts(f"models:/{name}/1", dst_path=str(folder / name))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
