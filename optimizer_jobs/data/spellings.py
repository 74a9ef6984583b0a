"""Numbers as people write them in tables: with separators of thousands, and yes or no for one and zero.

A column is read so only where every cell is written so; one other cell, and the column stays text.
"""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_WORDS = ({"true": 1.0, "false": 0.0}, {"yes": 1.0, "no": 0.0}, {"y": 1.0, "n": 0.0})
"""Words for one and zero; the words of a column come from one pair."""
_GROUPED = {
    mark: re.compile(rf"[+-]?\d{{1,3}}({re.escape(mark)}\d{{3}})+({re.escape(decimal)}\d+)?")
    for mark, decimal in ((",", "."), (".", ","))
}


def grouped_numbers(cells: Array, *, decimal: str) -> NDArray[np.float64] | None:
    """Return the numbers of a column of which some have separators of thousands, or None where it has other cells.

    Args:
        cells: Text cells (N,); empty ones become NaN.
        decimal: Decimal mark of the table; the separator is a comma beside a point, and a point beside a comma.
    """
    mark = "." if decimal == "," else ","
    texts = [_text(cell) for cell in cells]
    if not any(_GROUPED[mark].fullmatch(text) for text in texts):
        return None
    numbers = np.empty(len(texts))
    for row, text in enumerate(texts):
        plain = text.replace(mark, "").replace(decimal, ".") if _GROUPED[mark].fullmatch(text) else text
        try:
            numbers[row] = float(plain.replace(decimal, ".")) if plain else np.nan
        except ValueError:
            return None
    return numbers


def words_as_numbers(cells: Array) -> tuple[NDArray[np.float64], str] | None:
    """Return the ones and zeros of a column of yes and no, or the like, and the word for one; None for other cells.

    Args:
        cells: Text cells (N,); empty ones become NaN.
    """
    texts = [_text(cell).lower() for cell in cells]
    present = {text for text in texts if text}
    for words in _WORDS:
        if present and present <= words.keys():
            return np.asarray([words.get(text, np.nan) for text in texts]), next(iter(words))
    return None


def _text(cell: Any) -> str:
    return "" if cell is None or cell != cell else str(cell).strip()  # noqa: PLR0124 - NaN alone differs from itself
