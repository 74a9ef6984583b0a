"""scikit-learn estimators: open them safely, write them as ONNX, train them anew. Nothing else imports the library."""
