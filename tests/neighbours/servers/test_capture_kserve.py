"""KServe's own logger before a server that captures, too: its files and its events hold the same rows."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from optimizer_jobs.production.windows import Captured
from retune.api.production import CaptureFormat, Production
from retune.contract.paths import PRIVATE_ADDRESSES_VARIABLE
from tests.neighbours import kserve_logger
from tests.neighbours.answering import answering
from tests.neighbours.captures import OWN, REQUESTS, ask_all, assert_same, at, read, sent
from tests.storage import servers
from tests.storage.servers import BUCKET, Store
from tests.unit.jobs.captured_for_tests import DIGEST, REQUEST_ROWS, Shop
from tools.localcluster.shell import wait_for

pytestmark = pytest.mark.timeout(300)
OTHER = "cd" * 32


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A bucket as a Job meets it."""
    monkeypatch.setenv(PRIVATE_ADDRESSES_VARIABLE, "Allow")
    (tmp_path / "s3").mkdir()
    with servers.s3(tmp_path / "s3") as store:
        for name, value in store.environment.items():
            monkeypatch.setenv(name, value)
        yield store


@pytest.fixture
def logged() -> Production:
    """Where KServe's files are."""
    return at(f"s3://{BUCKET}/{kserve_logger.STORED}", CaptureFormat.KSERVE)


def asked(shop: Shop, bucket: Store, folder: Path, file_format: str, batch: int, *more: str) -> Captured:
    """Ask the server through the logger; returns what the server has captured itself."""
    logger, variables = kserve_logger.to_bucket(bucket, folder, file_format, batch)
    stored = folder / "s3" / "root" / BUCKET / kserve_logger.STORED
    with (
        answering(shop.session, shop.captured, DIGEST) as port,
        kserve_logger.before(port, folder, *logger, *more, environment=variables) as before,
    ):
        ask_all(before, sent(shop))
        expected = 2 * REQUESTS // batch
        wait_for(lambda: len(list(stored.glob(f"*.{file_format}"))) >= expected, what="the files", seconds=30)
    return read(OWN, shop, folder / "own")


@pytest.mark.parametrize(("file_format", "batch"), [("parquet", 1), ("parquet", 8), ("json", 1), ("json", 8)])
def test_files_in_a_bucket_hold_the_rows_that_the_server_captures(
    shop: Shop, bucket: Store, logged: Production, tmp_path: Path, file_format: str, batch: int
) -> None:
    """JSON, bytes and version 1, one record a file or many: the same ids, rows, inputs and outputs to the last bit."""
    own = asked(shop, bucket, tmp_path, file_format, batch)
    found = read(logged, shop, tmp_path / "theirs")
    assert_same(found, own)
    assert (len(found), found.violations, dict(found.set_aside)) == (REQUESTS * REQUEST_ROWS, (), {})
