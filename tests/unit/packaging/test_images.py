"""What the images stand on, by its content, and what they carry: every module that a carried one imports is carried."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.deployed import image_environment

REPOSITORY = Path(__file__).resolve().parents[3]
DOCKERFILES = sorted(
    path for top in ("operator", "optimizer_jobs", "examples") for path in (REPOSITORY / top).rglob("*Dockerfile")
)
OURS = ("retune", "optimizer_jobs")
BASE = re.compile(r"^ARG BASE_IMAGE=(\S+)$", flags=re.MULTILINE)
FROM = re.compile(r"^FROM (.+)$", flags=re.MULTILINE)
COPY = re.compile(r"^COPY (?!--)(.+?) \S+$", flags=re.MULTILINE)


def carried(dockerfile: Path) -> set[Path]:
    """Return the Python files that an image is built with."""
    instructions = dockerfile.read_text().replace("\\\n", " ")
    sources = [REPOSITORY / source for copied in COPY.findall(instructions) for source in copied.split()]
    files = {file for source in sources for file in ([source] if source.is_file() else source.rglob("*"))}
    return {file for file in files if file.suffix == ".py"}


def files_of(module: str) -> set[Path]:
    """Return the file of one of our modules, and nothing for a name inside one."""
    base = (REPOSITORY / "operator" if module.startswith("retune") else REPOSITORY) / module.replace(".", "/")
    return {path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()}


def imported(file: Path) -> Iterator[str]:
    """Yield each of our modules, or names in them, that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] in OURS:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.split(".")[0] in OURS)


def test_all_images_stand_on_one_base_by_its_digest() -> None:
    """A tag can be given to another image between two builds; what an image stands on is named by its content."""
    bases = {BASE.findall(dockerfile.read_text())[0] for dockerfile in DOCKERFILES}
    assert len(bases) == 1
    assert re.fullmatch(r"docker\.io/library/python:3\.11-slim-bookworm@sha256:[0-9a-f]{64}", bases.pop())
    stages = [line for dockerfile in DOCKERFILES for line in FROM.findall(dockerfile.read_text())]
    assert len(stages) >= len(DOCKERFILES)
    assert set(stages) <= {"${BASE_IMAGE}", "${BASE_IMAGE} AS build"}


@pytest.mark.slow
@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_an_image_carries_whatever_it_imports(dockerfile: Path) -> None:
    """A server or a Job never dies of a module that its image was built without."""
    files = carried(dockerfile)
    missing = {
        (str(file.relative_to(REPOSITORY)), module)
        for file in files
        for module in imported(file)
        for needed in files_of(module)
        if needed not in files
    }
    assert files
    assert missing == set()


def test_benches_give_the_operator_what_its_image_gives_it() -> None:
    """Its memory depends on it: each thread would have a part of its own. Places inside the image stay there."""
    found = image_environment()
    assert found["MALLOC_ARENA_MAX"] == "2"
    assert found["PYTHONUNBUFFERED"] == "1"
    assert not {"PATH", "PYTHONPATH", "HOME"} & set(found)
