"""Names of the files of a bundle."""

MANIFEST = "bundle.json"
MODEL = "model.onnx"
GOLDEN = "golden.json"
NATIVE = "native"
"""Name, without extension, of the file in the format the model was delivered in."""
