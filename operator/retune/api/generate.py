"""Write the generated CRDs, or check that they are fresh: `python -m retune.api.generate [--check] [FOLDER ...]`.

They go to `crds/`, for `kubectl apply`, and to the chart's files, from which a template renders them: Helm would never
upgrade what lies in a chart's own crds folder.
"""

import argparse
import sys
from pathlib import Path

import yaml

from retune.api.base import Json
from retune.api.crd import modeloptimization_crd, optimizationrun_crd

_HEADER = "# Generated from operator/retune/api by `make crds`. Do not edit.\n"


def documents() -> dict[str, str]:
    """Return the text of each generated CRD by the name of its file."""
    crds = [modeloptimization_crd(), optimizationrun_crd()]
    return {f"{crd['spec']['names']['plural']}.yaml": _yaml(crd) for crd in crds}


def main(argv: list[str] | None = None) -> int:
    """Write or check every CRD.

    Args:
        argv: Words of the command line; those of the process where they are left out.

    Returns:
        The exit code: 1 when `--check` found a stale file.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only say whether the files are fresh")
    parser.add_argument("folders", nargs="*", type=Path, default=[Path("crds"), Path("charts/retune/files/crds")])
    options = parser.parse_args(argv)
    stale = [
        folder / name
        for folder in options.folders
        for name, content in documents().items()
        if not _fresh(folder / name, content)
    ]
    if options.check:
        for path in stale:
            sys.stderr.write(f"{path} is stale: run `make crds`\n")
        return 1 if stale else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(documents()[path.name], encoding="utf-8")
        sys.stdout.write(f"wrote {path}\n")
    return 0


def _fresh(path: Path, content: str) -> bool:
    return path.exists() and path.read_text(encoding="utf-8") == content


class _Plain(yaml.SafeDumper):
    """Writes repeated parts out instead of as anchors."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _yaml(crd: Json) -> str:
    return _HEADER + yaml.dump(crd, Dumper=_Plain, sort_keys=False, width=120, allow_unicode=True)


if __name__ == "__main__":
    sys.exit(main())
