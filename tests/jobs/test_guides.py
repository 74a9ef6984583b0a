"""The pages that work without a cluster, done from top to bottom as a reader does them, in one folder a page.

Only two things are shorter than a reader's day: the search gets a few trials and one finalist where the manifest leaves
both to their defaults, and of several optimizations on a page the last one is run.
"""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from retune.cli.local.optimize import read_manifest
from tests.unit.docs.manual import ROOT, SHELL, pages
from tests.unit.docs.shell import commands
from tests.unit.jobs import models_for_tests as models
from tools.docs.markdown import Block, Page

OF_RETUNE = {"init", "optimize"}
"""Commands that need no cluster."""
OF_CLUSTERS = {"kubectl", "helm", "docker", "kind"}
"""A block with one of these is for whoever has a cluster."""
SHORT = "  search: {maxTrials: 3, finalists: 1}"
PYTHON = """#!/bin/sh
exec {python} "$@"
"""
RETUNE = """#!/bin/sh
{python} -m retune.cli.main "$@" || exit
[ "$1" != init ] || for made in *.yaml; do grep -q '^  search:' "$made" || echo '{short}' >> "$made"; done
"""
"""The command line; a manifest that it writes gets the short search."""
SECONDS = 300


def is_for_here(block: Block) -> bool:
    """Whether a block runs `retune init` or `retune optimize` and nothing that needs a cluster."""
    said = list(commands(block.text)) if block.language in SHELL else []
    ours = {words[1] for words in said if Path(words[0]).name == "retune" and len(words) > 1}
    return bool(ours) and ours <= OF_RETUNE and not {Path(words[0]).name for words in said} & OF_CLUSTERS


def steps(page: Path) -> list[Block]:
    """Return what a reader does on a page without a cluster, in order; of several optimizations, the last alone."""
    blocks = [
        block
        for block in Page.read(page).blocks("python", *SHELL)
        if not block.file and (block.language == "python" or is_for_here(block))
    ]
    optimizations = [block for block in blocks if block.language != "python" and "retune optimize" in block.text]
    return [block for block in blocks if block not in optimizations[:-1]]


def is_guide(page: Path) -> bool:
    """Whether a page makes a model and optimizes it here."""
    done = steps(page)
    return any(block.language == "python" for block in done) and any(is_for_here(block) for block in done)


LOCAL = ROOT / "docs" / "local.md"
GUIDES = [page for page in pages() if is_guide(page)]


class Reader:
    """Someone who follows a page in an empty folder, with the command line on the PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "work"
        self.folder.mkdir()
        programs = folder / "bin"
        programs.mkdir()
        python = shlex.quote(sys.executable)
        for name, script in {"python": PYTHON, "python3": PYTHON, "retune": RETUNE}.items():
            (programs / name).write_text(script.format(python=python, short=SHORT))
            (programs / name).chmod(0o755)
        self._environment = os.environ | {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}",
            "KUBECONFIG": str(folder / "none"),
        }

    def follow(self, block: Block) -> None:
        """Do what a block says."""
        program = ["python", "-c"] if block.language == "python" else ["bash", "-euo", "pipefail", "-c"]
        done = subprocess.run(
            [*program, block.text],
            cwd=self.folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"line {block.line}: {done.stdout}{done.stderr}"


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    """Someone in an empty folder."""
    return Reader(tmp_path)


def test_there_is_a_guide() -> None:
    """Without one, the test below would hold for no page."""
    assert LOCAL in GUIDES


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", GUIDES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_guide_works_from_top_to_bottom(page: Path, reader: Reader) -> None:
    """Every block of Python and every command that needs no cluster does what the next one builds on."""
    for block in steps(page):
        reader.follow(block)
    assert list(reader.folder.glob("*/*/runs/*/report.html"))


def test_the_readme_begins_with_a_manifest_that_can_be_read(reader: Reader) -> None:
    """Its `retune init` writes what its `retune optimize` names; the guide runs such an optimization to its end."""
    models.save_mlp(reader.folder / "model.onnx", models.fit_mlp())
    (reader.folder / "data").mkdir()
    models.save_digits(reader.folder / "data")
    shown = [words for block in steps(ROOT / "README.md") for words in commands(block.text)]
    (init,) = (words for words in shown if words[1] == "init")
    (optimize,) = (words for words in shown if words[1] == "optimize")
    reader.follow(Block("sh", shlex.join(init), 0, ""))
    written = read_manifest(reader.folder / optimize[optimize.index("-f") + 1])
    assert {written.spec.data.training, written.spec.data.test}.isdisjoint({None})
    assert written.spec.model.uri.split("/")[2] == optimize[optimize.index("--claim") + 1].partition("=")[0]
