"""Write the references below docs/reference, or check that they are fresh: `python -m tools.docs [--check]`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from retune.cli.main import parser as command_line
from tools.docs.commands import command_page
from tools.docs.kinds import KindPage, Sections

FOLDER = Path("docs/reference")
CRDS = (Path("crds/modeloptimizations.yaml"), Path("crds/optimizationruns.yaml"))
"""In this order: the second page leads to the first where both kinds have the same fields."""
COMMAND_LINE = "operator/retune/cli"


def pages(root: Path) -> dict[Path, str]:
    """Return every generated page by its path from the root."""
    sections, found = Sections(), dict[Path, str]()
    for source in CRDS:
        crd = yaml.safe_load((root / source).read_text(encoding="utf-8"))
        name = f"{crd['spec']['names']['singular']}.md"
        found[FOLDER / name] = KindPage(crd, sections, name=name, source=str(source)).text()
    found[FOLDER / "cli.md"] = command_page(command_line(), source=COMMAND_LINE)
    return found


def main(argv: Sequence[str] | None = None, *, root: Path = Path()) -> int:
    """Write or check every page; returns 1 when one is stale."""
    options = argparse.ArgumentParser(prog="python -m tools.docs", description=__doc__)
    options.add_argument("--check", action="store_true", help="only say whether the pages are fresh")
    check = options.parse_args(argv).check
    stale = {path: text for path, text in pages(root).items() if not _is_fresh(root / path, text)}
    for path, text in stale.items():
        if check:
            sys.stderr.write(f"{path} is stale: run `make docs`\n")
        else:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text, encoding="utf-8")
            sys.stdout.write(f"wrote {path}\n")
    return 1 if check and stale else 0


def _is_fresh(path: Path, text: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == text


if __name__ == "__main__":
    sys.exit(main())
