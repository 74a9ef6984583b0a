"""What a team's own server stands on: it serves the bundle as it was judged, or says why it serves nothing."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import retune_runtime
from pyarrow import parquet
from retune_runtime import EngineError, InputError, Served, ServeError

from optimizer_jobs.agent import environment
from optimizer_jobs.data.volumes import file_digest
from optimizer_jobs.models.bundle import publish
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.golden import Golden, GoldenRequest, check
from retune.contract.paths import bundles
from retune.contract.requests import BundleRef
from tests.unit.jobs.conftest import Claims
from tests.unit.jobs.lookup_for_tests import ANSWER, ASKED, FITS_AND_FAILS, lookup_bundle, save_lookup


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment that names nothing, a termination log of the test's own, and a folder for temporary files."""
    for name in (retune_runtime.BUNDLE_VARIABLE, retune_runtime.CAPTURE_VARIABLE, retune_runtime.THREADS_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    log, scratch = tmp_path / "termination-log", tmp_path / "scratch"
    log.touch()
    scratch.mkdir()
    monkeypatch.setattr(environment, "_TERMINATION_LOG", log)
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    return log


@pytest.fixture
def reference(tmp_path: Path, store: str) -> BundleRef:
    """The published bundle of the lookup."""
    return publish(lookup_bundle(tmp_path / "made"), uri=bundles(store))


def body(request_id: str | None = "r1", **changes: Any) -> dict[str, Any]:
    """A request's body, with the data of some inputs replaced."""
    tensors = [
        {"name": name, "shape": list(values.shape), "datatype": kind, "data": changes.get(name, values.tolist())}
        for (name, values), kind in zip(ASKED.items(), ("FP32", "INT64"), strict=True)
    ]
    return {"inputs": tensors} | ({"id": request_id} if request_id else {})


def test_a_bundle_is_served_from_its_claim(reference: BundleRef) -> None:
    """`pvc://` leads below the mount, as in the Jobs; arrays in, arrays out."""
    served = retune_runtime.open(reference.uri)
    assert served.digest == served.bundle_digest == reference.digest
    assert served.version == reference.digest.removeprefix("sha256:")[:12]
    assert [spec.name for spec in served.signature.inputs] == ["x", "index"]
    assert served.check_golden() == 1
    np.testing.assert_array_equal(served.run(ASKED)["sum"], ANSWER)
    np.testing.assert_array_equal(served.run({name: values.tolist() for name, values in ASKED.items()})["sum"], ANSWER)


def test_an_answer_of_the_protocol_names_the_bundle(reference: BundleRef) -> None:
    """So that Retune can prove what serves: the project's own check accepts it."""
    served = retune_runtime.open(reference.uri)
    answer = json.loads(json.dumps(served.answer(body(), name="lookup")))
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("r1", "lookup", served.version)
    assert answer["parameters"] == {"bundle_digest": reference.digest}
    output = {"name": "sum", "datatype": "FP32", "shape": [2, 3], "data": ANSWER.ravel().tolist()}
    assert answer["outputs"] == [output]
    assert served.answer(body(None))["id"], "a request without an id gets one"
    assert served.metadata("lookup") == {
        "name": "lookup",
        "versions": [served.version],
        "platform": "onnxruntime",
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "index", "datatype": "INT64", "shape": [-1]},
        ],
        "outputs": [{"name": "sum", "datatype": "FP32", "shape": [-1, 3]}],
    }


def test_a_mounted_folder_needs_no_digest_in_its_name(reference: BundleRef, claims: Claims, tmp_path: Path) -> None:
    """KServe mounts it at /mnt/models; a plain path and file:// do the same."""
    mounted = tmp_path / "models"
    mounted.symlink_to(claims.path(reference.uri))
    for where in (mounted, str(mounted), f"file://{mounted}", f"{reference.uri}/"):
        assert retune_runtime.open(where).bundle_digest == reference.digest


def test_whose_fault_it_is(reference: BundleRef) -> None:
    """What does not fit is the client's, and what fits and fails is the model's."""
    served = retune_runtime.open(reference.uri)
    wrongs: list[Any] = [body(x=[1, 2]), body(x="no list"), {"inputs": []}, []]
    for wrong in wrongs:
        with pytest.raises(InputError):
            served.answer(wrong)
    with pytest.raises(InputError, match="same number of rows"):
        served.run(ASKED | {"index": ASKED["index"][[0, 0, 0]]})
    with pytest.raises(EngineError, match="out of data bounds"):
        served.run(FITS_AND_FAILS)
    with pytest.raises(EngineError, match="out of data bounds"):
        served.answer(body(index=[7, 0]))


