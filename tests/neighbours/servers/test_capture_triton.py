"""A real Triton's trace, and a proxy before it, hold the rows that our own server captures for the same requests."""

from itertools import chain
from pathlib import Path

import pytest

from optimizer_jobs.models.bundle import open_bundle
from optimizer_jobs.serving.render import render
from retune.api.production import CaptureFormat, Production
from retune.contract.requests import Server
from tests.neighbours.answering import answering
from tests.neighbours.captures import OWN, WINDOW_REQUESTS, ask_all, assert_same, at, read, sent
from tests.neighbours.proxying import before
from tests.neighbours.triton import serving
from tests.neighbours.windows import Champion, learnt, verdicts
from tests.unit.jobs.captured_for_tests import REQUEST_ROWS, Shop
from tests.unit.jobs.conftest import Claims

pytestmark = pytest.mark.timeout(300)
TRACED = at("pvc://shop/traces", CaptureFormat.TRITON)
PROXIED = Production(uri="pvc://shop/proxied")
DIGITS = 6
"""Significant digits of a float in a trace."""


def ask_everybody(shop: Shop, champion: Champion, claims: Claims, folder: Path, *levels: str) -> None:
    """Ask Triton, through a proxy, and our own server the same, in JSON and in bytes."""
    bundle = open_bundle(champion.bundle.uri, digest=champion.bundle.digest)
    render(bundle, Server.TRITON, name="digits", into=folder / "rendered")
    traces = claims.path(TRACED.uri)
    traces.mkdir(parents=True)
    (folder / "triton").mkdir()
    flags = [f"--trace-config=triton,file={traces}/trace.json", "--trace-config=triton,log-frequency=10"]
    flags += ["--trace-config=rate=1", *(f"--trace-config=level={level}" for level in levels)]
    requests = sent(shop, WINDOW_REQUESTS, kinds=("json", "binary"))
    with serving(folder / "rendered", folder / "triton", *flags) as triton:
        port = int(triton.address.rpartition(":")[2])
        with before(port, claims.root, model="pvc://digits/mlp.onnx", folder=PROXIED.uri, log=folder) as proxy:
            ask_all(proxy, requests)
    with answering(shop.session, shop.captured, champion.bundle.digest) as port:
        ask_all(port, requests)


def test_trace_and_proxy_hold_the_rows_that_our_server_captures(
    shop: Shop, champion: Champion, claims: Claims, tmp_path: Path
) -> None:
    """The trace to six digits, the proxy to what two releases of ONNX Runtime differ; and windows say the same."""
    ask_everybody(shop, champion, claims, tmp_path, "TIMESTAMPS", "TENSORS")
    models = {champion.bundle.digest}
    own = read(OWN, shop, tmp_path / "own", models=models)
    traced = read(TRACED, shop, tmp_path / "traced", models=models)
    proxied = read(PROXIED, shop, tmp_path / "proxied", models=models)
    assert len(own) == WINDOW_REQUESTS * REQUEST_ROWS
    assert_same(traced, own, digits=DIGITS - 1)
    assert_same(proxied, own, digits=DIGITS)
    assert (traced.violations, dict(traced.set_aside)) == (proxied.violations, dict(proxied.set_aside)) == ((), {})
    assert abs(traced.times - proxied.times).max() < 2_000_000, "the trace's times are off by more than 2 s"
    said = verdicts(champion.check(OWN))
    assert verdicts(champion.check(TRACED))["rows"] == said["rows"]
    assert verdicts(champion.check(TRACED))["quality"] == said["quality"]
    assert verdicts(champion.check(PROXIED))["quality"] == said["quality"]
    mine = learnt(champion.gather(OWN, "own"), shop, tmp_path / "mine")
    assert learnt(champion.gather(PROXIED, "proxied"), shop, tmp_path / "theirs") == mine
    found = learnt(champion.gather(TRACED, "traced"), shop, tmp_path / "of-the-trace")
    assert sorted(chain(*found.values())) == sorted(chain(*mine.values()))


def test_without_times_a_trace_has_no_ids(shop: Shop, champion: Champion, claims: Claims, tmp_path: Path) -> None:
    """Triton names a request only where it notes times, so the rows are there, and no label finds them."""
    ask_everybody(shop, champion, claims, tmp_path, "TENSORS")
    traced = read(TRACED, shop, tmp_path / "traced", models={champion.bundle.digest})
    assert len(traced) == WINDOW_REQUESTS * REQUEST_ROWS
    assert not set(traced.request_ids) & set(read(OWN, shop, tmp_path / "own", models=None).request_ids)
