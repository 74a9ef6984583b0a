"""Taking networks apart: removing units, and splitting layers into products of smaller ones."""
