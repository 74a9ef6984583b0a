"""Write the rows of a data file as requests that a server has just captured, with a model's own answers.

Arguments: the model, the data file, the folder of captured requests. Prints how many rows it wrote.
"""

import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime

from optimizer_jobs.models.onnx_file import check_onnx
from optimizer_jobs.production.writer import CaptureWriter


def main(model: Path, data: Path, folder: Path) -> None:
    """Write every row as a request of its own, answered a minute ago."""
    session, signature = onnxruntime.InferenceSession(model), check_onnx(model)
    (given,) = signature.inputs
    arrays = np.load(data)
    rows = next(arrays[name] for name in arrays.files if arrays[name].ndim > 1).astype(given.dtype)
    writer = CaptureWriter(folder, signature)
    for number, row in enumerate(rows):
        inputs = {given.name: row[None]}
        values = session.run(None, inputs)
        outputs = dict(zip((spec.name for spec in signature.outputs), values, strict=True))
        writer.offer(f"user-{number}", "sha256:" + "0" * 64, inputs, outputs, time.time() - 60)
    writer.close()
    print(len(rows))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
