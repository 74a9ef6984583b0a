"""Sentences from the docstrings of Python's standard library, as token numbers for MiniLM."""

import ast
import re
import sysconfig
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SPLITS = {"training": slice(0, 1024), "validation": slice(1024, 1424), "test": slice(1424, 1824)}
"""Rows of the shuffled texts in each split."""
_START, _END, _UNKNOWN = "[CLS]", "[SEP]", "[UNK]"
_LONGEST_WORD = 100


def save_splits(folder: Path, *, vocabulary: Path, length: int) -> None:
    """Write `training-L.npz`, `validation-L.npz` and `test-L.npz` with the model's three inputs, each (N, L) int64."""
    numbers = {word: number for number, word in enumerate(vocabulary.read_text(encoding="utf-8").splitlines())}
    chosen = _shuffled(list(docstrings(least_words=6 if length <= 16 else length // 2)))
    for split, rows in SPLITS.items():
        ids = np.zeros((rows.stop - rows.start, length), dtype=np.int64)
        for row, text in zip(ids, chosen[rows], strict=True):
            found = tokens(text, numbers)[: length - 2]
            row[: len(found) + 2] = [numbers[_START], *found, numbers[_END]]
        mask = (ids > 0).astype(np.int64)
        path = folder / f"{split}-{length}.npz"
        np.savez_compressed(path, input_ids=ids, attention_mask=mask, token_type_ids=np.zeros_like(ids))


def docstrings(*, least_words: int) -> Iterator[str]:
    """Yield the first paragraphs of different docstrings that have at least so many words, in order of files."""
    seen = set[str]()
    for path in _sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8", errors="replace"))):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                continue
            text = " ".join((ast.get_docstring(node) or "").split())
            if len(text.split()) >= least_words and text not in seen:
                seen.add(text)
                yield text


def _sources() -> list[Path]:
    """Return the modules of the standard library, without its tests and without what was installed beside it."""
    root = Path(sysconfig.get_path("stdlib"))
    strange = {"test", "tests", "idlelib", "lib2to3", "site-packages", "dist-packages"}
    return sorted(path for path in root.rglob("*.py") if not strange & set(path.relative_to(root).parts))


def tokens(text: str, numbers: dict[str, int]) -> list[int]:
    """Return the numbers of a text's word pieces, the longest known piece first, as BERT without case does it."""
    plain = unicodedata.normalize("NFD", text.lower())
    words = re.findall(r"\w+|[^\w\s]", "".join(char for char in plain if unicodedata.category(char) != "Mn"))
    return [piece for word in words for part in re.split(r"(_)", word) if part for piece in _pieces(part, numbers)]


def _pieces(word: str, numbers: dict[str, int]) -> list[int]:
    found, start = list[int](), 0
    while start < len(word) <= _LONGEST_WORD:
        prefix = "##" if start else ""
        ends = range(len(word), start, -1)
        end = next((end for end in ends if prefix + word[start:end] in numbers), None)
        if end is None:
            break
        found.append(numbers[prefix + word[start:end]])
        start = end
    return found if start == len(word) else [numbers[_UNKNOWN]]


def _shuffled(texts: Sequence[str]) -> list[str]:
    order: NDArray[np.int64] = np.random.default_rng(0).permutation(len(texts))
    return [texts[number] for number in order]
