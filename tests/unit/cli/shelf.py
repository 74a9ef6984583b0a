"""Objects as a real cluster gave them during runs of the digits example, and golden pictures of them.

`watched` is not the cluster's: the planner made it, from what the check Job said of real rows (breast_cancer, eight
columns shifted in the last three windows) and from measured latencies. Its versions are those of `tests.answers`.

`RETUNE_UPDATE_GOLDEN=1` writes the pictures anew; look at the difference before it is kept.
"""

import json
import os
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType

from retune.api.objects import ModelOptimization, OptimizationRun
from retune.cli.output import show

FOLDER = Path(__file__).parent
NOW = datetime(2026, 11, 25, 5, 0, tzinfo=UTC)
_LATER = {"relearning": datetime(2026, 11, 25, 13, 53, 10, tzinfo=UTC)}


def seen_at(name: str) -> datetime:
    """When an object is looked at."""
    return _LATER.get(name, NOW)


def raw(name: str) -> dict[str, Any]:
    """An object as the API server gave it."""
    document: dict[str, Any] = json.loads((FOLDER / "objects" / f"{name}.json").read_text(encoding="utf-8"))
    return document


def resource(name: str) -> ModelOptimization:
    """A ModelOptimization at one moment of the run."""
    return ModelOptimization.model_validate(raw(name))


def run() -> OptimizationRun:
    """The run as it ended."""
    return OptimizationRun.model_validate(raw("run"))


def drawn(picture: RenderableType, *, width: int = 120) -> str:
    """What the picture looks like where there is no terminal."""
    page = StringIO()
    show(
        Console(file=page, width=width, force_terminal=False, color_system=None, highlight=False, markup=False), picture
    )
    return page.getvalue()


def assert_golden(text: str, name: str) -> None:
    """Compare with the kept picture, or keep this one when asked to."""
    path = FOLDER / "golden" / f"{name}.txt"
    if os.environ.get("RETUNE_UPDATE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
