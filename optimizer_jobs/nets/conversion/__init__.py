"""Networks from ONNX into torch modules, and from torch modules into ONNX."""
