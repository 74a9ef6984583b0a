"""Neural networks as torch modules: read from ONNX or a factory, trained, and written as ONNX again."""
