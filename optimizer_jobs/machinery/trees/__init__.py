"""Ensembles of trees in ONNX files, whatever library made them: read, made smaller, fitted again, written."""
