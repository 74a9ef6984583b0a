"""Models that are not opened here, and the one line that writes each in a form that is.

Reading them would need their own library, which is heavier than everything else together, or run code. `retune init`
and the Jobs say the same sentence.
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
_PICKLED = (
    "is a folder of Hugging Face without model.safetensors, and pytorch_model.bin is a pickle, which can run code",
    "where you trust it, write safetensors with save_pretrained(FOLDER) of the class that config.json names",
)
_ADAPTER = (
    "is an adapter of peft without the model that it belongs to",
    "merge it into its model (merge_and_unload), and write that with save_pretrained(FOLDER)",
)
_BY_NAME = {
    ".keras": _KERAS,
    ".h5": _KERAS,
    ".hdf5": _KERAS,
    ".pb": _SAVED_MODEL,
    ".tflite": _LITE,
}
_CONFIG = "config.json"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_MEMBERS = (
    ({"saved_model.pb"}, _SAVED_MODEL),
    ({_CONFIG, "pytorch_model.bin"}, _PICKLED),
    ({_CONFIG, "pytorch_model.bin.index.json"}, _PICKLED),
    ({_CONFIG, "model.weights.h5"}, _KERAS),
    ({"adapter_config.json"}, _ADAPTER),
)
"""Files by which a folder is known that is not read."""


def is_hugging_face(members: frozenset[str]) -> bool:
    """Return whether files of these names are a folder as `save_pretrained` writes it, with weights that are read."""
    return _CONFIG in members and any(name in members for name in _WEIGHTS)


def foreign(path: str, members: frozenset[str] = frozenset()) -> tuple[str, str] | None:
    """Return what a file or folder is and what to do with it, as words without a full stop; None for any other.

    Args:
        path: Path or URI of the model.
        members: Names of the files in it, where it is a folder.
    """
    if is_hugging_face(members):
        return None
    for names, words in _MEMBERS:
        if names <= members:
            return words
    return _BY_NAME.get(PurePosixPath(path).suffix.lower())
