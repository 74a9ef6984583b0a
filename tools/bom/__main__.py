"""Write the bill of materials of every image into a folder: `python -m tools.bom [--folder out/images]`."""

import argparse
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from tools.bom.bill import bill, encoded
from tools.localcluster.images import IMAGES
from tools.localcluster.settings import REPOSITORY


def main(argv: Sequence[str] | None = None) -> int:
    """Write one file an image, and say where."""
    options = argparse.ArgumentParser(prog="python -m tools.bom", description=__doc__)
    options.add_argument("--folder", type=Path, default=Path("out/images"), help="where to (default: %(default)s)")
    options.add_argument("--machine", default=platform.machine(), help="processor of the images (default: this one's)")
    chosen = options.parse_args(argv)
    chosen.folder.mkdir(parents=True, exist_ok=True)
    for image in IMAGES:
        document = bill(image.name, REPOSITORY / image.dockerfile, root=REPOSITORY, machine=chosen.machine)
        path = chosen.folder / f"{image.name}.cdx.json"
        path.write_bytes(encoded(document))
        sys.stdout.write(f"{path}: {len(document['components'])} components\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
