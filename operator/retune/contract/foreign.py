"""Files of models that are not opened here, and the one line that writes each as ONNX.

Reading them would need their own library, which is heavier than everything else together. `retune init` and the Jobs
say the same sentence.
"""

from pathlib import PurePosixPath

_KERAS = (
    "is a Keras model, which only Keras reads",
    'write it as ONNX with model.export("model.onnx", format="onnx") in Keras, and deliver that file',
)
_SAVED_MODEL = (
    "is a SavedModel, which only TensorFlow reads",
    "write it as ONNX with python -m tf2onnx.convert --saved-model FOLDER --output model.onnx, and deliver that file",
)
_LITE = (
    "is a model of TensorFlow Lite",
    "write it as ONNX with python -m tf2onnx.convert --tflite FILE --output model.onnx, and deliver that file",
)
_EXPORT_HUGGING_FACE = (
    "write it as ONNX with optimum-cli export onnx --model FOLDER OUT, and deliver OUT/model.onnx; or deliver its "
    "model.safetensors with a factory that builds the network from config.json"
)
_HUGGING_FACE = ("is a folder of Hugging Face", _EXPORT_HUGGING_FACE)
_BY_NAME = {
    ".keras": _KERAS,
    ".h5": _KERAS,
    ".hdf5": _KERAS,
    ".pb": _SAVED_MODEL,
    ".tflite": _LITE,
}
_MEMBERS = (
    ({"saved_model.pb"}, _SAVED_MODEL),
    ({"config.json", "model.safetensors"}, _HUGGING_FACE),
    ({"config.json", "pytorch_model.bin"}, _HUGGING_FACE),
    ({"config.json", "model.weights.h5"}, _KERAS),
)
"""Files by which a folder is known."""


def foreign(path: str, members: frozenset[str] = frozenset()) -> tuple[str, str] | None:
    """Return what a file or folder is and what to do with it, as words without a full stop; None for any other.

    Args:
        path: Path or URI of the model.
        members: Names of the files in it, where it is a folder.
    """
    for names, words in _MEMBERS:
        if names <= members:
            return words
    return _BY_NAME.get(PurePosixPath(path).suffix.lower())
