"""The build backend of the distribution `retune-runtime`: setuptools, given the listed modules of this repository.

Modules are copied to a temporary folder for the build and nowhere else. The same sources give the same bytes, with one
version of Python and setuptools.
"""

import contextlib
import os
import shutil
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

from setuptools import build_meta

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
ROOTS = {"retune": REPOSITORY / "operator", "optimizer_jobs": REPOSITORY}
"""Folder that each package lies in."""

_OLDEST = "315532800"
"""The first second that a ZIP file can name, in seconds since 1970: nothing says when the wheel was built."""


def modules() -> list[str]:
    """Return the names of the modules and packages that the wheel has besides `retune_runtime`."""
    document = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))
    return list(document["tool"]["retune-runtime"]["modules"])


def source_of(module: str) -> Path:
    """Return the file of a module or package; raises FileNotFoundError where there is none."""
    base = ROOTS[module.partition(".")[0]] / module.replace(".", "/")
    for path in (base / "__init__.py", base.with_suffix(".py")):
        if path.is_file():
            return path
    raise FileNotFoundError(f"{module}: pyproject.toml lists it, and there is no such module.")


def stage(folder: Path) -> None:
    """Copy everything that the wheel is built from into `folder`."""
    for name in ("pyproject.toml", "README.md", "retune_runtime.py"):
        _copy(HERE / name, folder / name)
    _copy(REPOSITORY / "LICENSE", folder / "LICENSE")
    for module in modules():
        source = source_of(module)
        _copy(source, folder / source.relative_to(ROOTS[module.partition(".")[0]]))


def build_wheel(
    wheel_directory: str,
    config_settings: dict[str, str | list[str] | None] | None = None,
    metadata_directory: str | None = None,
) -> str:
    """Build the wheel and return its file name; a hook of PEP 517."""
    target = str(Path(wheel_directory).resolve())
    with tempfile.TemporaryDirectory() as folder:
        stage(Path(folder))
        with _reproducible(folder):
            return str(build_meta.build_wheel(target, config_settings, metadata_directory))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o644)


@contextlib.contextmanager
def _reproducible(folder: str) -> Iterator[None]:
    """Work in `folder`, with file modes and times that are the same everywhere."""
    before = os.umask(0o022)
    os.environ["SOURCE_DATE_EPOCH"] = _OLDEST
    try:
        with contextlib.chdir(folder):
            yield
    finally:
        os.umask(before)
