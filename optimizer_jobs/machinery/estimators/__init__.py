"""scikit-learn estimators: open them safely, put steps before them, write them as ONNX."""
