"""Converters of our own, for estimators that skl2onnx writes wrongly, in part, or not at all.

Each module has functions that skl2onnx calls with scope, operator and container, and others that say what comes out.
"""
