"""Run in MLflow's own environment: load a registered model as people do, and ask it.

`python mlflow_loads.py ADDRESS URI ROWS ANSWERS`: rows are the input of an NPY file, and the answers of the ONNX file
and of MLflow's own way to serve it go into an NPZ file.
"""

import sys

import mlflow  # type: ignore[import-not-found]  # it is in the environment that runs this
import numpy as np
import onnxruntime


def main(address: str, uri: str, rows: str, answers: str) -> None:
    """Load the model in both ways, and leave what it answers."""
    mlflow.set_tracking_uri(address)
    inputs = np.load(rows)
    session = onnxruntime.InferenceSession(mlflow.onnx.load_model(uri).SerializeToString())
    by_file = session.run(None, {session.get_inputs()[0].name: inputs})[0]
    served = mlflow.pyfunc.load_model(uri)
    by_mlflow = next(iter(served.predict(inputs).values()))
    signature = served.metadata.signature
    words = np.array([str(signature.inputs), str(signature.outputs)])
    np.savez(answers, by_file=by_file, by_mlflow=by_mlflow, words=words)


if __name__ == "__main__":
    main(*sys.argv[1:])
