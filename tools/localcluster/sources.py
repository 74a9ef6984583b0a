"""Which files an image is built from, and their hash: so that nothing is rebuilt when nothing changed.

Only what the Dockerfile copies counts. A source with a variable counts as the whole build context.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

SKIPPED_FOLDERS = {"__pycache__", "node_modules"}
IGNORE_FILES = (".dockerignore", ".containerignore")


def fingerprint(dockerfile: Path, context: Path, *, extra: Iterable[str]) -> str:
    """Hash of the Dockerfile, of every file it copies, and of `extra` (base image, build arguments)."""
    digest = hashlib.sha256(dockerfile.read_bytes())
    for text in extra:
        digest.update(b"\0" + text.encode())
    for path in sorted(files(dockerfile, context)):
        mode = "x" if os.access(path, os.X_OK) else "-"
        digest.update(f"\0{path.relative_to(context)}\0{mode}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def files(dockerfile: Path, context: Path) -> set[Path]:
    """Every file of the context that the Dockerfile may read."""
    found = {context / name for name in IGNORE_FILES if (context / name).is_file()}
    for source in copied(dockerfile.read_text()):
        pattern = source.strip("/")
        whole = "$" in pattern or pattern in ("", ".")
        for top in [context] if whole else context.glob(pattern.removeprefix("./")):
            found.update(below(top))
    return found


def below(top: Path) -> Iterator[Path]:
    """The file itself, or all files of a folder but caches and hidden folders."""
    if top.is_file():
        yield top
    for folder, folders, names in os.walk(top):
        folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS and not name.startswith(".")]
        yield from (Path(folder) / name for name in names if (Path(folder) / name).is_file())


def copied(text: str) -> Iterator[str]:
    """Sources of COPY and ADD from the context, and of bind mounts."""
    joined = re.sub(r"\\\s*\n", " ", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE))
    for line in joined.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word.upper() in ("COPY", "ADD"):
            yield from copy_sources(rest.strip())
        elif word.upper() == "RUN":
            yield from bind_sources(rest)


def copy_sources(rest: str) -> list[str]:
    """Sources of one COPY; none when it copies from another stage."""
    words = rest.split()
    flags = [word for word in words if word.startswith("--")]
    if any(flag.startswith("--from=") for flag in flags):
        return []
    plain = rest.partition("[")
    if plain[1] and plain[0].split() == flags:
        return list(json.loads(plain[1] + plain[2]))[:-1]
    return [word for word in words if not word.startswith("--")][:-1]


def bind_sources(rest: str) -> Iterator[str]:
    """Sources of `RUN --mount=type=bind` from the context."""
    for mount in re.findall(r"--mount=(\S+)", rest):
        options = dict(part.partition("=")[::2] for part in mount.split(","))
        if options.get("type", "bind") == "bind" and "from" not in options:
            yield options.get("source") or options.get("src") or "."
