"""Rewriting ONNX files so that they are smaller or faster: quantization, its calibration, fusions, trees."""
