"""Read a model that LightGBM saved as text, without LightGBM.

The trees come from treelite; names and categories of columns, which it does not keep, are read here. Nothing in the
file is code.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optimizer_jobs.machinery.boosters.forest import LARGEST_CODE, Booster, BoosterError
from optimizer_jobs.machinery.boosters.from_treelite import forest_of, parsed

_CLASSIFIERS = frozenset({"binary", "multiclass", "multiclassova"})
_AGAIN = "Save it with booster.save_model('model.txt')."
_DEFAULT_NAME = re.compile(r"Column_\d+")
_MISSING_SHIFT, _ZERO = 2, 1
"""In a node's decision_type, where the bits begin that say what counts as missing, and what they hold for zeros."""

Categories = tuple[str, ...] | tuple[float, ...]


def read(path: Path) -> Booster:
    """Return the trees in the file; raises BoosterError with what is wrong or has no counterpart in ONNX."""
    import treelite

    content = path.read_bytes()
    if not content.startswith(b"tree"):
        raise BoosterError("this is no model that LightGBM saved as text", _AGAIN)
    text = content.decode(errors="replace")
    header = _header(text)
    _check_missing(text)
    model = parsed(lambda: treelite.frontend.load_lightgbm_model(path))
    objective = header.get("objective", "custom").split(" ")[0]
    names = tuple(header.get("feature_names", "").split())
    return Booster(
        forest=forest_of(model, classifies=objective in _CLASSIFIERS),
        parsed=model,
        library="LightGBM",
        objective=objective,
        names=() if all(_DEFAULT_NAME.fullmatch(name) for name in names) else names,
        categories=_categories(header, text),
    )


def _header(text: str) -> Mapping[str, str]:
    """Return the settings before the first tree."""
    lines = text.split("\nTree=", maxsplit=1)[0].splitlines()
    return dict(line.split("=", maxsplit=1) for line in lines if "=" in line)


def _check_missing(text: str) -> None:
    """Refuse trees that take zeros for missing values, because treelite reads them as if they did not."""
    for line in re.findall(r"^decision_type=(.*)$", text, flags=re.MULTILINE):
        if any(int(kind) >> _MISSING_SHIFT & 3 == _ZERO for kind in line.split()):
            raise BoosterError(
                "it takes zeros for missing values", "Train with zero_as_missing=false, and NaN for them."
            )


def _categories(header: Mapping[str, str], text: str) -> dict[int, Categories]:
    """Return the categories of the columns that pandas kept as categories, by column, where codes are not themselves.

    They are listed in the order of the columns that the trees take for categories.
    """
    _, marked, rest = text.rpartition("\npandas_categorical:")
    listed = json.loads(rest) if marked and rest.strip() != "null" else None
    if not listed:
        return {}
    infos = header.get("feature_infos", "").split()
    columns = [place for place, info in enumerate(infos) if not info.startswith("[") and info != "none"]
    if len(columns) != len(listed):
        raise BoosterError(
            f"it has categories of {len(listed)} columns and tests those of {len(columns)}: columns without any test "
            "hide which is which; save it after training without them"
        )
    known = {column: categories_of(values) for column, values in zip(columns, listed, strict=True)}
    return {column: values for column, values in known.items() if values != tuple(range(len(values)))}


def categories_of(values: list[Any]) -> Categories:
    """Return the categories of one column: all text, or all numbers that float32 tells apart.

    Raises:
        BoosterError: They are neither.
    """
    if all(isinstance(value, str) for value in values):
        return tuple(values)
    if any(isinstance(value, str) for value in values):
        raise BoosterError("a column has categories of text and of numbers")
    numbers = tuple(float(value) for value in values)
    if any(abs(number) > LARGEST_CODE for number in numbers):
        raise BoosterError(f"a column has categories above {LARGEST_CODE}, which float32 does not tell apart")
    return numbers
