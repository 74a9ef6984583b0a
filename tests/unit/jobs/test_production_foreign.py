"""Logs of other servers are hostile input: what is broken costs itself alone, is counted, and never ends a check."""

import base64
import json
import os
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from optimizer_jobs.models.golden import GOLDEN_ID
from optimizer_jobs.production import files, kserve_files, triton_traces
from optimizer_jobs.production.events import REQUEST_TYPE, RESPONSE_TYPE
from optimizer_jobs.production.windows import Captured, Selection, read_window
from optimizer_jobs.signature import TEXT, Signature, TensorSpec
from retune.api.production import CaptureFormat, Production
from tests.unit.jobs.captured_for_tests import DIGEST, HOUR, NOW, REQUEST_ROWS, Shop

Json = dict[str, Any]
OTHER = "ef" * 32


def read(shop: Shop, into: Path, written: CaptureFormat, **selection: Any) -> Captured:
    """Read the hour from NOW."""
    production = Production(uri="pvc://shop/logs", format=written)
    signature = selection.pop("signature", shop.signature)
    wanted: Json = {"start": NOW, "end": NOW + HOUR, "now": NOW + HOUR, "models": {DIGEST}, **selection}
    return read_window(production, signature, Selection(**wanted), max_rows=10_000, into=into, seed=0)


def put(shop: Shop, name: str, content: bytes, *, at: float = NOW + 60) -> Path:
    """Write a file of a log that was last changed at a time."""
    path = shop.root / "logs" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (at, at))
    return path


def record(kind: str, identity: str, body: object, **more: Any) -> Json:
    """A record of KServe's logger."""
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    return {"reqType": kind, "id": identity, "bytes": base64.b64encode(payload).decode(), "annotations": "", **more}


def call(shop: Shop, number: int, identity: str = "", **more: Any) -> list[Json]:
    """Both records of a call for four digits."""
    pixels = shop.pixels[shop.places(number)]
    scores = shop.session.run({"x": pixels})["scores"]
    asked = {"inputs": [{"name": "x", "shape": [4, 64], "datatype": "FP32", "data": pixels.ravel().tolist()}]}
    answer = {"outputs": [{"name": "scores", "shape": [4, 10], "datatype": "FP32", "data": scores.ravel().tolist()}]}
    name = identity or f"c{number}"
    return [record(REQUEST_TYPE, name, asked, **more), record(RESPONSE_TYPE, name, answer, **more)]


def as_json(records: list[Any]) -> bytes:
    """A file of KServe's logger."""
    return json.dumps(records).encode()


def as_parquet(records: list[Json]) -> bytes:
    """The same as Parquet."""
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.Table.from_pylist(records), sink)
    return bytes(sink.getvalue())


def test_halves_in_different_files_meet(shop: Shop, tmp_path: Path) -> None:
    """A file a record, as KServe writes by default, deep in folders; what other files hold is none of ours."""
    for number in range(3):
        for half, side in zip(call(shop, number), ("request", "response"), strict=True):
            put(shop, f"ml/digits/c{number}-{side}.json", json.dumps(half).encode(), at=NOW + number)
    put(shop, "c9-request.csv", b"url,bytes")
    found = read(shop, tmp_path, CaptureFormat.KSERVE)
    np.testing.assert_array_equal(found.inputs["x"], shop.pixels[: 3 * REQUEST_ROWS])
    assert found.request_ids.tolist() == [f"c{number}" for number in range(3) for _ in range(REQUEST_ROWS)]
    assert set(found.models) == {DIGEST}
    assert (found.seen, dict(found.set_aside), found.violations) == (12, {}, ())


def test_the_time_is_that_of_the_request_or_else_of_its_file(shop: Shop, tmp_path: Path) -> None:
    """JSON of KServe says when a call was; Go's word for no time, as older releases write it, is none."""
    told, silent = "2025-11-24T16:30:00.5Z", "0001-01-01T00:00:00Z"
    put(shop, "a.json", as_json([*call(shop, 0, occurrenceTime=told), *call(shop, 1, occurrenceTime=silent)]))
    put(shop, "b.parquet", as_parquet(call(shop, 2)), at=NOW + 90)
    found = read(shop, tmp_path, CaptureFormat.KSERVE)
    seconds = found.times.astype("datetime64[ms]").astype(int) / 1000 - NOW
    by_id = dict(zip(found.request_ids, seconds, strict=True))
    assert by_id == {"c0": 1800.5, "c1": 60.0, "c2": 90.0}


