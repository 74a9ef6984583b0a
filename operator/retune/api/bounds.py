"""Bounded text that statuses and results are made of: whatever ends up in an object has a limit."""

from typing import Annotated

from pydantic import Field

Name = Annotated[str, Field(min_length=1, max_length=253)]
Word = Annotated[str, Field(min_length=1, max_length=64)]
Address = Annotated[str, Field(min_length=1, max_length=1024)]
Hash = Annotated[str, Field(min_length=1, max_length=80)]
Registered = Annotated[str, Field(min_length=1, max_length=80)]
"""What a registry calls a version: its number, or the digest of its image."""
Number = Annotated[str, Field(min_length=1, max_length=32)]
"""A decimal number in a string, as API conventions want it."""
LEFTOVERS_LIMIT = 64
"""Most things in the store that wait to be removed."""
Sentence = Annotated[str, Field(max_length=1024)]
