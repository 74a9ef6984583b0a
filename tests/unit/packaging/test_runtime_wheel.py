"""The wheel for servers of others: closed, small, the same bytes each time, and of the modules that the Jobs use."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from wheel_builder import HERE, REPOSITORY, modules, source_of

from retune import __version__
from tests.unit.packaging.isolation import NOTHING_ELSE
from tests.unit.packaging.test_extras import closure, name_of

Json = dict[str, Any]
WHEEL: Json = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]
PROJECT: Json = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
FACADE = "retune_runtime"
BY_NAME = {f"optimizer_jobs.models.{engine}" for engine in ("ort", "openvino", "tensorrt")}
"""Modules that are imported by a name in a table: the engines."""
DISTRIBUTIONS = {
    "azure": "azure-storage-blob",
    "google": "protobuf",
    "prometheus_client": "prometheus-client",
    "pydantic_core": "pydantic-core",
}
"""Distributions that are not called as what is imported."""
FORBIDDEN = ("aiohttp", "evidently", "fsspec", "kopf", "kubernetes", "optuna", "pandas", "scipy", "sklearn", "torch")
IMPORT_ALONE = f"""
{NOTHING_ELSE}
import retune_runtime
assert retune_runtime.__file__.startswith(sys.argv[2]), retune_runtime.__file__
import optimizer_jobs.models.runtime as runtime
assert runtime.__file__.startswith(sys.argv[2]), runtime.__file__
served = retune_runtime.open(sys.argv[3])
print(served.check_golden(), served.bundle_digest, *sorted(name for name in sys.modules if "." not in name))
"""
"""Imports the unpacked wheel, and serves a bundle, where only what it declares can be imported."""


def file_of(module: str) -> Path:
    """Return the file of a module of the wheel."""
    return HERE / "retune_runtime.py" if module == FACADE else source_of(module)


def imported(module: str) -> Iterator[str]:
    """Yield what a module imports, anywhere in it but for types alone: modules of ours, and names of others."""
    waiting: list[ast.AST] = [ast.parse(file_of(module).read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (inside_of(node.module, alias.name) for alias in node.names)


def inside_of(package: str, name: str) -> str:
    """Return the module that `from package import name` imports."""
    is_ours = package.partition(".")[0] in {"retune", "optimizer_jobs"}
    return f"{package}.{name}" if is_ours and exists(f"{package}.{name}") else package


def exists(module: str) -> bool:
    """Return whether the repository has a module."""
    try:
        source_of(module)
    except FileNotFoundError:
        return False
    return True


def parents(module: str) -> set[str]:
    """Return the packages that a module lies in."""
    parts = module.split(".")
    return {".".join(parts[:count]) for count in range(1, len(parts))}


def reached() -> tuple[set[str], set[str]]:
    """Return the modules of ours that the facade leads to, and the top names of all others."""
    waiting, ours, others = [FACADE, *BY_NAME], set[str](), set[str]()
    while waiting:
        module = waiting.pop()
        if module in ours:
            continue
        ours.add(module)
        for name in imported(module):
            if name.partition(".")[0] in {"retune", "optimizer_jobs"}:
                waiting += [name, *parents(name)]
            else:
                others.add(name.partition(".")[0])
        waiting += parents(module)
    return ours - {FACADE}, others - set(sys.stdlib_module_names)


def test_the_list_of_modules_is_closed_and_has_nothing_in_excess() -> None:
    """Every module that one of them imports, wherever in it, is there too; none is there that nothing leads to."""
    ours, _ = reached()
    assert sorted(ours) == modules()
    assert len(ours) < 120


def test_engines_are_those_that_a_bundle_may_name() -> None:
    """They are imported by name, which no reading of imports finds."""
    from optimizer_jobs.models.runtime import ENGINES

    assert set(ENGINES.values()) == BY_NAME


def test_whatever_is_imported_is_declared() -> None:
    """By the wheel or one of its extras, or by what these stand on."""
    _, others = reached()
    extras = [line for lines in WHEEL["optional-dependencies"].values() for line in lines]
    declared = set(closure([*WHEEL["dependencies"], *extras]))
    assert {DISTRIBUTIONS.get(name, name) for name in others} <= declared
    assert "onnxruntime" in others


def test_versions_are_those_that_the_jobs_run() -> None:
    """At least the same version of each library; NumPy may be newer, because servers run newer versions of Python."""
    ours = {name_of(line): line for lines in PROJECT["optional-dependencies"].values() for line in lines}
    ours |= {name_of(line): line for line in PROJECT["dependencies"]}
    theirs = [*WHEEL["dependencies"], *(line for lines in WHEEL["optional-dependencies"].values() for line in lines)]
    assert {line for line in theirs if ours[name_of(line)] != line} == {"numpy>=2.2,<3"}


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The wheel, built twice as pip builds it, with different modes for new files."""
    built: list[Path] = []
    for mask in (0o022, 0o077):
        folder = tmp_path_factory.mktemp("wheel")
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-index", "--no-deps"]
        subprocess.run([*command, "--wheel-dir", folder, HERE], check=True, timeout=100, umask=mask)
        built += folder.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_same_sources_give_the_same_wheel(wheels: list[Path]) -> None:
    """Byte for byte, and under the project's version."""
    first, second = wheels
    assert first.read_bytes() == second.read_bytes()
    assert first.name == second.name == f"retune_runtime-{__version__}-py3-none-any.whl"
    assert first.stat().st_size < 250_000


def test_the_wheel_holds_the_very_modules_of_the_jobs(wheels: list[Path]) -> None:
    """Nothing else, and no copy that could differ."""
    with zipfile.ZipFile(wheels[0]) as archive:
        held = {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}
    files = [file_of(module) for module in (FACADE, *modules())]
    assert sorted(held.values()) == sorted(file.read_bytes() for file in files)
    assert {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in held} == {
        FACADE,
        *modules(),
    }


@pytest.mark.slow
def test_a_bundle_is_served_with_what_the_wheel_declares_alone(wheels: list[Path], tmp_path: Path) -> None:
    """In a process that has the unpacked wheel and its dependencies, and can import nothing else."""
    from tests.unit.jobs.lookup_for_tests import lookup_bundle

    bundle, unpacked = lookup_bundle(tmp_path / "made"), tmp_path / "unpacked"
    with zipfile.ZipFile(wheels[0]) as archive:
        archive.extractall(unpacked)
    allowed = ",".join(closure([WHEEL["name"], *WHEEL["dependencies"]]))
    script = tmp_path / "script.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(unpacked)!r})\n{IMPORT_ALONE}")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, str(script), allowed, str(unpacked), str(bundle.folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    asked, digest, *loaded = done.stdout.split()
    assert (asked, digest) == ("1", bundle.digest)
    assert set(FORBIDDEN).isdisjoint(loaded)
    assert all(importlib.util.find_spec(name) for name in ("pandas", "sklearn")), "they could have been imported"


def test_the_readme_shows_what_the_facade_has() -> None:
    """Every name on its page, and in the quickstarts, is public."""
    import retune_runtime

    pages = [HERE / "README.md", *(REPOSITORY / "examples" / "servers").rglob("*.py")]
    named = {name for page in pages for name in re.findall(r"retune_runtime\.(\w+)", page.read_text())}
    methods = {name for page in pages for name in re.findall(r"\bserved\.(\w+)", page.read_text())}
    assert named <= set(retune_runtime.__all__)
    assert {"from_environment", "InputError", "EngineError"} <= named
    assert methods <= set(dir(retune_runtime.Served))
    assert "answer" in methods
