"""An image is rebuilt when, and only when, something that its Dockerfile reads has changed."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tools.localcluster.sources import copied, fingerprint

DOCKERFILE = """\
# a comment
ARG BASE
FROM ${BASE}
COPY --chown=1:1 lock.txt \\
    /app/
COPY src /app/src
COPY --from=other /bin/x /bin/x
RUN --mount=type=bind,source=tools,target=/t --mount=type=cache,target=/c make
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A build context with what the Dockerfile copies, and more."""
    for name in ("lock.txt", "src/a.py", "src/__pycache__/a.pyc", "tools/t.sh", "notes.md"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    return tmp_path


def test_sources_are_those_of_the_context() -> None:
    """Flags, other stages, caches and comments name no source; a continued line is one line."""
    assert list(copied(DOCKERFILE)) == ["lock.txt", "src", "tools"]


def test_the_json_form_of_copy_is_read() -> None:
    """Names with spaces need it."""
    assert list(copied('COPY ["a b.txt", "c.txt", "/app/"]')) == ["a b.txt", "c.txt"]


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "src/a.py").write_text("changed"),
        lambda root: (root / "src/new.py").write_text("new"),
        lambda root: (root / "lock.txt").chmod(0o755),
        lambda root: (root / ".dockerignore").write_text("x"),
    ],
    ids=["content", "new file", "mode", "ignore file"],
)
def test_a_change_of_what_is_read_changes_the_fingerprint(context: Path, change: Callable[[Path], object]) -> None:
    """Content, presence and mode of every copied file count."""
    before = fingerprint(context / "Dockerfile", context, extra=())
    change(context)
    assert fingerprint(context / "Dockerfile", context, extra=()) != before


def test_a_change_of_anything_else_does_not(context: Path) -> None:
    """Caches and files that are not copied rebuild nothing."""
    before = fingerprint(context / "Dockerfile", context, extra=())
    (context / "notes.md").write_text("changed")
    (context / "src/__pycache__/a.pyc").write_text("changed")
    assert fingerprint(context / "Dockerfile", context, extra=()) == before


def test_the_base_image_counts(context: Path) -> None:
    """Another base or build argument is another image."""
    one = fingerprint(context / "Dockerfile", context, extra=("base:1",))
    assert fingerprint(context / "Dockerfile", context, extra=("base:2",)) != one
