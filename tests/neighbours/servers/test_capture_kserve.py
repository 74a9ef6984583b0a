"""KServe's own logger before a server that captures, too: its files and its events hold the same rows."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import pytest

from optimizer_jobs.data.volumes import file_digest
from retune.api.production import CaptureFormat, Production
from retune.contract.paths import PRIVATE_ADDRESSES_VARIABLE
from tests.neighbours import kserve_logger
from tests.neighbours.answering import answering
from tests.neighbours.captures import OWN, REQUESTS, WINDOW_REQUESTS, ask_all, assert_same, at, read, sent
from tests.neighbours.windows import Champion, learnt, verdicts
from tests.storage import servers
from tests.storage.servers import BUCKET, Store, listens
from tests.unit.jobs.captured_for_tests import DIGEST, REQUEST_ROWS, Shop
from tests.unit.jobs.conftest import Claims
from tools.localcluster.controlplane import free_ports
from tools.localcluster.shell import wait_for

pytestmark = pytest.mark.timeout(300)
LOGGED = at(f"s3://{BUCKET}/{kserve_logger.STORED}", CaptureFormat.KSERVE)
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


def log(
    shop: Shop,
    bucket: Store,
    folder: Path,
    *more: str,
    written: tuple[str, int],
    requests: int = REQUESTS,
    digest: str = DIGEST,
) -> None:
    """Ask the server through the logger, until all is in files of a format with so many records."""
    file_format, batch = written
    logger, variables = kserve_logger.to_bucket(bucket, folder, file_format, batch)
    stored = folder / "s3" / "root" / BUCKET / kserve_logger.STORED
    with (
        answering(shop.session, shop.captured, digest) as port,
        kserve_logger.before(port, folder, *logger, *more, environment=variables) as before,
    ):
        ask_all(before, sent(shop, requests))
        expected = 2 * requests // batch
        wait_for(lambda: len(list(stored.glob(f"*.{file_format}"))) >= expected, what="the files", seconds=30)


@pytest.mark.parametrize("written", [("parquet", 1), ("parquet", 8), ("json", 1), ("json", 8)])
def test_files_in_a_bucket_hold_the_rows_that_the_server_captures(
    shop: Shop, bucket: Store, tmp_path: Path, written: tuple[str, int]
) -> None:
    """JSON, bytes and version 1, one record a file or many: the same ids, rows, inputs and outputs to the last bit."""
    log(shop, bucket, tmp_path, written=written)
    found = read(LOGGED, shop, tmp_path / "theirs")
    assert_same(found, read(OWN, shop, tmp_path / "own"))
    assert (len(found), found.violations, dict(found.set_aside)) == (REQUESTS * REQUEST_ROWS, (), {})


def test_the_annotation_with_the_uri_says_which_bundle_answered(shop: Shop, bucket: Store, tmp_path: Path) -> None:
    """A pod that has another version still is not taken for the champion."""
    annotated = f"--metadata-annotations={kserve_logger.ANNOTATION}=pvc://store/digits/bundles/{OTHER}"
    log(shop, bucket, tmp_path, annotated, written=("parquet", 8))
    assert set(read(LOGGED, shop, tmp_path / "all", models=None).models) == {f"sha256:{OTHER}"}
    champions = read(LOGGED, shop, tmp_path / "champions")
    assert (len(champions), dict(champions.set_aside)) == (0, {"rows of another model": REQUESTS * REQUEST_ROWS})


@pytest.mark.parametrize("file_format", ["parquet", "json"])
def test_a_window_says_the_same_and_teaches_the_same(
    shop: Shop, champion: Champion, bucket: Store, tmp_path: Path, file_format: str
) -> None:
    """The check's numbers are those of our own capture; so are a run's rows, split alike where times are known."""
    log(
        shop,
        bucket,
        tmp_path,
        written=(file_format, 8),
        requests=WINDOW_REQUESTS,
        digest=champion.bundle.digest,
    )
    own, theirs = champion.check(OWN), champion.check(LOGGED)
    assert verdicts(theirs) == verdicts(own)
    assert own.samples == WINDOW_REQUESTS * REQUEST_ROWS
    mine = learnt(champion.gather(OWN, "own"), shop, tmp_path / "mine")
    found = learnt(champion.gather(LOGGED, "theirs"), shop, tmp_path / "theirs")
    if file_format == "json":
        assert found == mine
    else:
        assert sorted(chain(*found.values())) == sorted(chain(*mine.values()))


@contextmanager
def collecting(claims: Claims, model: str, folder: str) -> Iterator[int]:
    """Run the collector of events; yields its port, and has it write all when it ends."""
    (port,) = free_ports(1)
    words = ["-m", "optimizer_jobs.production.collector", "--model", model, "--folder", folder, "--port", str(port)]
    process = subprocess.Popen([sys.executable, *words], env={**os.environ, "RETUNE_CLAIM_ROOT": str(claims.root)})
    try:
        wait_for(lambda: listens(port), what="the collector", seconds=60)
        yield port
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def test_events_hold_the_rows_that_the_server_captures(shop: Shop, claims: Claims, tmp_path: Path) -> None:
    """The logger's CloudEvents, with bytes and version 1 among them, become the same files through the collector."""
    digest = file_digest(claims.path("pvc://digits/mlp.onnx"))
    with (
        collecting(claims, "pvc://digits/mlp.onnx", "pvc://shop/collected") as sink,
        answering(shop.session, shop.captured, digest) as port,
        kserve_logger.before(port, tmp_path, f"--log-url=http://127.0.0.1:{sink}/") as before,
    ):
        ask_all(before, sent(shop))
        log_file = tmp_path / "agent.log"
        wait_for(
            lambda: log_file.read_text().count("Sent with status code 200") >= 2 * REQUESTS,
            what="the events",
            seconds=30,
            hint=lambda: log_file.read_text()[-2000:],
        )
    found = read(Production(uri="pvc://shop/collected"), shop, tmp_path / "theirs", models={digest})
    assert_same(found, read(OWN, shop, tmp_path / "own", models={digest}))
    assert len(found) == REQUESTS * REQUEST_ROWS
