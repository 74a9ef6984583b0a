"""Whole Jobs, and a model server, on a store in a bucket of a real S3 server, without any volume."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import onnx
import pytest
from onnx import numpy_helper

from optimizer_jobs.commands.check.page import PAGE, keep_page
from optimizer_jobs.errors import RETRY_EXIT
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.names import MANIFEST, MODEL
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.stores.base import Store
from optimizer_jobs.stores.opening import open_store
from retune.contract.exits import Exit
from retune.contract.paths import CREDENTIALS_VARIABLE
from retune.contract.requests import BundleRef
from retune.contract.results import (
    BaselineResult,
    CheckResult,
    Failure,
    GatherResult,
    JobResult,
    JudgeResult,
    Reason,
    Verdict,
    VerifyResult,
    parse_result,
)
from tests.storage import servers
from tests.storage.proxy import Answer, Proxy
from tests.storage.servers import Store as Server
from tests.unit.jobs import models_for_tests as models
from tests.unit.jobs.captured_for_tests import HOUR, NOW, Shop
from tests.unit.jobs.conftest import delivered

pytest.importorskip("s3fs")

__all__ = ["delivered"]

pytestmark = pytest.mark.timeout(900)  # processes that import everything, on a busy machine

ROOT = Path(__file__).parents[2]
SPLITS = ("training", "validation", "test")
RUN = "digits-r7"
SHIFT = 3 * HOUR
REQUESTS = 120


@dataclass(frozen=True)
class Place:
    """A prefix in the bucket with what was delivered, and a store that is empty at first."""

    uri: str
    scratch: Path

    @property
    def store(self) -> str:
        """Address of the resource's folder."""
        return f"{self.uri}/store/digits"

    @property
    def opened(self) -> Store:
        """The resource's folder."""
        return open_store(self.store)

    @property
    def asked(self) -> dict[str, Any]:
        """What all requests have."""
        data = {split: {"uri": f"{self.uri}/data/{split}.npz"} for split in SPLITS}
        return {"resource": "ml/digits", "specHash": "abc", "store": self.store, "threads": 1, "data": data}

    def job(self, command: str, **fields: object) -> tuple[JobResult, int]:
        """Run a Job as a process that has no volume and no folder to write to but its scratch."""
        request, result = self.scratch / f"{uuid4().hex}.json", self.scratch / f"{uuid4().hex}.result"
        request.write_text(json.dumps({"command": command, **fields}))
        scratch = self.scratch / f"tmp-{uuid4().hex}"
        scratch.mkdir()
        arguments = ["-m", "optimizer_jobs", "--request", str(request), "--result", str(result)]
        environment = os.environ | {"TMPDIR": str(scratch), "RETUNE_CLAIM_ROOT": "/nonexistent"} | PYTHONPATH
        done = subprocess.run(
            [sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False
        )
        assert not list(scratch.glob("bundles-*")), "the Job has left its cache behind"
        assert result.exists(), done.stderr
        print(done.stdout[-2000:], done.stderr[-2000:])
        return parse_result(result.read_bytes()), done.returncode

    def baseline(self, name: str = "mlp", **fields: object) -> tuple[JobResult, int]:
        """Measure a delivered model."""
        return self.job("baseline", **self.asked, model={"uri": f"{self.uri}/data/{name}.onnx"}, **fields)

    def judge(self, champion: BundleRef, original: BundleRef) -> tuple[JobResult, int]:
        """Judge a delivered model beside the champion."""
        faster = {"metric": "latency_p95_ms", "tolerance": "0.5"}
        about = {"champion": _plain(champion), "original": _plain(original), "trigger": "SpecChange", "delivered": True}
        parts: dict[str, object] = {"selection": {}, "techniques": None, "search": {}, "objectives": [faster]}
        return self.job("judge", **self.asked, run=RUN, **about, **parts)


PYTHONPATH = {"PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}:{ROOT / 'tools' / 'runtime'}"}


def _plain(ref: BundleRef) -> dict[str, Any]:
    return ref.model_dump(mode="json", by_alias=True)


@pytest.fixture
def place(s3: Server, delivered: Path, tmp_path: Path) -> Place:
    """The digits, delivered to the bucket: a network, one that answers nearly alike, and the data."""
    folder = uuid4().hex
    for path in [*delivered.glob("*.npz"), delivered / "mlp.onnx", _retrained(delivered, tmp_path)]:
        s3.put(f"{folder}/data/{path.name}", path.read_bytes())
    return Place(f"s3://{servers.BUCKET}/{folder}", tmp_path)


def _retrained(delivered: Path, into: Path) -> Path:
    proto = onnx.load(delivered / "mlp.onnx")
    weights = next(tensor for tensor in proto.graph.initializer if tensor.name == "w2")
    weights.CopyFrom(numpy_helper.from_array(1.01 * numpy_helper.to_array(weights), "w2"))
    onnx.save(proto, into / "retrained.onnx")
    return into / "retrained.onnx"


@contextmanager
def serving(uri: str | None, **variables: str) -> Iterator[str]:
    """Start a model server; yields its address, or raises RuntimeError with its last words."""
    environment = os.environ | {"RETUNE_CLAIM_ROOT": "/nonexistent"} | PYTHONPATH | variables
    environment |= {"MODEL_URI": uri} if uri else {}
    command = [sys.executable, "-m", "tests.storage.bundle_server"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stdout=pipe, stderr=pipe) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            line = process.stdout.readline().split()
            if not line:
                raise RuntimeError(process.stderr.read())
            yield f"http://127.0.0.1:{line[1]}"
        finally:
            process.kill()


def captured(place: Place, s3: Server, delivered: Path, champion: BundleRef) -> dict[str, Any]:
    """Capture three hours of requests to the champion with their labels, and return the spec of production."""
    shop = Shop(place.scratch / "shop", open_model(delivered / "mlp.onnx", EngineOptions()), *models.digits("test"))
    shop.serve(range(REQUESTS), since=NOW - SHIFT, every=SHIFT / REQUESTS, model=champion.digest)
    shop.label(range(REQUESTS))
    folder = place.store.removeprefix(f"s3://{servers.BUCKET}/")
    for path in shop.root.rglob("*.parquet"):
        s3.put(f"{folder}/shop/{path.relative_to(shop.root)}", path.read_bytes())
    return {"uri": f"{place.store}/shop/captured", "labels": {"uri": f"{place.store}/shop/labels"}, "retention": "1h"}


def test_the_loop_closes_without_a_volume(place: Place, s3: Server, delivered: Path) -> None:
    """Baseline, verdict on a delivered model, data from production, a window and live pods: all in one bucket."""
    first, code = place.baseline()
    assert code == Exit.DONE
    assert isinstance(first, BaselineResult)
    assert first.bundle.uri == f"{place.store}/bundles/{first.bundle.digest.removeprefix('sha256:')}"
    second, _ = place.baseline("retrained")
    assert isinstance(second, BaselineResult)

    verdict, _ = place.judge(first.bundle, second.bundle)
    assert isinstance(verdict, JudgeResult)
    assert verdict.verdict is Verdict.PROMOTE, verdict.message
    assert verdict.report == f"{place.store}/runs/{RUN}/report.html"
    assert b"<html" in place.opened.read(f"runs/{RUN}/report.html", limit=1 << 24)
    assert place.judge(first.bundle, second.bundle)[0] == verdict, "it repeats its verdict"

    production = captured(place, s3, delivered, first.bundle)
    about: dict[str, Any] = {"resource": "ml/digits", "specHash": "abc", "store": place.store, "production": production}
    champion = {"champion": _plain(first.bundle)}
    fresh = {
        "refresh": {"span": "3h", "minRows": 100},
        "run": RUN,
        "until": NOW,
        "data": place.asked["data"],
        "seed": 3,
    }
    gathered, _ = place.job("gather", **about, **champion, **fresh)
    assert isinstance(gathered, GatherResult)
    assert gathered.fresh is not None, gathered.message
    assert gathered.fresh.test.uri == f"{place.store}/runs/{RUN}/data/test.npz"
    assert place.job("gather", **about, **champion, **fresh)[0] == gathered, "it repeats what it recorded"

    span = {"index": NOW // HOUR - 1, "start": NOW - HOUR, "end": NOW}
    window = {"window": span, "labelled": span, "minSamples": 50, "maxSamples": 20000, "reports": 2, "seed": 0}
    reference = {"reference": place.asked["data"]["validation"], "referenceDigest": first.reference}
    checked, _ = place.job("check", **about, **champion, **window, **reference, quality={})
    assert isinstance(checked, CheckResult)
    assert checked.quality is not None
    assert (checked.quality.verdict, checked.samples) == ("Clear", 160), checked.quality.message
    kept = [stat.key for stat in place.opened.stats("shop/")]
    assert kept == ["shop/labels/a.parquet"], "captured requests went after their retention, and nothing else"

    hold_what_serves(place, served=second.bundle, champion=first.bundle)


def hold_what_serves(place: Place, *, served: BundleRef, champion: BundleRef) -> None:
    """Hold that two pods are seen to serve a bundle, and not to serve another one."""
    with serving(served.uri) as one, serving(served.uri) as two:
        about = {"endpoints": [one, two], "modelName": "digits", "champion": _plain(champion)}
        verified, _ = place.job("verify", resource="ml/digits", **about, bundle=_plain(served))
        refused, code = place.job("verify", resource="ml/digits", **about, bundle=_plain(champion))
    assert isinstance(verified, VerifyResult)
    assert (verified.pods, verified.bundle_digest, verified.shown_by) == (2, served.digest, "Digest")
    assert isinstance(refused, Failure)
    assert (refused.reason, code) == (Reason.VARIABLE_IGNORED, Exit.INFEASIBLE)


def failed(done: tuple[JobResult, int]) -> tuple[str, int, str]:
    """Return reason, exit code and sentence of a Job that has failed."""
    result, code = done
    assert isinstance(result, Failure)
    return str(result.reason), code, result.sentence


def test_a_bucket_that_is_missing(place: Place) -> None:
    """Nobody tries again what a person must correct."""
    missing = place.job("baseline", **place.asked | {"store": "s3://elsewhere/digits"}, model=_model(place))
    reason, code, sentence = failed(missing)
    assert (reason, code) == (Reason.STORE_NOT_WRITABLE, Exit.BAD_INPUT)
    assert "there is no such bucket" in sentence


def _model(place: Place) -> dict[str, str]:
    return {"uri": f"{place.uri}/data/mlp.onnx"}


def test_credentials_that_are_missing_or_wrong(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Secret that the spec names is named, and nothing of it is told."""
    bundle = {"uri": f"{place.store}/bundles/{'0' * 64}", "digest": f"sha256:{'0' * 64}"}
    verify = {"resource": "ml/digits", "bundle": bundle, "endpoints": [], "modelName": "digits", "bundleAlone": True}
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-value")
    reason, code, sentence = failed(place.job("verify", **verify))
    assert (reason, code) == (Reason.BUNDLE_FORBIDDEN, Exit.BAD_INPUT)
    assert "Correct the Secret that spec.execution.credentials.secretName names" in sentence
    assert "wrong-value" not in sentence
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION", "AWS_ENDPOINT_URL", "CA_CERTIFICATES"):
        monkeypatch.delenv(name)
    monkeypatch.setenv(CREDENTIALS_VARIABLE, "bucket-keys")
    reason, _, sentence = failed(place.job("verify", **verify))
    assert reason == Reason.BUNDLE_FORBIDDEN
    assert "Secret bucket-keys does not exist" in sentence


def test_a_bucket_that_may_only_be_read(place: Place, between: Proxy) -> None:
    """What must be written is told, and no bundle is there."""
    between.plan = lambda head: Answer(403, "AccessDenied") if head.startswith(b"PUT ") else None
    reason, code, sentence = failed(place.baseline())
    assert (reason, code) == (Reason.STORE_NOT_WRITABLE, Exit.BAD_INPUT)
    assert "may read there, and may not write" in sentence
    between.plan = lambda head: None
    assert not list(place.opened.stats(""))


def test_a_server_that_throttles_writes(place: Place, between: Proxy) -> None:
    """The Job's own policy tries again later, and then goes through with what is there already."""
    between.plan = lambda head: Answer(503, "SlowDown") if _ends_bundle(head) else None
    reason, code, sentence = failed(place.baseline())
    assert (reason, code) == (Reason.SOURCE_UNREACHABLE, RETRY_EXIT)
    assert "fewer requests" in sentence
    names = {stat.key.rpartition("/")[2] for stat in place.opened.stats("")}
    assert names
    assert MANIFEST not in names
    half = _verify_alone(place, _only_bundle(place.opened))
    assert half[0] == Reason.BUNDLE_NOT_FOUND
    assert "half written" in half[2]
    between.plan = lambda head: None
    assert place.baseline()[1] == Exit.DONE


def _ends_bundle(head: bytes) -> bool:
    return head.startswith(b"PUT ") and MANIFEST.encode() in head.partition(b"\r\n")[0]


def _only_bundle(store: Store) -> BundleRef:
    (name,) = {stat.key.split("/")[1] for stat in store.stats("bundles/")}
    return BundleRef(uri=f"{store.uri}/bundles/{name}", digest=f"sha256:{name}")


def _verify_alone(place: Place, bundle: BundleRef) -> tuple[str, int, str]:
    alone = {"endpoints": [], "modelName": "digits", "bundleAlone": True}
    return failed(place.job("verify", resource="ml/digits", bundle=_plain(bundle), **alone))


def test_objects_that_are_gone_or_damaged(place: Place) -> None:
    """A Job and a server name the file; a baseline that runs again mends it."""
    first, _ = place.baseline()
    assert isinstance(first, BaselineResult)
    key = f"bundles/{first.bundle.digest.removeprefix('sha256:')}/{MODEL}"
    content = bytearray(place.opened.read(key, limit=1 << 30))
    place.opened.delete([key])
    reason, code, sentence = _verify_alone(place, first.bundle)
    assert (reason, code, MODEL in sentence) == (Reason.BUNDLE_CORRUPT, Exit.BAD_INPUT, True)
    content[100] ^= 1
    place.opened.replace(key, bytes(content))
    with pytest.raises(RuntimeError, match=rf"{MODEL} has digest"), serving(first.bundle.uri):
        pass
    again, _ = place.baseline()
    assert isinstance(again, BaselineResult)
    assert again.bundle == first.bundle
    with serving(first.bundle.uri):
        pass


def test_a_server_says_what_it_lacks(place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In its own words: it has an environment, and no spec."""
    first, _ = place.baseline()
    assert isinstance(first, BaselineResult)
    with serving(None, DELIVERED=f"{place.uri}/data/mlp.onnx") as url:
        assert url.startswith("http")
    (tmp_path / "s3fs.py").write_text("raise ModuleNotFoundError('no s3fs', name='s3fs')\n")
    hidden = {"PYTHONPATH": f"{tmp_path}:{PYTHONPATH['PYTHONPATH']}"}
    with pytest.raises(RuntimeError, match="pip install s3fs"), serving(first.bundle.uri, **hidden):
        pass
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    with (
        pytest.raises(RuntimeError, match="Put them into this server's environment: AWS_ACCESS_KEY_ID"),
        serving(first.bundle.uri),
    ):
        pass


@pytest.mark.parametrize("kind", ["volume", "bucket"])
def test_only_the_newest_pages_stay(place: Place, tmp_path: Path, kind: str) -> None:
    """Beside what others have put there."""
    uri = f"file://{tmp_path}/pages" if kind == "volume" else place.store
    store, page = open_store(uri), tmp_path / PAGE
    store.replace("monitoring/of-others/page", b"theirs")
    for index in (9, 10, 11, 10):
        page.write_text(str(index))
        assert keep_page(uri, index, page, keep=2) == f"{uri}/monitoring/w{index}/{PAGE}"
    names = [stat.key for stat in store.stats("monitoring/")]
    assert names == [f"monitoring/{name}" for name in ("of-others/page", f"w10/{PAGE}", f"w11/{PAGE}")]
    assert store.read(f"monitoring/w10/{PAGE}", limit=10) == b"10"
