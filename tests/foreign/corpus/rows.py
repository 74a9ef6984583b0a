"""Rows for models whose own data nobody ships: lines of text as pictures, files as bytes, tones. All are seeded."""

import json
import marshal
import sysconfig
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tests.foreign.delivered import Array

_LETTERS = list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,-")


def lines(count: int, *, height: int = 48, width: int = 192, lines_: int = 1, seed: int = 0) -> Array:
    """Return pictures (N, 3, height, width) of noisy lines of random letters, between -1 and 1."""
    random = np.random.default_rng(seed)
    return np.stack([_line(random, height, width, lines_) for _ in range(count)])


def _line(random: np.random.Generator, height: int, width: int, lines_: int) -> Array:
    background, ink = int(random.integers(150, 255)), int(random.integers(0, 110))
    picture = Image.new("RGB", (width, height), (background,) * 3)
    draw = ImageDraw.Draw(picture)
    for line in range(lines_):
        text = "".join(random.choice(_LETTERS, random.integers(5, width // 14)))
        font = ImageFont.load_default(size=int(random.integers(18, 30)))
        place = (int(random.integers(2, 12)), 48 * line + int(random.integers(2, 14)))
        draw.text(place, text, fill=(ink,) * 3, font=font)
    pixels = np.asarray(picture, np.float32) + random.normal(0, float(random.uniform(2, 30)), (height, width, 3))
    return np.asarray((np.clip(pixels, 0, 255) / 127.5 - 1).transpose(2, 0, 1), np.float32)


def tones(count: int, samples: int, *, rate: int, seed: int = 0) -> tuple[Array, Array]:
    """Return sounds (N, samples), and whether each has the harmonics of a voice beside the noise."""
    random = np.random.default_rng(seed)
    time = np.arange(samples) / rate
    voiced = random.integers(0, 2, count)
    pitch = random.uniform(90, 250, count)
    harmonics = [
        np.sin(2 * np.pi * np.outer(pitch * number, time) + random.uniform(0, 6, (count, 1))) / number
        for number in range(1, 9)
    ]
    sound = 0.15 * sum(harmonics) * voiced[:, np.newaxis] + random.normal(0, 0.02, (count, samples))
    return np.asarray(sound, np.float32), voiced


def files(each: int, *, seed: int = 0) -> dict[str, list[bytes]]:
    """Return the content of files of several kinds, by kind: sources, compiled code, tables, documents, archives."""
    random = np.random.default_rng(seed)
    sources = _read(Path(sysconfig.get_path("stdlib")), ".py", each)
    headers = _read(Path(np.__file__).parent, ".h", each) + _read(Path(sysconfig.get_path("include")), ".h", each)
    compiled = [_compiled(source) for source in sources]
    made: Mapping[str, Callable[[Any], bytes]] = {"json": _json, "csv": _csv, "gzip": _gzip, "zip": _zip, "xml": _xml}
    rows = {kind: [make(random) for _ in range(each)] for kind, make in made.items()}
    return {"python": sources, "c": headers[:each], "pythonbytecode": compiled, **rows}


def _read(folder: Path, suffix: str, most: int) -> list[bytes]:
    """Return files of some size of a folder that Python comes with; those that are no UTF-8 are left out."""
    paths = (
        path for path in sorted(folder.rglob(f"*{suffix}")) if "site-packages/" not in str(path.relative_to(folder))
    )
    contents = (path.read_bytes() for path in paths if "test" not in path.parts and path.stat().st_size > 2000)
    return [content for content, _ in zip(contents, range(most), strict=False)]


def _compiled(source: bytes) -> bytes:
    """Return what Python 3.11 caches of a source file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the style of sources that are not ours
        return b"\xa7\r\r\n" + bytes(12) + marshal.dumps(compile(source, "x", "exec"))


def _words(random: np.random.Generator, count: int) -> list[str]:
    return ["".join(random.choice(_LETTERS[:52], random.integers(3, 10))) for _ in range(count)]


def _json(random: np.random.Generator) -> bytes:
    rows = [dict(zip(("id", *_words(random, 3)), random.integers(0, 999, 4).tolist(), strict=True)) for _ in range(20)]
    return json.dumps(rows, indent=int(random.integers(0, 4))).encode()


def _csv(random: np.random.Generator) -> bytes:
    table = random.normal(size=(60, 6)).round(3).tolist()
    return "\n".join([",".join(_words(random, 6)), *(",".join(map(str, row)) for row in table)]).encode()


def _gzip(random: np.random.Generator) -> bytes:
    packer = zlib.compressobj(wbits=31)
    return packer.compress(" ".join(_words(random, 600)).encode()) + packer.flush()


def _zip(random: np.random.Generator) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in _words(random, 4):
            archive.writestr(f"{name}.txt", " ".join(_words(random, 200)))
    return buffer.getvalue()


def _xml(random: np.random.Generator) -> bytes:
    rows = "".join(
        f'  <item id="{number}"><name>{word}</name></item>\n' for number, word in enumerate(_words(random, 40))
    )
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<catalog>\n{rows}</catalog>\n'.encode()
