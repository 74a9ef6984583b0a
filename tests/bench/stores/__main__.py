"""What stores cost, and how many workers share a search: `python -m tests.bench.stores [--parts ...]`.

`objects` is of single objects, bundles and appends; `searches` of up to eight real processes that share a study, beside
Optuna's own storage in PostgreSQL; `crowd` of 64 workers on a clock that jumps.
"""

import argparse
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console

from retune.contract.paths import PRIVATE_ADDRESSES_VARIABLE
from tests.bench.stores import postgres
from tests.bench.stores.crowds import tables_of_crowds
from tests.bench.stores.objects import table_of_objects
from tests.bench.stores.searches import Contestant, in_a_database, in_a_store, table_of_searches
from tests.storage import servers

PARTS = ("objects", "searches", "crowd")


def main() -> None:
    """Measure and print the tables."""
    options = _options()
    console = Console(width=140)
    with tempfile.TemporaryDirectory() as name, _served(Path(name)) as bucket, ExitStack() as stack:
        folder = Path(name)
        if "objects" in options.parts:
            scratch = folder / "scratch"
            scratch.mkdir()
            console.print(table_of_objects({"folder": f"file://{folder}/store", "S3": bucket}, scratch))
        if "searches" in options.parts:
            contestants = _contestants(f"file://{folder}/files", bucket, options, stack)
            console.print(table_of_searches(contestants, options))
        if "crowd" in options.parts:
            for table in tables_of_crowds(bucket, options.crowd):
                console.print(table)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--trials", type=int, default=20, help="trials a worker")
    parser.add_argument("--trial-seconds", type=float, default=1.0)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--drivers", help="folder with the driver of PostgreSQL; without, its storage is left out")
    parser.add_argument("--crowd", type=int, default=64, help="workers of the largest crowd")
    return parser.parse_args()


def _contestants(folder: str, bucket: str, options: argparse.Namespace, stack: ExitStack) -> dict[str, Contestant]:
    found = {"file": in_a_store(folder, file=True), "S3": in_a_store(bucket)}
    if options.drivers and postgres.tools() is not None:
        found["PostgreSQL"] = in_a_database(stack.enter_context(postgres.served()))
    else:
        print("PostgreSQL is left out: it needs Debian's package `postgresql`, and --drivers.")
    return found


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    """Serve a bucket, and yield its address; the environment has the credentials."""
    with servers.s3(folder / "s3") as server:
        os.environ |= {**server.environment, PRIVATE_ADDRESSES_VARIABLE: "Allow"}
        yield f"s3://{servers.BUCKET}"


if __name__ == "__main__":
    main()
