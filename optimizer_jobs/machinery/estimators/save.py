"""Write an estimator as a skops file, with the same bytes for the same estimator.

skops names arrays and objects after their address in memory and writes the time; both are replaced here.
"""

import json
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

_SCHEMA = "schema.json"
_NO_TIME = (1980, 1, 1, 0, 0, 0)


def save(estimator: Any, path: Path) -> None:
    """Write the estimator to `path`.

    Raises:
        UnsupportedTypeException: skops cannot store some part of it.
    """
    from skops import io

    with zipfile.ZipFile(BytesIO(io.dumps(estimator))) as source, zipfile.ZipFile(path, "w") as target:
        schema = json.loads(source.read(_SCHEMA))
        numbers: dict[int, int] = {}
        files: dict[str, str] = {}
        _renumber(schema, numbers, files)
        for old, new in files.items():
            _add(target, new, source.read(old))
        _add(target, _SCHEMA, json.dumps(schema).encode())


def _renumber(item: Any, numbers: dict[int, int], files: dict[str, str]) -> None:
    """Number objects and arrays, in place, in the order in which they appear first."""
    if isinstance(item, list):
        for value in item:
            _renumber(value, numbers, files)
    if not isinstance(item, dict):
        return
    if isinstance(item.get("__id__"), int):
        item["__id__"] = numbers.setdefault(item["__id__"], len(numbers) + 1)
    if isinstance(item.get("file"), str) and item.get("__loader__"):
        old = item["file"]
        item["file"] = files.setdefault(old, f"{len(files)}{Path(old).suffix}")
    for value in item.values():
        _renumber(value, numbers, files)


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, date_time=_NO_TIME), content, compress_type=zipfile.ZIP_DEFLATED)
