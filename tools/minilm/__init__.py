"""A real sentence encoder (MiniLM, 22.7 million weights) and real text for tests and benches of large models."""