def test_a_damaged_bundle_is_not_opened(reference: BundleRef, claims: Claims) -> None:
    """One byte is enough, and nothing is left behind."""
    model = claims.path(reference.uri) / "model.onnx"
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    model.write_bytes(content)
    with pytest.raises(ServeError, match=r"model\.onnx has digest"):
        retune_runtime.open(reference.uri)
    assert list(Path(tempfile.gettempdir()).iterdir()) == []


def test_a_bundle_under_the_name_of_another_is_not_opened(reference: BundleRef, claims: Claims) -> None:
    """What MODEL_URI names is what must be there."""
    other = f"{reference.uri.rpartition('/')[0]}/{'0' * 64}"
    claims.path(reference.uri).rename(claims.path(other))
    with pytest.raises(ServeError, match="instead of sha256:0000"):
        retune_runtime.open(other)


@pytest.mark.parametrize(
    "uri", ["pvc://digits/none.onnx", "https://host/model.onnx", "pvc://retune-artifacts", "/no/file"]
)
def test_nothing_is_served_from_nowhere(claims: Claims, uri: str) -> None:
    """An empty mount, a file that is missing and a scheme that leads to a server are refused in words."""
    assert claims.root.is_dir()
    with pytest.raises(ServeError, match=r"there is no|scheme is not"):
        retune_runtime.open(uri)


def test_a_bundle_that_answers_otherwise_here_is_not_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bare: Path
) -> None:
    """Golden requests are asked before the server gets ready, and the reason is left where people look."""
    honest = lookup_bundle(tmp_path / "honest").golden.requests[0]
    (output,) = honest.outputs
    wrong = GoldenRequest(inputs=honest.inputs, outputs=(output.model_copy(update={"data": (9.0, *output.data[1:])}),))
    bundle = lookup_bundle(tmp_path / "wrong", golden=Golden(requests=(honest, wrong)))
    with pytest.raises(ServeError, match=r"golden request 2: output 'sum' is 12\.5 at position 0 where 9\.0"):
        retune_runtime.open(bundle.folder).check_golden()
    monkeypatch.setenv("MODEL_URI", str(bundle.folder))
    with pytest.raises(ServeError):
        retune_runtime.from_environment()
    assert "golden request 2" in bare.read_text()


def test_a_model_that_fails_at_a_golden_request_is_not_served(tmp_path: Path) -> None:
    """The engine's words are in the sentence."""
    (honest,) = lookup_bundle(tmp_path / "honest").golden.requests
    inputs = (honest.inputs[0], honest.inputs[1].model_copy(update={"data": (7, 0)}))
    golden = Golden(requests=(honest.model_copy(update={"inputs": inputs}),))
    bundle = lookup_bundle(tmp_path / "failing", golden=golden)
    with pytest.raises(ServeError, match=r"golden request 1: .*out of data bounds"):
        retune_runtime.open(bundle.folder).check_golden()


