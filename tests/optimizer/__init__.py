"""Tests that need what only the optimizer image carries, such as torch and OpenVINO; they run inside it."""
