"""Captured files are removed from buckets of real servers after their retention, and nothing else is."""

import io
from collections.abc import Callable
from uuid import uuid4

import pyarrow as pa
import pytest
from pyarrow import parquet

from optimizer_jobs.production.layout import folder_of
from optimizer_jobs.production.retention import prune
from optimizer_jobs.stores.opening import open_store
from retune.api.production import Production
from tests.storage.proxy import Answer, Proxy
from tests.storage.servers import BUCKET, Store
from tests.unit.jobs.captured_for_tests import HOUR, NOW, Shop
from tests.unit.jobs.conftest import claims, delivered, shop

pytest.importorskip("s3fs")

__all__ = ["claims", "delivered", "shop"]

OLD = NOW - 30 * HOUR


@pytest.fixture
def production(scheme: str, shop: Shop, server_of: Callable[[str], Store]) -> Production:
    """Five captured files of three hours, the last of which is young, and a file of others beside them."""
    folder = f"captured-{uuid4().hex}"
    for hours in (0, 6, 6, 30, 30):
        shop.serve([hours], since=NOW - hours * HOUR)
    foreign = io.BytesIO()
    parquet.write_table(pa.table({"x": [1, 2]}), foreign)
    shop.file("foreign.parquet", hour=OLD).write_bytes(foreign.getvalue())
    for path in shop.captured.rglob("*.parquet"):
        server_of(scheme).put(f"{folder}/{path.relative_to(shop.captured)}", path.read_bytes())
    return Production(uri=f"{scheme}://{BUCKET}/{folder}", retention="5h")


def left(production: Production) -> list[str]:
    """Folders of the files that are there, and the names of those that no writer gave."""
    keys = [stat.key for stat in open_store(production.uri).stats("")]
    return [key if "foreign" in key else key.rpartition("/")[0] for key in keys]


YOUNG, FOREIGN = folder_of(NOW), f"{folder_of(OLD)}/foreign.parquet"


def asks_to_remove(head: bytes) -> bool:
    """Whether a request asks a server of any protocol to delete objects."""
    return head.startswith(b"DELETE ") or (head.startswith(b"POST ") and b"?delete" in head.partition(b"\r\n")[0])


@pytest.mark.parametrize("scheme", ["s3", "gs", "az"])
def test_what_is_past_its_retention_goes_and_a_refusal_costs_no_window(
    production: Production, between: Proxy, capsys: pytest.CaptureFixture[str]
) -> None:
    """A young hour and a file of others stay; where nothing may be removed, that is told, and the check goes on."""
    before = left(production)
    assert len(before) == 6
    between.plan = lambda head: Answer(403, "AccessDenied") if asks_to_remove(head) else None
    assert prune(production, now=NOW) == 0
    told = capsys.readouterr().out
    assert f"captured files past their retention stay in {production.uri}: the credentials may read there" in told
    assert "set production.retention to 0s, and give the bucket a lifecycle rule" in told
    assert left(production) == before

    between.plan = lambda head: None
    between.requests.clear()
    assert prune(production, now=NOW) == 4
    assert not any(YOUNG.encode() in line for line in between.requests), "what is young was not looked into"
    assert sorted(left(production)) == [FOREIGN, YOUNG]
    assert capsys.readouterr().out == ""
    assert prune(production, now=NOW) == 0


@pytest.mark.parametrize("scheme", ["s3"])
def test_a_folder_that_may_not_be_listed_costs_no_window(
    production: Production, between: Proxy, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor does one whose server wants fewer requests, which is no fault of a person."""
    between.plan = lambda head: Answer(403, "AccessDenied") if b"list-type" in head else None
    assert prune(production, now=NOW) == 0
    assert "the credentials do not allow reading there. Let the Secret" in capsys.readouterr().out
    between.plan = lambda head: Answer(503, "SlowDown") if asks_to_remove(head) else None
    assert prune(production, now=NOW) == 0
    assert "The next check tries again." in capsys.readouterr().out
    between.plan = lambda head: None
    assert prune(production, now=NOW) == 4
