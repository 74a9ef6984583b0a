"""What techniques are made of: trainers, rewriting of ONNX files, attacks, formats of delivery. Chooses nothing."""
