"""Read Universal Binary JSON, as far as XGBoost writes it. The file may be hostile: nothing is taken on trust.

Numbers in arrays of one type stay NumPy arrays, so that a large model is read in a moment.
"""

import struct
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

_NUMBERS: Mapping[bytes, tuple[str, str]] = {
    b"i": (">b", ">i1"),
    b"U": (">B", ">u1"),
    b"I": (">h", ">i2"),
    b"l": (">i", ">i4"),
    b"L": (">q", ">i8"),
    b"d": (">f", ">f4"),
    b"D": (">d", ">f8"),
}
"""By marker, the format of one number for struct, and of many for NumPy."""
_CONSTANTS: Mapping[bytes, Any] = {b"Z": None, b"T": True, b"F": False}
_DEEPEST = 32


class UbjsonError(ValueError):
    """The bytes are no Universal Binary JSON, or no complete one."""


def loads(content: bytes) -> Any:
    """Return the value that the bytes hold.

    Raises:
        UbjsonError: They hold none, end too early, or go too deep.
    """
    try:
        return _Reader(content).value(depth=0)
    except (struct.error, UnicodeDecodeError, IndexError) as error:
        raise UbjsonError("the file is damaged or truncated") from error


class _Reader:
    """Bytes and the place that is read next."""

    def __init__(self, content: bytes) -> None:
        self._content, self._place = content, 0

    def value(self, *, depth: int) -> Any:
        """Read any value, with its marker."""
        marker = self._take(1)
        if marker in _NUMBERS:
            return self._number(marker)
        if marker in _CONSTANTS:
            return _CONSTANTS[marker]
        if depth > _DEEPEST:
            raise UbjsonError(f"the file is nested more than {_DEEPEST} deep")
        readers: dict[bytes, Callable[[], Any]] = {
            b"S": self._text,
            b"C": lambda: self._take(1).decode(),
            b"[": lambda: self._array(depth + 1),
            b"{": lambda: self._object(depth + 1),
        }
        if marker not in readers:
            raise UbjsonError("the file is damaged or truncated")
        return readers[marker]()

    def _take(self, count: int) -> bytes:
        if not 0 <= count <= len(self._content) - self._place:
            raise UbjsonError("the file is damaged or truncated")
        self._place += count
        return self._content[self._place - count : self._place]

    def _next(self, marker: bytes) -> bool:
        """Read this marker if it comes next."""
        if self._content[self._place : self._place + 1] != marker:
            return False
        self._place += 1
        return True

    def _number(self, marker: bytes) -> Any:
        kind = _NUMBERS[marker][0]
        (number,) = struct.unpack(kind, self._take(struct.calcsize(kind)))
        return number

    def _count(self) -> int:
        marker = self._take(1)
        if marker not in _NUMBERS:
            raise UbjsonError("the file is damaged or truncated")
        return int(self._number(marker))

    def _text(self) -> str:
        return self._take(self._count()).decode()

    def _array(self, depth: int) -> Any:
        if self._next(b"$"):
            kind = self._take(1)
            if kind not in _NUMBERS or not self._next(b"#"):
                raise UbjsonError("the file is damaged or truncated")
            dtype = np.dtype(_NUMBERS[kind][1])
            return np.frombuffer(self._take(self._count() * dtype.itemsize), dtype)
        if self._next(b"#"):
            return [self.value(depth=depth) for _ in range(min(self._count(), len(self._content)))]
        values = []
        while not self._next(b"]"):
            values.append(self.value(depth=depth))
        return values

    def _object(self, depth: int) -> dict[str, Any]:
        values = {}
        if self._next(b"#"):
            for _ in range(min(self._count(), len(self._content))):
                key = self._text()
                values[key] = self.value(depth=depth)
            return values
        while not self._next(b"}"):
            key = self._text()
            values[key] = self.value(depth=depth)
        return values
