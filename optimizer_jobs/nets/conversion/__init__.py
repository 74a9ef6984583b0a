"""From ONNX files to torch modules, and from torch modules to ONNX files."""
