"""Taking networks apart: units that can go, layers as products of smaller ones."""