def test_the_variable_wins_over_the_delivered_file(
    reference: BundleRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until Retune sets it, the file is served, under its own digest and without that of a bundle."""
    file = save_lookup(tmp_path / "lookup.onnx")
    before = retune_runtime.from_environment(delivered=file)
    assert (before.digest, before.bundle_digest, before.check_golden()) == (file_digest(file), None, 0)
    assert "parameters" not in before.answer(body())
    monkeypatch.setenv("MODEL_URI", reference.uri)
    assert retune_runtime.from_environment(delivered=file).bundle_digest == reference.digest


def test_a_folder_with_a_file_is_served_as_delivered(tmp_path: Path) -> None:
    """As KServe mounts it."""
    (tmp_path / "models").mkdir()
    file = save_lookup(tmp_path / "models" / "lookup.onnx")
    assert retune_runtime.open(tmp_path / "models").digest == file_digest(file)
    file.write_bytes(b"no model")
    with pytest.raises(ServeError, match="not an ONNX file"):
        retune_runtime.open(tmp_path / "models")


def test_of_several_files_the_one_with_a_model_s_name_is_served_and_none_is_guessed(tmp_path: Path) -> None:
    """KServe mounts a folder: the first of its files by name may be anything."""
    folder = tmp_path / "models"
    folder.mkdir()
    file = save_lookup(folder / "model.onnx")
    (folder / "another.onnx").write_bytes(b"what an earlier version was")
    assert retune_runtime.open(folder).digest == file_digest(file)
    file.rename(folder / "third.onnx")
    with pytest.raises(ServeError, match=r"several ONNX files \(another\.onnx, third\.onnx\)"):
        retune_runtime.open(folder)


def test_an_environment_that_names_nothing_is_refused(monkeypatch: pytest.MonkeyPatch, bare: Path) -> None:
    """So is a number of cores that is none."""
    with pytest.raises(ServeError, match="MODEL_URI is not set"):
        retune_runtime.from_environment()
    monkeypatch.setenv("CPU_LIMIT", "1500m")
    with pytest.raises(ServeError, match="CPU_LIMIT: it is '1500m'"):
        retune_runtime.from_environment(delivered="model.onnx")
    assert "CPU_LIMIT" in bare.read_text()


def test_threads_are_those_that_were_judged_unless_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit never raises them."""
    bundle = lookup_bundle(tmp_path / "made", engine=EngineOptions(threads=2))
    assert [threads_of(retune_runtime.open(bundle.folder, threads=limit)) for limit in (None, 1, 4)] == [2, 1, 2]
    monkeypatch.setenv("CPU_LIMIT", "1")
    assert threads_of(retune_runtime.from_environment(delivered=bundle.folder)) == 1


def threads_of(served: Served) -> int:
    """Return the threads that ONNX Runtime was given."""
    session: Any = served._session
    return int(session._session.get_session_options().intra_op_num_threads)


def test_an_engine_that_is_not_here_is_named(tmp_path: Path) -> None:
    """Where OpenVINO or a GPU is missing, the server does not get ready with another engine."""
    bundle = lookup_bundle(tmp_path / "made", engine=EngineOptions(engine="tensorrt"))
    with pytest.raises(ServeError, match="engine tensorrt is needed and cannot run here"):
        retune_runtime.open(bundle.folder)


def test_a_model_with_fixed_rows_takes_any_number(tmp_path: Path) -> None:
    """The engine's rows are not the client's."""
    bundle = lookup_bundle(tmp_path / "made", engine=EngineOptions(rows=4))
    served = retune_runtime.open(bundle.folder)
    assert served.check_golden() == 1
    with pytest.raises(InputError, match="same number of rows, at least one"):
        served.run({name: values[:0] for name, values in ASKED.items()})


def test_what_is_answered_is_captured(reference: BundleRef, claims: Claims, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the digest that answered; Retune's own requests are not."""
    monkeypatch.setenv("MODEL_URI", reference.uri)
    monkeypatch.setenv("CAPTURE_URI", "pvc://digits/captured")
    served = retune_runtime.from_environment()
    served.answer(body("r1"))
    served.answer(body("retune-golden"))
    outputs = served.run(ASKED)
    assert served.capture(ASKED, outputs, request_id="r2")
    assert not served.capture(ASKED, outputs, request_id="retune-shadow")
    served.close()
    (file,) = (claims.root / "digits" / "captured").rglob("*.parquet")
    rows = parquet.read_table(file, partitioning=None).to_pylist()
    assert [(row["request_id"], row["row"], row["model"]) for row in rows] == [
        (name, row, reference.digest) for name in ("r1", "r2") for row in (0, 1)
    ]
    assert [row["output.sum"] for row in rows[:2]] == ANSWER.tolist()
    assert not served.capture(ASKED, outputs), "nothing is captured after it was closed"
    assert check(served.answer(body()), lookup(served), golden=Golden()) is None


def lookup(served: Served) -> GoldenRequest:
    """Return the golden request of the served bundle."""
    assert served._golden is not None
    return served._golden.requests[0]


def test_capturing_that_cannot_be_is_said(reference: BundleRef, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is on no volume and in no bucket is a mistake in the manifest, and found at the start."""
    served = retune_runtime.open(reference.uri)
    with pytest.raises(ServeError, match="scheme is not"):
        served.capture_to("https://bucket/captured")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delitem(sys.modules, "optimizer_jobs.production.writer", raising=False)
    monkeypatch.delitem(sys.modules, "optimizer_jobs.production.layout", raising=False)
    with pytest.raises(ServeError, match=r"Install retune-runtime\[capture\]"):
        served.capture_to("pvc://digits/captured")


@pytest.mark.parametrize("beside", [False, True], ids=["in one file", "with weights beside it"])
def test_nothing_is_left_of_the_private_copy(tmp_path: Path, beside: bool) -> None:  # noqa: FBT001 - a parameter
    """Once the engine has the model, also where its weights lie beside it: a server that is killed fills no disk."""
    bundle = lookup_bundle(tmp_path / "made", beside=beside)
    assert ("weights" in bundle.manifest.files) is beside
    served = retune_runtime.open(bundle.folder)
    assert list(Path(tempfile.gettempdir()).iterdir()) == []
    assert served.check_golden() == 1
    np.testing.assert_array_equal(served.run(ASKED)["sum"], ANSWER)
