"""How a model of each format becomes an ONNX file: a module for each format, one Protocol, and their registry."""
