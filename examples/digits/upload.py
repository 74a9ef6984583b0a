"""Copy the example's model and data into a bucket, for a demo without a shared volume.

The bucket's address and keys come from the environment, as Amazon's own tools have them. This file stands alone: the
demo ships it to the cluster in a ConfigMap.
"""

import argparse
import sys
from pathlib import Path

import fsspec


def upload(folder: Path, uri: str) -> list[str]:
    """Copy every file of a folder below `uri`, whose bucket is made if it is absent; returns what was written."""
    fs, place = fsspec.url_to_fs(uri)
    fs.makedirs(place, exist_ok=True)
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    for path in paths:
        fs.put_file(str(path), f"{place}/{path.name}")
    return [f"{uri}/{path.name}" for path in paths]


def main() -> int:
    """Copy the files, and print where each lies."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path, help="folder with the files")
    parser.add_argument("uri", help="s3://BUCKET/PATH")
    options = parser.parse_args()
    for uri in upload(options.folder, options.uri):
        print(uri, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
