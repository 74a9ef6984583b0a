"""Looking at the ONNX file of a step."""

from pathlib import Path

import onnx


def graph_of(model: Path) -> onnx.ModelProto:
    """Return the graph without external data, which is all that most questions need."""
    return onnx.load(model, load_external_data=False)