def test_calls_of_other_hours_are_not_counted(shop: Shop, tmp_path: Path) -> None:
    """Neither as rows nor as lacking their other half."""
    put(shop, "old.json", as_json(call(shop, 0)), at=NOW - 60)
    put(shop, "new.json", as_json(call(shop, 1)[:1]), at=NOW + HOUR + 60)
    put(shop, "long-ago.json", b"broken", at=NOW - 3 * HOUR)
    found = read(shop, tmp_path, CaptureFormat.KSERVE)
    assert (len(found), dict(found.set_aside)) == (0, {})


BAD: Mapping[str, tuple[Callable[[Json], Any], str]] = {
    "no record": (lambda record: 7, kserve_files.BROKEN),
    "no base64": (lambda record: record | {"bytes": "***"}, kserve_files.BROKEN),
    "too long": (lambda record: record | {"bytes": "A" * (23 << 20)}, kserve_files.BROKEN),
    "a number for a body": (lambda record: record | {"bytes": 5}, kserve_files.BROKEN),
    "no id": (lambda record: {name: record[name] for name in ("bytes", "reqType")}, kserve_files.BROKEN),
    "another type": (lambda record: record | {"reqType": ["x"]}, kserve_files.BROKEN),
    "no JSON": (lambda record: record | {"bytes": "AAAA"}, kserve_files.UNREADABLE),
    "no body": (lambda record: record | {"bytes": ""}, kserve_files.UNREADABLE),
    "deep": (lambda record: record | {"bytes": base64.b64encode(b"[" * 200_000).decode()}, kserve_files.UNREADABLE),
    "another call": (lambda record: record | {"bytes": base64.b64encode(b"{}").decode()}, kserve_files.UNREADABLE),
    "a gzip bomb": (
        lambda record: record | {"bytes": base64.b64encode(b"\x1f\x8b" + b"\0" * 90).decode()},
        kserve_files.UNREADABLE,
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_broken_record_costs_itself(kind: str, shop: Shop, tmp_path: Path) -> None:
    """The calls around it are read; it is counted by what is wrong, and its other half as alone."""
    change, reason = BAD[kind]
    asked, answered = call(shop, 1)
    put(shop, "a.json", as_json([*call(shop, 0), change(asked), answered, *call(shop, 2)]))
    found = read(shop, tmp_path, CaptureFormat.KSERVE)
    assert set(found.request_ids) == {"c0", "c2"}
    alone = {kserve_files.ALONE: 1} if reason == kserve_files.BROKEN else {}
    assert dict(found.set_aside) == {reason: 1} | alone


def test_what_does_not_fit_the_model_is_a_violation(shop: Shop, tmp_path: Path) -> None:
    """As for rows of our own capture: the sentence says what, and an example of where."""
    asked, answered = call(shop, 0)
    narrow = {"inputs": [{"name": "x", "shape": [4, 63], "datatype": "FP32", "data": [0.0] * 252}]}
    other = {"inputs": [{"name": "y", "shape": [1], "datatype": "FP32", "data": [0.0]}]}
    halves = [record(REQUEST_TYPE, "c0", narrow), answered]
    more = [record(REQUEST_TYPE, "c1", other), call(shop, 1)[1]]
    huge = {"inputs": [{"name": "x", "shape": [1 << 40, 0], "datatype": "FP32", "data": []}]}
    put(shop, "a.json", as_json([*halves, *more, record(REQUEST_TYPE, "c2", huge), call(shop, 2)[1], *call(shop, 3)]))
    found = read(shop, tmp_path, CaptureFormat.KSERVE)
    assert set(found.request_ids) == {"c3"}
    assert found.violations == (
        "input.x has rows of shape [63], but the model's are [64] (4 rows, such as in shop/logs/a.json).",
        "tensor 'x' is missing, or sent apart from its JSON (1 rows, such as in shop/logs/a.json).",
        "a tensor has no values, or a shape that is none (1 rows, such as in shop/logs/a.json).",
    )
    assert (found.seen, asked["id"]) == (REQUEST_ROWS, "c0")


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.json", b"{", "files that cannot be read"),
        ("a.json", b"[" * 100_000, "files that cannot be read"),
        ("a.json", b"\xff\xfe", "files that cannot be read"),
        ("a.parquet", b"PAR1 not PAR1", "files that cannot be read"),
        ("a.parquet", as_parquet([{"x": 1}]), "files of another layout"),
        ("a.parquet", as_parquet([{"reqType": 1, "id": 2, "bytes": 3, "annotations": 4}]), "files of another layout"),
    ],
)
def test_a_broken_file_costs_itself(shop: Shop, tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    """The others are read."""
    put(shop, name, content)
    put(shop, "good.json", as_json(call(shop, 0)))
    found = read(shop, tmp_path, CaptureFormat.KSERVE)
    assert (len(found), dict(found.set_aside)) == (REQUEST_ROWS, {reason: 1})


def test_large_files_are_not_opened(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither those that are large as they lie there, nor those that become so."""
    put(shop, "a.json", as_json(call(shop, 0)))
    put(shop, "b.parquet", as_parquet(call(shop, 1)))
    monkeypatch.setattr(kserve_files, "GROUP_BYTES", 100)
    assert dict(read(shop, tmp_path, CaptureFormat.KSERVE).set_aside) == {"files too large to read": 1}
    monkeypatch.setattr(kserve_files, "FILE_BYTES", 100)
    assert dict(read(shop, tmp_path, CaptureFormat.KSERVE).set_aside) == {"files too large to read": 2}


def test_a_text_that_a_file_repeats_fills_no_memory(shop: Shop, tmp_path: Path) -> None:
    """A body of megabytes, a thousand times in a small file, takes neither memory nor time for so many."""
    (large,), good = [record(REQUEST_TYPE, "b", b"x" * (4 << 20))], call(shop, 0)
    columns = {}
    for name in ("id", "reqType", "bytes", "annotations"):
        places = pa.array([0, 1, *[2] * 1000], pa.int32())
        columns[name] = pa.DictionaryArray.from_arrays(places, [good[0][name], good[1][name], large[name]])
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns), sink, dictionary_pagesize_limit=32 << 20)
    path = put(shop, "a.parquet", bytes(sink.getvalue()))
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    found = read(shop, tmp_path, CaptureFormat.KSERVE)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert set(found.request_ids) == {"c0"}
    assert found.set_aside["files that cannot be read to their end"] == 1
    assert most < 100 << 20


def test_an_id_that_two_calls_have_pairs_nothing_wrong(shop: Shop, tmp_path: Path) -> None:
    """A client that always sends the same id gets no rows, rather than one's question with another's answer."""
    first, second = call(shop, 0, "same"), call(shop, 1, "same")
    put(shop, "a.json", as_json([first[0], second[0], second[1], first[1], *call(shop, 2)]))
    found = read(shop, tmp_path, CaptureFormat.KSERVE)
    assert set(found.request_ids) == {"c2"}
    assert found.set_aside == {kserve_files.DOUBLED: 1}


def test_halves_wait_in_bounded_memory(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest are given up and counted."""
    monkeypatch.setattr(kserve_files, "WAITING_BYTES", 20_000)
    requests = [call(shop, number)[0] for number in range(20)]
    put(shop, "a.json", as_json([*requests, *(call(shop, number)[1] for number in (0, 19))]))
    found = read(shop, tmp_path, CaptureFormat.KSERVE)
    assert set(found.request_ids) == {"c19"}
    assert found.set_aside == {kserve_files.ALONE: 20}


def test_of_too_many_files_whole_calls_are_drawn(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample of files must not part requests from answers."""
    monkeypatch.setattr(files, "FILES_LIMIT", 8)
    for number in range(20):
        for half, side in zip(call(shop, number), ("request", "response"), strict=True):
            put(shop, f"c{number}-{side}.json", json.dumps(half).encode())
    found = read(shop, tmp_path, CaptureFormat.KSERVE)
    assert len(set(found.request_ids)) == 4
    assert found.set_aside == {"files beyond the limit": 32}


def test_retunes_own_requests_and_those_nobody_asks_for_are_left_out(shop: Shop, tmp_path: Path) -> None:
    """Golden requests are no users'; a run's data wants labelled requests alone."""
    golden = call(shop, 0)
    body = json.loads(base64.b64decode(golden[0]["bytes"])) | {"id": GOLDEN_ID}
    put(shop, "a.json", as_json([record(REQUEST_TYPE, "c0", body), golden[1], *call(shop, 1), *call(shop, 2)]))
    found = read(shop, tmp_path, CaptureFormat.KSERVE, request_ids={"c2"}, models=None)
    assert set(found.request_ids) == {"c2"}
    assert set(read(shop, tmp_path, CaptureFormat.KSERVE).request_ids) == {"c1", "c2"}


@pytest.mark.parametrize(
    "annotations", [{"uri": f"s3://store/bundles/{OTHER}"}, json.dumps({"uri": f"pvc://store/{OTHER}/"})]
)
def test_the_pods_annotation_names_the_bundle(shop: Shop, tmp_path: Path, annotations: object) -> None:
    """As JSON has it, and as Parquet has it."""
    put(shop, "a.json", as_json(call(shop, 0, annotations=annotations)))
    assert set(read(shop, tmp_path, CaptureFormat.KSERVE, models=None).models) == {f"sha256:{OTHER}"}


# What Triton 2.51 wrote, with the numbers of a model of the tests in place of others.
NS = 14_210_876_860_561


def traced(number: int, pixels: Any, scores: Any, *, ns: int = NS, request_id: str | None = "", **names: Any) -> str:
    """The records of one request as Triton writes them, which is without escapes."""

    def tensor(activity: str, name: str, values: Any) -> str:
        data, shape = ",".join(f"{value:.6g}" for value in np.ravel(values)), ",".join(map(str, np.shape(values)))
        inner = f'"name":"{name}","data":"{data}","shape":"{shape}","dtype":"FP32"'
        return f'{{"id":{number},"activity":"{activity}","tensor":{{{inner}}}}}'

    more = "".join(f',"{name}":{value}' for name, value in names.items())
    identity = "" if request_id is None else f',"request_id":"{request_id or f"t{number}"}"'
    return ",".join(
        (
            f'{{"id":{number},"timestamps":[{{"name":"HTTP_RECV_START","ns":{ns - 1000}}}]}}',
            f'{{"id":{number},"model_name":"digits","model_version":1{identity}{more}}}',
            f'{{"id":{number},"timestamps":[{{"name":"REQUEST_START","ns":{ns}}}]}}',
            tensor("TENSOR_QUEUE_INPUT", "x", pixels),
            tensor("TENSOR_BACKEND_OUTPUT", "scores", scores),
            f'{{"id":{number},"timestamps":[{{"name":"HTTP_SEND_END","ns":{ns + 9000}}}]}}',
        )
    )


def trace(shop: Shop, number: int, **more: Any) -> str:
    """The records of a request for four digits."""
    pixels = shop.pixels[shop.places(number)]
    return traced(number, pixels, shop.session.run({"x": pixels})["scores"], **more)


def test_a_trace_has_rows_ids_and_times(shop: Shop, tmp_path: Path) -> None:
    """Values to six digits; times before the moment when the file was written; one without an id gets one."""
    records = [trace(shop, 1, ns=NS), trace(shop, 2, ns=NS + 5_000_000_000, request_id=None)]
    put(shop, "trace.json.0", f"[{','.join(records)}]".encode(), at=NOW + 60)
    found = read(shop, tmp_path, CaptureFormat.TRITON)
    np.testing.assert_allclose(found.inputs["x"], shop.pixels[REQUEST_ROWS : 3 * REQUEST_ROWS], rtol=1e-5)
    assert list(dict.fromkeys(found.request_ids)) == ["t1", "shop/logs/trace.json.0-2"]
    seconds = found.times.astype("datetime64[ms]").astype(int) / 1000 - NOW
    assert sorted(set(seconds)) == pytest.approx([55.0, 60.0], abs=0.01)
    assert (found.seen, dict(found.set_aside), found.violations) == (8, {}, ())


@pytest.mark.parametrize(
    "broken",
    [
        '{"id":2,"model_name":"digits","model_version":1,"request_id":"a"b"}',
        '{"id":2,"model_name":"digits","surprise":1}',
        '{"id":"2"}',
        '{"id":2,"timestamps":[{"name":"x","ns":"y"}]}',
        '{"id":2,"activity":"TENSOR_QUEUE_INPUT","tensor":7}',
        '{"id":2,"activity":' + "[" * 5000,
        '{"id":2,"activity":"TENSOR_QUEUE_INPUT","tensor":{"name":"x',
    ],
)
def test_a_broken_record_of_a_trace_costs_itself(broken: str, shop: Shop, tmp_path: Path) -> None:
    """An id with a quotation mark breaks JSON, and a server that is killed leaves half a file."""
    put(shop, "trace.json.0", f"[{trace(shop, 1)},{broken},{trace(shop, 3)}".encode())
    found = read(shop, tmp_path, CaptureFormat.TRITON)
    assert set(found.request_ids) == {"t1", "t3"}
    assert found.set_aside == {triton_traces.BROKEN: 1}


def test_a_request_that_looks_like_two_is_not_believed(shop: Shop, tmp_path: Path) -> None:
    """Whoever writes records into his id can only spoil his own request, as long as ids are not guessed."""
    forged = trace(shop, 2) + "," + trace(shop, 2)
    put(shop, "trace.json.0", f"[{trace(shop, 1)},{forged}]".encode())
    found = read(shop, tmp_path, CaptureFormat.TRITON)
    assert set(found.request_ids) == {"t1"}
    assert found.violations == ("a tensor is in the trace twice (1 rows, such as in shop/logs/trace.json.0).",)


def test_parts_of_ensembles_golden_requests_and_other_models_are_none_of_ours(shop: Shop, tmp_path: Path) -> None:
    """Only the last are counted."""
    other = traced(9, [[1.0]], [[2.0]]).replace('"name":"x"', '"name":"y"')
    records = [trace(shop, 1), trace(shop, 2, parent_id=1), trace(shop, 3, request_id=GOLDEN_ID), other]
    put(shop, "trace.json", f"[{','.join(records)}]".encode())
    found = read(shop, tmp_path, CaptureFormat.TRITON)
    assert set(found.request_ids) == {"t1"}
    assert found.set_aside == {triton_traces.FOREIGN: 1}


def test_types_that_a_trace_does_not_hold_are_told(shop: Shop, tmp_path: Path) -> None:
    """Half floats have no values there, bytes are characters, and texts can be made to look like anything."""
    text = Signature(inputs=(TensorSpec(name="x", dtype=TEXT, shape=(-1, 1)),), outputs=shop.signature.outputs)
    put(shop, "trace.json", f"[{trace(shop, 1).replace('FP32', 'BYTES')}]".encode())
    (violation,) = read(shop, tmp_path, CaptureFormat.TRITON, signature=text).violations
    assert violation.startswith("tensor 'x' is of a type whose values a trace does not hold, or not safely (1 rows")
    put(shop, "trace.json", f"[{trace(shop, 1).replace('FP32', 'FP16')}]".encode())
    assert read(shop, tmp_path, CaptureFormat.TRITON).violations == (violation,)


@pytest.mark.parametrize(
    ("old", "new"),
    [('"shape":"4,64"', '"shape":"4,65"'), ('"shape":"4,64"', '"shape":"-1,a"'), ('"data":"0', '"data":"?')],
)
def test_values_that_are_none_are_told(old: str, new: str, shop: Shop, tmp_path: Path) -> None:
    """And cost their own request."""
    put(shop, "trace.json", f"[{trace(shop, 1).replace(old, new)},{trace(shop, 2)}]".encode())
    found = read(shop, tmp_path, CaptureFormat.TRITON)
    assert set(found.request_ids) == {"t2"}
    assert found.violations == (
        "tensor 'x' has values or a shape that are none (1 rows, such as in shop/logs/trace.json).",
    )


def test_records_that_are_broken_on_purpose_do_not_take_for_ever(shop: Shop, tmp_path: Path) -> None:
    """Each beginning could be read to the end of the file; the reader's patience ends before."""
    put(shop, "trace.json", b"[" + b'{"id":1,"a":' * 300 + b"[0" + b",0" * 2_000_000)
    found = read(shop, tmp_path, CaptureFormat.TRITON)
    assert len(found) == 0
    assert 0 < found.set_aside[triton_traces.BROKEN] < 20
    assert found.set_aside["files that cannot be read to their end"] == 1
