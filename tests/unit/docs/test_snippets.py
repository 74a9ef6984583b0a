"""Every piece of Python on the pages can be read, and what it imports of ours is there; tests/jobs runs guides."""

import ast
import importlib
from collections.abc import Iterator

import pytest

from tests.unit.docs.manual import Example, examples

OURS = ("retune", "optimizer_jobs")
EXAMPLES = examples("python", "py")


def absent(script: str) -> Iterator[str]:
    """Yield the names that a script imports of ours and that are not there."""
    for node in ast.walk(ast.parse(script)):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.partition(".")[0] in OURS:
            module = importlib.import_module(node.module)
            yield from (f"{node.module}.{each.name}" for each in node.names if not hasattr(module, each.name))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.place)
def test_every_import_of_ours_is_there(example: Example) -> None:
    """A name that moved is noticed on the page that a user copies it from."""
    assert list(absent(example.block.text)) == []


def test_a_name_that_moved_is_noticed() -> None:
    """The check can fail, and looks at nobody else's names."""
    script = "from retune.api.objects import ModelOptimization, Model0ptimization\nfrom os import nothing"
    assert list(absent(script)) == ["retune.api.objects.Model0ptimization"]
