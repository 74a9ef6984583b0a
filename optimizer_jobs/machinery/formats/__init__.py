"""How a model of each format becomes an ONNX file: one module a format behind one Protocol, found in one registry."""
